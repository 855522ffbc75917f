//! Field `grpc-timeout`: its parser and its formatter. A value has at most eight digits and a unit, as in `250m`.

use std::time::Duration;

use http::HeaderValue;

/// Largest number of eight digits.
const MOST: u128 = 99_999_999;

/// Returns the timeout in a field value; `None` if the value is malformed.
pub(super) fn parse(value: &HeaderValue) -> Option<Duration> {
    let (digits, unit) = value.as_bytes().split_at_checked(value.len().checked_sub(1)?)?;
    let is_number = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let number: u64 = std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()?;
    Some(match unit {
        b"H" => Duration::from_secs(number * 60 * 60),
        b"M" => Duration::from_secs(number * 60),
        b"S" => Duration::from_secs(number),
        b"m" => Duration::from_millis(number),
        b"u" => Duration::from_micros(number),
        b"n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Formats a timeout, as exactly as eight digits allow.
pub(super) fn format(left: Duration) -> String {
    if left.as_micros() <= MOST {
        format!("{}u", left.as_micros())
    } else if left.as_millis() <= MOST {
        format!("{}m", left.as_millis())
    } else {
        format!("{}S", u128::from(left.as_secs()).min(MOST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_the_protocol() {
        for (text, nanos) in [
            ("1H", Some(3_600_000_000_000)),
            ("2M", Some(120_000_000_000)),
            ("3S", Some(3_000_000_000)),
            ("250m", Some(250_000_000)),
            ("5u", Some(5_000)),
            ("7n", Some(7)),
            ("99999999H", Some(359_999_996_400_000_000_000)),
            ("0m", Some(0)),
            ("100000000m", None),
            ("m", None),
            ("", None),
            ("+1S", None),
            ("1s", None),
            ("1.5S", None),
            ("1 S", None),
        ] {
            let parsed = parse(&HeaderValue::from_static(text)).map(|time| time.as_nanos());
            assert_eq!(parsed, nanos, "{text:?}");
        }
        assert_eq!(parse(&HeaderValue::from_bytes(b"1\xff").unwrap()), None);
    }

    #[test]
    fn formatted_timeout_is_exact_to_eight_digits_and_not_longer() {
        for (time, text) in [
            (Duration::ZERO, "0u"),
            (Duration::from_nanos(1999), "1u"),
            (Duration::from_micros(99_999_999), "99999999u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(100_000), "100000S"),
        ] {
            let written = format(time);
            assert_eq!(written, text);
            assert!(parse(&HeaderValue::from_str(&written).unwrap()).unwrap() <= time);
        }
    }
}
