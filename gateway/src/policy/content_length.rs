//! One request, one length. Whoever reads `Content-Length: 5, 5`, or two fields that are equal, may take the first
//! number, the last, or none; where two readers differ, one sees a request that the other does not (RFC 9112
//! 11.2). Over HTTP/1 such a request has been refused before; over HTTP/2 Pingora lets equal ones pass as they came.

use http::{HeaderMap, header};

use super::Verdict;
use crate::reply::{Problem, Reply};

/// Refuses a request with several lengths, or with one that is no number.
pub fn check(headers: &HeaderMap) -> Verdict {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Verdict::Continue(()) };
    let detail = if lengths.next().is_some() {
        "there are several Content-Length fields"
    } else if length.is_empty() || !length.as_bytes().iter().all(u8::is_ascii_digit) {
        "the Content-Length field is not one number"
    } else {
        return Verdict::Continue(());
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
            (&["005"], true),
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
