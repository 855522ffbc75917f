//! One field line of an HTTP/1 message (RFC 9112 5).

use std::ops::Range;

use super::Fault;
use super::bytes::{is_field_value, is_token, trim_ows};

/// Splits a field line into its name, and where its value is: a colon stands right behind the name.
///
/// # Errors
/// What is wrong with the line.
pub(crate) fn split(line: &[u8]) -> Result<(&[u8], Range<usize>), Fault> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err("a header field is folded over several lines");
    }
    let Some(colon) = memchr::memchr(b':', line) else {
        return Err("a line of the header has no colon");
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) {
        return Err("the name of a header field is empty, or has bytes that no name has");
    }
    if !is_field_value(value) {
        return Err("the value of a header field has control characters");
    }
    let end = colon + 1 + value.trim_ascii_end().len();
    let start = end - trim_ows(&line[colon + 1..end]).len();
    Ok((name, start..end))
}

/// Reads one number of a Content-Length (RFC 9110 8.6), which every reader can hold.
///
/// # Errors
/// What is wrong with the number.
pub(crate) fn content_length(value: &[u8]) -> Result<u64, Fault> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err("the Content-Length field is not one number");
    }
    let number = value
        .iter()
        .try_fold(0_i64, |number, digit| number.checked_mul(10)?.checked_add(i64::from(digit - b'0')));
    let number = number.and_then(|number| u64::try_from(number).ok());
    number.ok_or("the Content-Length field is larger than any body")
}
