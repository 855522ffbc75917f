//! Recognises logins that apply to a connection instead of a request: NTLM, and Negotiate on many servers (RFC
//! 4559 6). After such a login, the backend attributes every later request on the connection to the same user.
//! The client therefore gets connections to backends that no other client uses, until the client's own
//! connection ends.

use http::header::AUTHORIZATION;
use pingora::http::RequestHeader;

/// Returns true if the request is a login that applies to its whole connection.
pub fn is_in(request: &RequestHeader) -> bool {
    request.headers.get_all(AUTHORIZATION).iter().any(|value| {
        let scheme = value.as_bytes().split(|byte| *byte == b' ').next().unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_login_is_recognised_by_its_scheme() {
        for (value, is_login) in [
            ("NTLM TlRMTVNTUAAB", true),
            ("negotiate YII", true),
            ("Negotiate", true),
            ("Basic YTpi", false),
            ("Bearer negotiate", false),
            ("NTLMv2 x", false),
        ] {
            let mut request = RequestHeader::build("GET", b"/", None).unwrap();
            request.insert_header(AUTHORIZATION, value).unwrap();
            assert_eq!(is_in(&request), is_login, "{value}");
        }
    }
}
