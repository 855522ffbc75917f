//! Small value types of the schema. Each type can only have valid values. An invalid value is therefore reported while
//! the text is read, with its line, and later code needs no checks.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use http::Method;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Maximum number of seconds: one year. A longer time is a mistake, and adding it to a clock may overflow.
const MAX_SECS: u64 = 365 * 24 * 60 * 60;

/// Time in whole seconds, from 1 second to one year.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "i64")]
pub struct Secs(NonZeroU64);

/// Time in whole milliseconds, from 1 millisecond to one year.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "i64")]
pub struct Millis(NonZeroU64);

/// Share in whole percent, from 0 to 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "i64")]
pub struct Percent(u8);

impl Percent {
    /// Share of 100 percent.
    pub const ALL: Percent = Percent(100);

    /// Creates a `Percent` for a default value; a number above 100 becomes 100.
    pub(super) const fn of(percent: u8) -> Self {
        Percent(if percent > 100 { 100 } else { percent })
    }

    /// Returns the number, from 0 to 100.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<i64> for Percent {
    type Error = String;
    fn try_from(value: i64) -> Result<Self, String> {
        let percent = u8::try_from(value).ok().filter(|percent| *percent <= 100);
        percent.map(Percent).ok_or_else(|| format!("{value} is out of range: expected 0 to 100 percent"))
    }
}

/// Weight of a backend relative to the other backends of its pool, from 1 to 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "i64")]
pub struct Weight(u32);

impl Weight {
    /// Default weight, which gives each backend the same share.
    pub const ONE: Weight = Weight(1);

    /// Returns the weight as a number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<i64> for Weight {
    type Error = String;
    fn try_from(value: i64) -> Result<Self, String> {
        match u32::try_from(value) {
            Ok(weight @ 1..=1000) => Ok(Weight(weight)),
            // In HAProxy, weight 0 stops new requests to a backend; the error names the key that does this here.
            Ok(0) => Err("0 is out of range; to send a backend no requests, set `drained = true`".to_owned()),
            _ => Err(format!("{value} is out of range: expected 1 to 1000")),
        }
    }
}

/// Returns true if `value` equals the default of its type. Such a value is left out of written configurations.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn duration_in_range(value: i64, max: u64, unit: &str) -> Result<NonZeroU64, String> {
    let number = u64::try_from(value).ok().and_then(NonZeroU64::new).filter(|n| n.get() <= max);
    number.ok_or_else(|| format!("{value} is out of range: expected 1 to {max} {unit}"))
}

impl TryFrom<i64> for Secs {
    type Error = String;
    fn try_from(value: i64) -> Result<Self, String> {
        duration_in_range(value, MAX_SECS, "seconds").map(Secs)
    }
}

impl TryFrom<i64> for Millis {
    type Error = String;
    fn try_from(value: i64) -> Result<Self, String> {
        duration_in_range(value, MAX_SECS * 1000, "milliseconds").map(Millis)
    }
}

impl Secs {
    /// Creates a time for a default value; zero becomes one.
    pub(super) const fn new(secs: u64) -> Self {
        Secs(at_least_one(secs))
    }

    /// Returns the time as a [`Duration`].
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.get())
    }

    /// Returns the number of seconds.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl Millis {
    /// Creates a time for a default value; zero becomes one.
    pub(super) const fn new(millis: u64) -> Self {
        Millis(at_least_one(millis))
    }

    /// Returns the time as a [`Duration`].
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0.get())
    }
}

const fn at_least_one(n: u64) -> NonZeroU64 {
    match NonZeroU64::new(n) {
        Some(n) => n,
        None => NonZeroU64::MIN,
    }
}

