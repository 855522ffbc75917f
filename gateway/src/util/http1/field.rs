//! Parser for a field line of an HTTP/1 message (RFC 9112 5).

use std::ops::Range;

use super::Fault;
use super::bytes::{is_field_value, is_token};
use crate::util::decimal;
use crate::util::decimal::NotANumber;

/// Splits a field line into its name and the position of its value. A space before the colon is an error.
///
/// # Errors
/// Returns an error if the line is malformed.
pub(crate) fn split(line: &[u8]) -> Result<(&[u8], Range<usize>), Fault> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err("a header field is folded over several lines");
    }
    let Some(colon) = memchr::memchr(b':', line) else {
        return Err("a line of the header has no colon");
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) {
        return Err("the name of a header field is empty or has invalid bytes");
    }
    if !is_field_value(value) {
        return Err("the value of a header field has control characters");
    }
    let end = colon + 1 + value.trim_ascii_end().len();
    let start = end - line[colon + 1..end].trim_ascii_start().len();
    Ok((name, start..end))
}

/// Parses a number in a response's Content-Length (RFC 9110 8.6). Leading zeros are ignored, because the gateway
/// writes the number anew.
///
/// # Errors
/// Returns an error if the value is not a number, or is too large.
pub(crate) fn content_length(value: &[u8]) -> Result<u64, Fault> {
    let zeros = value.iter().take_while(|byte| **byte == b'0').count();
    let number = &value[zeros.min(value.len().saturating_sub(1))..];
    decimal::strict(number).map_err(|why| match why {
        NotANumber::TooLarge => "the value of the Content-Length field is too large",
        _ => "the Content-Length field is not a single number",
    })
}
