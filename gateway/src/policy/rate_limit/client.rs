//! Identifies the client that a rate limit counts: by the client's address, by a header field, by a cookie, or
//! by a claim of the client's token.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

use http::HeaderMap;

use crate::config::{RateLimitKey, client_network};
use crate::policy::cookies;

/// Facts about a request that can identify its client.
#[derive(Clone, Copy)]
pub struct RateLimitSubject<'r> {
    /// Address of the client; `None` on a Unix socket.
    pub address: Option<IpAddr>,
    /// Header fields of the request.
    pub headers: &'r HeaderMap,
    /// Function that returns a claim of the client's token.
    pub claim: &'r dyn Fn(&str) -> Option<Cow<'r, str>>,
}

/// Key of a client in the counters. An address and a name are different keys, even if their text is the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ClientKey<'r> {
    Address(IpAddr),
    Named(Cow<'r, [u8]>),
}

impl<'r> ClientKey<'r> {
    /// Returns the key of the client. If the request lacks the part that `key` names, or the part is empty, the
    /// address identifies the client.
    pub(super) fn of(key: &RateLimitKey, subject: &RateLimitSubject<'r>) -> Self {
        let name = match key {
            RateLimitKey::ClientIp => None,
            RateLimitKey::Header(name) => {
                subject.headers.get(&name.0).map(|value| Cow::Borrowed(value.as_bytes()))
            }
            RateLimitKey::Cookie(name) => {
                cookies(subject.headers, name).next().map(|value| Cow::Borrowed(value.as_bytes()))
            }
            RateLimitKey::Claim(name) => (subject.claim)(name).map(as_bytes),
        };
        match name.filter(|name| !name.is_empty()) {
            Some(name) => ClientKey::Named(name),
            // Clients on a Unix socket have no address and count as one client.
            None => {
                ClientKey::Address(subject.address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), client_network))
            }
        }
    }

    /// Returns the key as bytes, which differ for different clients.
    pub(super) fn bytes(&self) -> (u8, [u8; 16], &[u8]) {
        match self {
            ClientKey::Address(IpAddr::V4(address)) => (4, address.to_ipv6_mapped().octets(), &[]),
            ClientKey::Address(IpAddr::V6(address)) => (6, address.octets(), &[]),
            ClientKey::Named(name) => (0, [0; 16], name),
        }
    }
}

fn as_bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_its_part_of_the_request_or_the_address() {
        let mut headers = HeaderMap::new();
        headers.insert("x-key", "192.0.2.1".parse().unwrap());
        headers.insert("x-empty", "".parse().unwrap());
        headers.insert("cookie", "x=1; session=s1".parse().unwrap());
        let claim = |name: &str| (name == "sub").then_some(Cow::Borrowed("ann"));
        let subject =
            RateLimitSubject { address: Some([192, 0, 2, 1].into()), headers: &headers, claim: &claim };
        let client = |key: &str| ClientKey::of(&RateLimitKey::try_from(key.to_owned()).unwrap(), &subject);
        let address = client("client_ip");
        assert_eq!(client("header:X-Key"), ClientKey::Named(Cow::Borrowed(b"192.0.2.1")));
        assert_ne!(client("header:X-Key"), address, "nobody is counted as another by writing its address");
        assert_ne!(client("header:X-Key").bytes(), address.bytes());
        assert_eq!(client("cookie:session"), ClientKey::Named(Cow::Borrowed(b"s1")));
        assert_eq!(client("jwt:sub"), ClientKey::Named(Cow::Borrowed(b"ann")));
        for key in ["header:X-Other", "header:X-Empty", "cookie:sess", "jwt:tenant"] {
            assert_eq!(client(key), address, "{key}");
        }
    }

    #[test]
    fn ipv6_counts_by_64_bits() {
        let of = |address: &str| client_network(address.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