/// Returns true if `host` is an IPv4 address or a possible DNS name (RFC 1123 2.1). Underscores are allowed, because
/// the names of services contain them.
pub(super) fn is_host_name(host: &str) -> bool {
    let label = |label: &[u8]| {
        (1..=63).contains(&label.len())
            && label.first() != Some(&b'-')
            && label.last() != Some(&b'-')
            && label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    // Each request asks this twice, and a search in bytes is several times faster than one for a character.
    let labels = host.strip_suffix('.').unwrap_or(host).as_bytes().split(|byte| *byte == b'.');
    host.len() <= 253 && labels.into_iter().all(label)
}

/// Set of status codes, written as "200-399" or "200,204,301-302".
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct StatusSet(Vec<RangeInclusive<u16>>);

impl StatusSet {
    pub(super) fn range(range: RangeInclusive<u16>) -> Self {
        StatusSet(vec![range])
    }

    /// Returns true if the set contains `status`.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl Serialize for StatusSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let range = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        serializer.serialize_str(&self.0.iter().map(range).collect::<Vec<_>>().join(","))
    }
}

impl TryFrom<String> for StatusSet {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let code = |code: &str| code.trim().parse::<u16>().ok().filter(|code| (100..=599).contains(code));
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (code(first)?, code(last)?);
            (first <= last).then_some(first..=last)
        };
        let set: Option<Vec<_>> = text.split(',').map(range).collect();
        set.map(StatusSet).ok_or_else(|| {
            format!(
                "'{text}' is not a valid set of status codes; expected something like \"200-399\" or \
                     \"200,204\""
            )
        })
    }
}

/// List that can be written as a single value or as an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        OneOrMany(Vec::new())
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);

        impl<'de, T: FromStr<Err: fmt::Display>> de::Visitor<'de> for Visitor<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or an array of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
                let value = text.parse().map_err(|error| E::custom(format!("'{text}': {error}")))?;
                Ok(vec![value])
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
                let mut values = Vec::new();
                while let Some(Item(value)) = items.next_element()? {
                    values.push(value);
                }
                Ok(values)
            }
        }

        deserializer.deserialize_any(Visitor(std::marker::PhantomData)).map(OneOrMany)
    }
}

/// Writes a list with one value as this value, without an array, because most operators write it so.
impl<T: Serialize> Serialize for OneOrMany<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let [one] = self.0.as_slice() {
            return one.serialize(serializer);
        }
        let mut items = serializer.serialize_seq(Some(self.0.len()))?;
        for item in &self.0 {
            items.serialize_element(item)?;
        }
        items.end()
    }
}

/// Array element that is parsed by `FromStr`. It is a separate type, so that an error has the position of the element.
struct Item<T>(T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Item<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Item).map_err(|error| de::Error::custom(format!("'{text}': {error}")))
    }
}

/// Name of an HTTP method.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct MethodName(pub Method);

impl Serialize for MethodName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl TryFrom<String> for MethodName {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match Method::from_bytes(text.as_bytes()) {
            // Methods are case-sensitive (RFC 9110 9.1), and no method in use has small letters.
            Ok(_) if text.bytes().any(|byte| byte.is_ascii_lowercase()) => {
                Err(format!("'{text}' is not a valid method (did you mean `{}`?)", text.to_ascii_uppercase()))
            }
            Ok(method) => Ok(MethodName(method)),
            Err(_) => Err(format!("'{text}' is not a valid method; expected something like \"GET\"")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_set_contains_listed_codes_and_refuses_bad_text() {
        let set = StatusSet::try_from("200,204,301-302".to_owned()).unwrap();
        let members: Vec<u16> = (100..600).filter(|status| set.contains(*status)).collect();
        assert_eq!(members, [200, 204, 301, 302]);
        for text in ["", "abc", "99", "600", "300-200", "200-", "200;204"] {
            assert!(StatusSet::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_out_of_bounds_are_refused() {
        assert!(Secs::try_from(0).unwrap_err().contains("expected 1 to 31536000 seconds"));
        assert!(Secs::try_from(-1).is_err());
        assert!(Secs::try_from(i64::MAX).is_err());
        assert_eq!(Secs::try_from(30).unwrap().duration(), Duration::from_secs(30));
        assert!(Millis::try_from(0).is_err());
        assert_eq!(Millis::try_from(30).unwrap().duration(), Duration::from_millis(30));
    }
}
