//! Allowed origins of pages (CORS). They are stored in the form in which browsers send an origin, so that the two can
//! be compared byte by byte.

use http::uri::Authority;
use serde::{Deserialize, Serialize};

/// Allowed origin of pages, or a set of origins.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum AllowedOrigin {
    /// Every origin: `*`.
    Any,
    /// Single origin, in the form in which browsers send it (RFC 6454 6.2).
    Exact(String),
    /// Every host below a parent. `https://*.example.com` is `Below("https://", ".example.com")`.
    Below(String, String),
}

impl From<AllowedOrigin> for String {
    fn from(origin: AllowedOrigin) -> String {
        match origin {
            AllowedOrigin::Any => "*".to_owned(),
            AllowedOrigin::Exact(origin) => origin,
            AllowedOrigin::Below(scheme, end) => format!("{scheme}*{end}"),
        }
    }
}

impl TryFrom<String> for AllowedOrigin {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text == "*" {
            return Ok(AllowedOrigin::Any);
        }
        if text.eq_ignore_ascii_case("null") {
            return Err(
                "'null' is the origin of every page in a sandbox, of any site; use \"*\", or serve the page \
                 from an origin"
                    .to_owned(),
            );
        }
        let wrong = |hint: &str| {
            format!(
                "'{text}' is not a valid origin{hint}; expected something like \"https://app.example.com\""
            )
        };
        let lower = text.to_ascii_lowercase();
        let Some((scheme, rest)) = lower.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) else {
            let hint =
                if is_host(&lower) { format!(" (did you mean `https://{lower}`?)") } else { String::new() };
            return Err(wrong(&hint));
        };
        if let Some((host, _)) = rest.split_once(['/', '?', '#']).filter(|(host, _)| is_host(host)) {
            return Err(wrong(&format!(" (did you mean `{scheme}://{host}`?)")));
        }
        let host = rest.strip_prefix("*.").unwrap_or(rest);
        if !is_host(host) {
            return Err(wrong(""));
        }
        // Browsers leave out the default port of the scheme, so it is removed here, too.
        let usual = match scheme {
            "https" => ":443",
            "http" => ":80",
            _ => "",
        };
        let host = host.strip_suffix(usual).filter(|_| !usual.is_empty()).unwrap_or(host);
        Ok(if rest.starts_with("*.") {
            AllowedOrigin::Below(format!("{scheme}://"), format!(".{host}"))
        } else {
            AllowedOrigin::Exact(format!("{scheme}://{host}"))
        })
    }
}

fn is_scheme(text: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.bytes().all(rest)
}

/// Returns true if `text` is a host, with or without a port.
fn is_host(text: &str) -> bool {
    let Ok(authority) = text.parse::<Authority>() else { return false };
    let host = authority.host();
    let has_port = authority.port_u16().is_some_and(|port| port != 0);
    !host.is_empty() && !text.contains(['*', '@', '%']) && (host.len() == text.len() || has_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_stored_as_browsers_write_them() {
        for (written, kept) in [
            ("*", "*"),
            ("https://app.example.com", "https://app.example.com"),
            ("HTTPS://App.Example.com:443", "https://app.example.com"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:80", "http://[::1]"),
            ("https://*.example.com", "https://*.example.com"),
            ("https://*.example.com:8443", "https://*.example.com:8443"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            assert_eq!(AllowedOrigin::try_from(written.to_owned()).map(String::from), Ok(kept.to_owned()));
        }
    }

    #[test]
    fn invalid_origin_is_refused_with_a_hint() {
        for (written, hint) in [
            ("https://app.example.com/", "did you mean `https://app.example.com`?"),
            ("https://app.example.com/path?x", "did you mean `https://app.example.com`?"),
            ("app.example.com", "did you mean `https://app.example.com`?"),
            ("null", "every page in a sandbox"),
            ("https://", "is not a valid origin"),
            ("https://*", "is not a valid origin"),
            ("https://app.*.com", "is not a valid origin"),
            ("https://user@example.com", "is not a valid origin"),
            ("https://a b", "is not a valid origin"),
            ("https://exämple.com", "is not a valid origin"),
            ("https://a:port", "is not a valid origin"),
            ("https://a:", "is not a valid origin"),
            ("://a", "is not a valid origin"),
            ("", "is not a valid origin"),
        ] {
            let error = AllowedOrigin::try_from(written.to_owned()).unwrap_err();
            assert!(error.contains(hint), "{written:?}: {error}");
        }
    }
}
