//! Normalised host names for routing, so that every spelling of a host matches the same virtual host.

use std::borrow::Cow;
use std::net::Ipv6Addr;
use std::str::FromStr;

use super::values::is_host_name;

/// Error for a `Host` or `:authority` value that is not a valid host (RFC 9110 4.2.3, RFC 3986 3.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid host")]
pub struct InvalidHost;

/// Domain or alias of a virtual host: one normalised host, or a set of hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Domain {
    /// Single host: `example.com`.
    Exact(String),
    /// Every host below a parent: `*.example.com` is `Wildcard("example.com")`.
    Wildcard(String),
    /// Every host that no other virtual host names: `*`.
    CatchAll,
}

impl FromStr for Domain {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Domain::CatchAll);
        }
        let (parent, below) = text.strip_prefix("*.").map_or((text, false), |parent| (parent, true));
        let is_literal = parent.ends_with(']');
        let may_be = if is_literal { !below } else { !parent.contains(':') };
        match normalise_host(parent) {
            Ok(host) if may_be => {
                let host = host.into_owned();
                Ok(if below { Domain::Wildcard(host) } else { Domain::Exact(host) })
            }
            _ => Err(format!(
                "'{text}' is not a valid domain; expected a host name without a port, \
                              \"*.example.com\" or \"*\""
            )),
        }
    }
}

/// Returns the normalised host of `authority`: without port or trailing dot, in lower case. An IPv6 literal is in
/// brackets and as short as possible. The result is borrowed if the client wrote the normalised form.
///
/// # Errors
/// Returns [`InvalidHost`] if `authority` is not a host with or without a port, for example if it contains user
/// information.
pub fn normalise_host(authority: &str) -> Result<Cow<'_, str>, InvalidHost> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (literal, port) = rest.split_once(']').ok_or(InvalidHost)?;
        if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
            return Err(InvalidHost);
        }
        let address: Ipv6Addr = literal.parse().map_err(|_| InvalidHost)?;
        return Ok(Cow::Owned(format!("[{address}]")));
    }
    let host = match authority.split_once(':') {
        Some((host, port)) if is_port(port) => host,
        Some(_) => return Err(InvalidHost),
        None => authority,
    };
    if !is_host_name(host) {
        return Err(InvalidHost);
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Ok(Cow::Owned(host.to_ascii_lowercase()));
    }
    Ok(Cow::Borrowed(host))
}

/// Returns true if `port` is empty (RFC 3986 3.2.3 allows that) or a decimal number up to 65535.
fn is_port(port: &str) -> bool {
    port.is_empty() || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_spellings_have_one_normalised_form() {
        for (written, form) in [
            ("example.com", "example.com"),
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("example.com:8080", "example.com"),
            ("example.com:", "example.com"),
            ("EXAMPLE.com.:80", "example.com"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[0:0:0:0:0:0:0:1]:443", "[::1]"),
            ("[2001:DB8::A]", "[2001:db8::a]"),
            ("my_service", "my_service"),
        ] {
            assert_eq!(normalise_host(written).as_deref(), Ok(form), "{written}");
        }
    }

    #[test]
    fn domains_are_exact_wildcard_or_catch_all() {
        let domain = |text: &str| text.parse::<Domain>();
        assert_eq!(domain("*"), Ok(Domain::CatchAll));
        assert_eq!(domain("*.Example.com."), Ok(Domain::Wildcard("example.com".to_owned())));
        assert_eq!(domain("[0::1]"), Ok(Domain::Exact("[::1]".to_owned())));
        for wrong in ["", "a:80", "*.", "*.*.a", "a.*", "*a", "*.a:80", "*.[::1]", "http://a", "a/b"] {
            assert!(domain(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn invalid_host_is_refused() {
        for written in [
            "",
            ".",
            ":80",
            "a b",
            "a/b",
            "a,b",
            "a:b",
            "a:80:80",
            "a:99999",
            "user@a",
            "a..b",
            "-a",
            "[::1",
            "[::1]x",
            "[::1]:x",
            "[nonsense]",
            "::1",
            "a\u{0}",
            "ä.example",
            "a%20b",
        ] {
            assert_eq!(normalise_host(written), Err(InvalidHost), "{written:?}");
        }
    }
}
