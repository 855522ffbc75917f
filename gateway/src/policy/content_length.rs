//! One request, one length. Whoever reads `Content-Length: 5, 5`, or two fields that are equal, may take the first
//! number, the last, or none; where two readers differ, one sees a request that the other does not (RFC 9112
//! 11.2). The same holds for `010`: ten, or eight. Over HTTP/1 such a request has been refused before; over HTTP/2 Pingora
//! lets equal ones pass as they came, and zeros in front.

use http::{HeaderMap, header};

use super::Verdict;
use crate::reply::{Problem, Reply};
use crate::util::decimal;
use crate::util::decimal::NotANumber;

/// Returns the length that a Content-Length field says.
///
/// # Errors
/// What is wrong with it, for the client.
pub fn read(value: &[u8]) -> Result<u64, &'static str> {
    decimal::strict(value).map_err(|fault| match fault {
        NotANumber::NotDigits => "the Content-Length field is not one number",
        NotANumber::LeadingZero => {
            "the Content-Length field begins with a zero, which some servers take for octal"
        }
        NotANumber::TooLarge => "the Content-Length field is larger than any body",
    })
}

/// Refuses a request with several lengths, or with one that is no number.
pub fn check(headers: &HeaderMap) -> Verdict {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Verdict::Continue(()) };
    let detail = match (lengths.next(), read(length.as_bytes())) {
        (None, Ok(_)) => return Verdict::Continue(()),
        (Some(_), _) => "there are several Content-Length fields",
        (None, Err(detail)) => detail,
    };
    // Nor is it known what follows a body of which the length is in doubt.
    Verdict::Reply(Reply::new(Problem::BadRequest, detail).and_close())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn one_number_or_none() {
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
