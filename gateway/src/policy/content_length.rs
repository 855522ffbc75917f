//! Refuses a request whose length is ambiguous. A recipient that reads `Content-Length: 5, 5`, or two equal
//! fields, may take the first number, the last, or none. If two recipients differ, one of them sees a request
//! that the other does not see (request smuggling, RFC 9112 11.2). The same is true of `010`, which some
//! recipients read as ten and others as eight. Over HTTP/1 such a request has already been refused. Over
//! HTTP/2, Pingora lets equal fields and leading zeros pass.

use http::{HeaderMap, header};

use super::Verdict;
use crate::reply::{Problem, Reply};
use crate::util::decimal;
use crate::util::decimal::NotANumber;

/// Returns the length in the value of a Content-Length field.
///
/// # Errors
/// Returns a description of the fault, meant for the client.
pub fn read(value: &[u8]) -> Result<u64, &'static str> {
    decimal::strict(value).map_err(|fault| match fault {
        NotANumber::NotDigits => "the Content-Length field is not a single number",
        NotANumber::LeadingZero => {
            "the Content-Length field begins with a zero, which some servers take for octal"
        }
        NotANumber::TooLarge => "the value of the Content-Length field is too large",
    })
}

/// Refuses a request with several lengths, or with a length that is not a valid number.
pub fn check(headers: &HeaderMap) -> Verdict {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Verdict::Continue(()) };
    let detail = match (lengths.next(), read(length.as_bytes())) {
        (None, Ok(_)) => return Verdict::Continue(()),
        (Some(_), _) => "there are several Content-Length fields",
        (None, Err(detail)) => detail,
    };
    // The connection must close, because the end of the body is unknown.
    Verdict::Reply(Reply::new(Problem::BadRequest, detail).and_close())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn content_length_is_one_valid_number_or_absent() {
        for (lengths, passes) in [
            (&[][..], true),
            (&["0"], true),
            (&["5"], true),
            (&["005"], false),
            (&["00"], false),
            (&["9223372036854775807"], true),
            (&["9223372036854775808"], false),
            (&["5", "5"], false),
            (&["5, 5"], false),
            (&["5,"], false),
            (&["+5"], false),
            (&["-1"], false),
            (&["0x5"], false),
            (&["5 5"], false),
            (&[""], false),
        ] {
            let mut headers = HeaderMap::new();
            for length in lengths {
                headers.append(header::CONTENT_LENGTH, HeaderValue::from_static(length));
            }
            let passed = matches!(check(&headers), Verdict::Continue(()));
            assert_eq!(passed, passes, "{lengths:?}");
        }
    }
}
