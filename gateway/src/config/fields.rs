//! Names and values of header fields in a configuration.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use http::{HeaderName, HeaderValue, header};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Name of a header field that a rule may change.
///
/// Fields that frame a message or control the connection cannot be changed (RFC 9110 7.6.1), because a change could
/// make request smuggling possible.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct FieldName(pub HeaderName);

impl Serialize for FieldName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl TryFrom<String> for FieldName {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let Ok(name) = HeaderName::from_str(&text) else {
            return Err(format!("'{text}' is not a valid name of a header field"));
        };
        const OFF_LIMITS: [HeaderName; 7] = [
            header::CONNECTION,
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::UPGRADE,
            header::TE,
            header::TRAILER,
            HeaderName::from_static("keep-alive"),
        ];
        if OFF_LIMITS.contains(&name) {
            return Err(format!("'{text}' belongs to the connection; rules cannot change it"));
        }
        Ok(FieldName(name))
    }
}

/// Returns true if `name` is a valid name of a cookie: a token (RFC 6265 4.1.1), as for header fields.
pub(super) fn is_cookie_name(name: &str) -> bool {
    HeaderName::from_str(name).is_ok()
}

/// Value of a header field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldValue(pub HeaderValue);

impl Serialize for FieldValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(self.0.as_bytes()))
    }
}

impl<'de> Deserialize<'de> for FieldValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        HeaderValue::from_str(&text)
            .map(FieldValue)
            .map_err(|_| de::Error::custom(format!("{text:?} cannot be the value of a header field")))
    }
}

/// Header fields with their values, in the order of the text. A name is allowed only once, regardless of case, because
/// with two values it would be unclear which one applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(FieldName, FieldValue)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Vec<(FieldName, FieldValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of header fields")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields: Self::Value = Vec::new();
                while let Some((name, value)) = map.next_entry::<FieldName, FieldValue>()? {
                    if fields.iter().any(|(known, _)| *known == name) {
                        return Err(de::Error::custom(format!("'{}' is defined twice", name.0)));
                    }
                    fields.push((name, value));
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Visitor).map(Fields)
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            fields.serialize_entry(name, value)?;
        }
        fields.end()
    }
}

/// Returns `name` in a form that is the same for all field names that a backend may confuse. A CGI program gets every
/// character except letters and digits as an underscore (RFC 3875 4.1.18). In the returned form, each such character
/// is a hyphen.
pub fn normalized_name(name: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if name.bytes().all(is_plain) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.replace(|c: char| !c.is_ascii_alphanumeric(), "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_framing_fields_are_refused() {
        assert!(FieldName::try_from("X-Any".to_owned()).is_ok());
        for name in ["Content-Length", "transfer-encoding", "Connection", "a b", ""] {
            assert!(FieldName::try_from(name.to_owned()).is_err(), "{name}");
        }
    }
}
