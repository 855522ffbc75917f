//! Check of request heads over HTTP/2 (RFC 9113 8.2 and 8.3) for faults that h2 handles wrongly. h2 ends the connection
//! if it cannot parse a field, accepts `"` in a field name, and drops pseudo-header fields in trailers. But a malformed
//! request must end only its own stream (RFC 9113 8.1.1).

use super::hpack::Fields;
use crate::util::http1::bytes::{is_field_value, is_token};

/// Fields of a request that name its host.
#[derive(Debug, Default)]
pub(super) struct Named<'f> {
    scheme: &'f [u8],
    authority: Option<&'f [u8]>,
    host: Option<&'f [u8]>,
    hosts: usize,
}

impl Named<'_> {
    /// Returns true if the only `Host` field names the same host as `:authority`, so that it can be dropped. Pingora
    /// compares the two byte by byte, but RFC 9113 8.3.1 compares their meaning.
    pub(super) fn has_spare_host(&self) -> bool {
        let (Some(authority), Some(host)) = (self.authority, self.host) else { return false };
        self.hosts == 1 && is_same_authority(self.scheme, authority, host)
    }
}

/// Returns true if both authorities name the same host and port under `scheme` (RFC 3986 6.2).
fn is_same_authority(scheme: &[u8], one: &[u8], other: &[u8]) -> bool {
    let default: &[u8] = match scheme {
        b"http" => b"80",
        b"https" => b"443",
        _ => return one == other,
    };
    let parts = |authority| {
        let (host, port) = split_port(authority);
        (host, if port.is_empty() { default } else { port })
    };
    let ((host, port), (other_host, other_port)) = (parts(one), parts(other));
    port == other_port && host.eq_ignore_ascii_case(other_host)
}

/// Splits an authority into host and port. The port is empty if the authority has none.
fn split_port(authority: &[u8]) -> (&[u8], &[u8]) {
    let colon = authority.iter().rposition(|byte| !byte.is_ascii_digit());
    match colon.filter(|colon| authority[*colon] == b':') {
        Some(colon) => (&authority[..colon], &authority[colon + 1..]),
        None => (authority, b""),
    }
}

/// Checks the head of a request.
///
/// # Errors
/// Returns the reason if the head is malformed.
pub(super) fn check(fields: &Fields) -> Result<Named<'_>, &'static str> {
    let mut named = Named::default();
    for (name, value, _) in fields.iter() {
        match name {
            [b':', ..] => {
                let is_valid = match name {
                    b":method" => is_token(value),
                    b":scheme" | b":path" | b":protocol" => is_text(value),
                    b":authority" => is_text(value),
                    _ => return Err("an unknown pseudo-field"),
                };
                if !is_valid {
                    return Err("a pseudo-field with an invalid value");
                }
                match name {
                    b":scheme" => named.scheme = value,
                    b":authority" => named.authority = Some(value),
                    _ => {}
                }
            }
            _ => {
                check_field(name, value)?;
                if name == b"host" {
                    named.host = Some(value);
                    named.hosts += 1;
                }
            }
        }
    }
    Ok(named)
}

/// Checks the trailers of a request, which must not contain pseudo-header fields (RFC 9113 8.1).
///
/// # Errors
/// Returns the reason if the trailers are malformed.
pub(super) fn check_trailers(fields: &Fields) -> Result<(), &'static str> {
    fields.iter().try_for_each(|(name, value, _)| match name {
        [b':', ..] => Err("a pseudo-field in trailers"),
        _ => check_field(name, value),
    })
}

fn check_field(name: &[u8], value: &[u8]) -> Result<(), &'static str> {
    if !is_token(name) || name.iter().any(u8::is_ascii_uppercase) {
        return Err("an invalid field name");
    }
    if is_field_value(value) { Ok(()) } else { Err("an invalid field value") }
}

/// Returns true if h2 can use `value` in a pseudo-header field. Later code checks the meaning of `value`.
fn is_text(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::downstream::http2::hpack::Decoder;
    use crate::downstream::http2::hpack::tests::block;

    const HEAD: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];

    fn fields(more: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        Decoder::default().decode(&block(more), &mut fields).unwrap();
        fields
    }

    #[test]
    fn fields_that_h2_handles_wrongly_are_malformed() {
        for more in [
            &[][..],
            &[("x-a", "b"), ("x-b", ""), ("!#$%&'*+-.^_`|~", "\u{e4} \t")],
            // h2 and the policies check these.
            &[("connection", "close"), ("te", "gzip"), (":path", "/twice"), ("x", " a ")],
        ] {
            assert!(check(&fields(&[&HEAD[..], more].concat())).is_ok(), "{more:?}");
        }
        for field in [
            ("X-A", "b"),
            ("x a", "b"),
            ("x:a", "b"),
            ("x\"y", "b"),
            ("", "b"),
            ("x\u{e4}", "b"),
            ("x", "a\nb"),
            ("x", "a\0b"),
            ("x", "a\x7fb"),
            (":foo", "b"),
            (":status", "200"),
            (":", "b"),
            (":method", "GE T"),
            (":method", ""),
        ] {
            assert!(check(&fields(&[&HEAD[..], &[field]].concat())).is_err(), "{field:?}");
            assert!(check_trailers(&fields(&[field])).is_err(), "{field:?}");
        }
        assert!(check_trailers(&fields(&[("x-sum", "1")])).is_ok());
        assert!(check_trailers(&fields(&[("x-sum", "1"), (":path", "/")])).is_err());
    }

    #[test]
    fn host_that_equals_authority_is_spare() {
        for (scheme, authority, hosts, is_spare) in [
            ("http", "a.test", &["a.test"][..], true),
            ("http", "a.test:80", &["a.test"], true),
            ("http", "a.test", &["A.Test:80"], true),
            ("http", "a.test:", &["a.test"], true),
            ("https", "a.test", &["a.test:443"], true),
            ("https", "[::1]:443", &["[::1]"], true),
            ("https", "[::1]", &["[::1]:444"], false),
            ("http", "a.test", &["a.test:443"], false),
            ("https", "a.test:80", &["a.test"], false),
            ("http", "a.test", &["b.test"], false),
            ("http", "a.test", &["a.test."], false),
            ("http", "a.test", &["u@a.test"], false),
            ("http", "a.test", &["a.test", "a.test"], false),
            ("http", "a.test", &[], false),
            ("ftp", "a.test", &["A.test"], false),
        ] {
            let mut all = vec![(":scheme", scheme), (":authority", authority)];
            all.extend(hosts.iter().map(|host| ("host", *host)));
            assert_eq!(check(&fields(&all)).unwrap().has_spare_host(), is_spare, "{authority} {hosts:?}");
        }
        assert!(!check(&fields(&[("host", "a")])).unwrap().has_spare_host());
    }
}
