//! Numbers in header fields that frame a message or count something: digits, and nothing else. Rust's own parser takes
//! `+5`, and a reader behind the gateway may take `010` for eight, as in C. What two readers can read in two ways is no
//! number here.

/// Why a value is no number that every reader reads in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotANumber {
    /// There is something else than digits in it, or nothing at all.
    NotDigits,
    /// It begins with a zero that means nothing; some readers take it for octal.
    LeadingZero,
    /// It is larger than 2⁶³ − 1, which a reader with signed integers cannot hold.
    TooLarge,
}

/// Returns the number that `value` is, in decimal digits.
///
/// # Errors
/// Where readers could take it for another number, or for none.
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
    fn a_number_is_read_in_one_way_or_not_at_all() {
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
