//! Logins that belong to a connection and not to a request: NTLM, and Negotiate as many servers take it (RFC 4559 6).
//! What such a backend is sent next on the connection it takes for the same user's. So a client that logs in like this
//! has connections to backends of its own, as long as its own connection lasts.

use http::header::AUTHORIZATION;
use pingora::http::RequestHeader;

/// Returns true for a request with such a login.
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
    fn a_login_by_connection_is_told_by_its_scheme() {
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
