//! Strict parser for numbers in header fields that frame a message or count something: it allows only digits. Rust's
//! parser accepts `+5`, and a backend's parser may read `010` as eight, as in C. A value is refused if two parsers
//! could read different numbers.

/// Reason to refuse a value that parsers could read differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotANumber {
    /// The value is empty, or contains a character other than a digit.
    NotDigits,
    /// The value begins with a redundant zero; some parsers read it as octal.
    LeadingZero,
    /// The value is larger than 2⁶³ − 1, so it is too large for a parser with signed integers.
    TooLarge,
}

/// Parses a number of decimal digits.
///
/// # Errors
/// Returns an error if another parser could read a different number, or none.
pub fn strict(value: &[u8]) -> Result<u64, NotANumber> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(NotANumber::NotDigits);
    }
    if value.len() > 1 && value[0] == b'0' {
        return Err(NotANumber::LeadingZero);
    }
    let number = value
        .iter()
        .try_fold(0_i64, |number, digit| number.checked_mul(10)?.checked_add(i64::from(digit - b'0')));
    number.and_then(|number| u64::try_from(number).ok()).ok_or(NotANumber::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ambiguous_numbers_are_refused() {
        use NotANumber::{LeadingZero, NotDigits, TooLarge};
        for (value, expected) in [
            ("0", Ok(0)),
            ("7", Ok(7)),
            ("10", Ok(10)),
            ("9223372036854775807", Ok(i64::MAX as u64)),
            ("9223372036854775808", Err(TooLarge)),
            ("99999999999999999999999999", Err(TooLarge)),
            ("00", Err(LeadingZero)),
            ("010", Err(LeadingZero)),
            ("0x10", Err(NotDigits)),
            ("", Err(NotDigits)),
            (" 5", Err(NotDigits)),
            ("5 ", Err(NotDigits)),
            ("+5", Err(NotDigits)),
            ("-5", Err(NotDigits)),
            ("5_0", Err(NotDigits)),
            ("5,5", Err(NotDigits)),
            ("5.0", Err(NotDigits)),
            ("٥", Err(NotDigits)),
        ] {
            assert_eq!(strict(value.as_bytes()), expected, "{value:?}");
        }
    }
}
