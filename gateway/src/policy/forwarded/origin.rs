//! Finds the client by the header fields of trusted proxies in front of the gateway. Each proxy appends the
//! address of its client to a list. The gateway therefore reads the list from its end, up to the first
//! untrusted address. Text before this address, which any client may have written, has no effect, even if it is
//! malformed.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, header};

use super::{X_FORWARDED_FOR, X_FORWARDED_PROTO};
use crate::config::{Cidr, TrustedField};
use crate::util::field_list::members_of;

/// Maximum number of proxies in a row. A longer list is a loop, or an attempt to cost the gateway time.
const MAX_HOPS: usize = 32;

/// Client whose request the gateway got, directly or from a trusted proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Address of the client; `None` on a Unix socket.
    pub address: Option<IpAddr>,
    /// True if the client used HTTPS, false if not; `None` if no trusted proxy says.
    pub is_https: Option<bool>,
}

/// Returns the client of a request that `peer` sent. If `peer` is not in `trusted`, it is the client itself. If
/// `peer` is trusted, the list in `field` (and in no other field) is read from its end, and the first untrusted
/// address is the client.
pub fn origin(peer: Option<IpAddr>, headers: &HeaderMap, trusted: &[Cidr], field: TrustedField) -> Origin {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let Some(mut client) = peer.filter(|peer| is_trusted(*peer)) else {
        return Origin { address: peer, is_https: None };
    };
    let mut is_https = match field {
        TrustedField::XForwardedFor => last_proto(headers),
        TrustedField::Forwarded => None,
    };
    let lines = match field {
        TrustedField::XForwardedFor => headers.get_all(X_FORWARDED_FOR),
        TrustedField::Forwarded => headers.get_all(header::FORWARDED),
    };
    let entries = lines.iter().rev().flat_map(|line| backwards(line.as_bytes(), b',')).take(MAX_HOPS);
    for entry in entries.filter(|entry| !entry.is_empty()) {
        let hop = match field {
            TrustedField::XForwardedFor => text(entry).and_then(address).map(|address| (address, is_https)),
            TrustedField::Forwarded => element(entry),
        };
        // An entry that is not an address was not written by a trusted proxy, or hides the client on purpose
        // (RFC 7239 6.3). The last address that was read then counts as the client.
        let Some(hop) = hop else { break };
        (client, is_https) = hop;
        if !is_trusted(client) {
            break;
        }
    }
    Origin { address: Some(client), is_https }
}

/// Returns true if the nearest proxy says that its client used HTTPS; `None` if it does not say.
fn last_proto(headers: &HeaderMap) -> Option<bool> {
    let mut lines = headers.get_all(X_FORWARDED_PROTO).iter().rev();
    let last = lines.find_map(|line| members_of(line.as_bytes()).next_back())?;
    is_https(text(last)?)
}

/// Returns true if the scheme implies TLS, and `None` for a scheme that tells nothing about TLS. Some proxies
/// (Traefik) name the scheme of a WebSocket, which is HTTP until the upgrade (RFC 6455 3).
fn is_https(scheme: &str) -> Option<bool> {
    let is_one_of = |names: [&str; 2]| names.iter().any(|name| scheme.eq_ignore_ascii_case(name));
    if is_one_of(["https", "wss"]) {
        Some(true)
    } else if is_one_of(["http", "ws"]) {
        Some(false)
    } else {
        None
    }
}

/// Returns the parts of a list from its end, without surrounding white space. A separator inside quotes does
/// not end a part. Quotes are also matched from the end, so that a single quote at the beginning, which any
/// client may have written, has no effect on later parts.
fn backwards(list: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(list);
    std::iter::from_fn(move || {
        let list = rest?;
        let mut quoted = false;
        let mut ends = list.iter().enumerate().rev().filter(|(at, byte)| {
            let is_escaped = || list[..*at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1;
            if **byte == b'"' && !(quoted && is_escaped()) {
                quoted = !quoted;
            }
            **byte == separator && !quoted
        });
        let part = match ends.next() {
            Some((at, _)) => {
                rest = Some(&list[..at]);
                &list[at + 1..]
            }
            None => {
                rest = None;
                list
            }
        };
        Some(part.trim_ascii())
    })
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Parses an element of `Forwarded` (RFC 7239 4): the address of the client, and true if the client used HTTPS.
/// Returns `None` if the element has no valid address.
fn element(element: &[u8]) -> Option<(IpAddr, Option<bool>)> {
    let (mut node, mut proto) = (None, None);
    for pair in backwards(element, b';').filter(|pair| !pair.is_empty()) {
        let (name, value) = text(pair)?.split_once('=')?;
        let value = match value.strip_prefix('"') {
            // Neither an address nor a scheme contains a character that must be escaped.
            Some(value) => value.strip_suffix('"')?,
            None => value,
        };
        if name.eq_ignore_ascii_case("for") {
            // With two `for` parameters, the gateway cannot know which address is right.
            if node.replace(self::node(value)?).is_some() {
                return None;
            }
        } else if name.eq_ignore_ascii_case("proto") {
            proto = is_https(value);
        }
    }
    Some((node?, proto))
}

/// Parses a node (RFC 7239 6), in which an IPv6 address has brackets. Returns `None` for `unknown`, and for a
/// name in place of an address.
fn node(text: &str) -> Option<IpAddr> {
    let is_v6 = text.matches(':').count() > 1;
    (text.starts_with('[') == is_v6).then(|| address(text)).flatten()
}

/// Parses an address as proxies write it: alone, in brackets, or with a port. An IPv4 address in IPv6 form
/// becomes IPv4.
fn address(text: &str) -> Option<IpAddr> {
    let in_brackets = |text: &str| text.strip_prefix('[')?.strip_suffix(']').and_then(v6);
    let found = match text.parse::<IpAddr>().ok().or_else(|| v6(text)).or_else(|| in_brackets(text)) {
        Some(address) => address,
        None => with_port(text)?,
    };
    Some(found.to_canonical())
}

/// Parses an IPv6 address without its zone, which has a meaning only on the host that wrote it (RFC 4007 11).
fn v6(text: &str) -> Option<IpAddr> {
    let (address, zone) = text.split_once('%').unwrap_or((text, "0"));
    let is_zone =
        !zone.is_empty() && zone.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    address.parse::<Ipv6Addr>().ok().filter(|_| is_zone).map(IpAddr::V6)
}

fn with_port(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    let (address, port) = text.strip_prefix('[')?.rsplit_once("]:")?;
    port.parse::<u16>().ok().and_then(|_| v6(address))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn trusted() -> Vec<Cidr> {
        ["10.0.0.0/8", "::1"].map(|network| network.parse().unwrap()).into()
    }

    fn headers(name: &'static str, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn only_trusted_peers_speak_for_other_clients() {
        for (peer, lists, client) in [
            ("192.0.2.1", &["6.6.6.6"][..], "192.0.2.1"),
            ("10.0.0.1", &["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", &["6.6.6.6", "192.0.2.1, 10.0.0.2"], "192.0.2.1"),
            ("10.0.0.1", &["6.6.6.6, nonsense, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["6.6.6.6, é, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["6.6.6.6, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["10.0.0.3"], "10.0.0.3"),
            ("10.0.0.1", &["192.0.2.1 ,, ,10.0.0.2,", "", ","], "192.0.2.1"),
            ("10.0.0.1", &["\"6.6.6.6, 192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", &["192.0.2.1:5555"], "192.0.2.1"),
            ("10.0.0.1", &["192.0.2.1:99999"], "10.0.0.1"),
            ("10.0.0.1", &["192.0.2.01"], "10.0.0.1"),
            ("10.0.0.1", &["[[192.0.2.1"], "10.0.0.1"),
            ("10.0.0.1", &["[2001:db8::1]:5555"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["fe80::1%eth0"], "fe80::1"),
            ("10.0.0.1", &["[fe80::1%eth0]:80"], "fe80::1"),
            ("10.0.0.1", &["fe80::1%"], "10.0.0.1"),
            ("::1", &["::ffff:192.0.2.1"], "192.0.2.1"),
            ("::1", &["6.6.6.6, ::ffff:10.0.0.9"], "6.6.6.6"),
            ("10.0.0.1", &[], "10.0.0.1"),
        ] {
            let headers = headers(X_FORWARDED_FOR, lists);
            let found = origin(peer.parse().ok(), &headers, &trusted(), TrustedField::XForwardedFor);
            assert_eq!(found.address, client.parse().ok(), "{peer} {lists:?}");
            let of_forwarded = origin(peer.parse().ok(), &headers, &trusted(), TrustedField::Forwarded);
            assert_eq!(of_forwarded.address, peer.parse().ok(), "only one field is believed");
        }
    }

    #[test]
    fn forwarded_field_is_parsed_as_in_rfc_7239() {
        for (lines, client, https) in [
            (&["for=192.0.2.1"][..], "192.0.2.1", None),
            (&["For=\"[2001:db8:cafe::17]:4711\";Proto=HTTPS"], "2001:db8:cafe::17", Some(true)),
            (&["for=6.6.6.6, for=192.0.2.1;proto=http;by=203.0.113.43"], "192.0.2.1", Some(false)),
            (&["for=192.0.2.1;proto=wss"], "192.0.2.1", Some(true)),
            (&["for=192.0.2.1;proto=\"WS\""], "192.0.2.1", Some(false)),
            (&["for=6.6.6.6;proto=https", "for=192.0.2.1:80 ; host=a"], "192.0.2.1", None),
            (&["for=192.0.2.1;proto=https, for=10.0.0.9;proto=http"], "192.0.2.1", Some(true)),
            (&["for=192.0.2.1;proto=https", "for=10.0.0.9;proto=http"], "192.0.2.1", Some(true)),
            (&["for=6.6.6.6, for=_hidden, for=10.0.0.9;proto=http"], "10.0.0.9", Some(false)),
            (&["for=6.6.6.6, for=unknown"], "10.0.0.1", None),
            (&["for=6.6.6.6, proto=https"], "10.0.0.1", None),
            (&["for=6.6.6.6;for=7.7.7.7"], "10.0.0.1", None),
            (&["for=2001:db8::1"], "10.0.0.1", None),
            (&["for=[192.0.2.1]"], "10.0.0.1", None),
            (&["for=\"6.6.6.6"], "10.0.0.1", None),
            (&["for=\"6.6.6.6, for=192.0.2.1"], "192.0.2.1", None),
            (&["for=\"_\\\", for=6.6.6.6, for=192.0.2.1"], "192.0.2.1", None),
            (&["host=\"a\\\", for=6.6.6.6\";for=192.0.2.1"], "192.0.2.1", None),
            (&["for=192.0.2.1;host=\"a, for=6.6.6.6\""], "192.0.2.1", None),
            (&["for=192.0.2.1;host=\"a;for=6.6.6.6\""], "192.0.2.1", None),
            (&["192.0.2.1"], "10.0.0.1", None),
            (&[], "10.0.0.1", None),
        ] {
            let headers = headers("forwarded", lines);
            let found = origin("10.0.0.1".parse().ok(), &headers, &trusted(), TrustedField::Forwarded);
            let expected = Origin { address: client.parse().ok(), is_https: https };
            assert_eq!(found, expected, "{lines:?}");
            let other = origin("10.0.0.1".parse().ok(), &headers, &trusted(), TrustedField::XForwardedFor);
            assert_eq!(other.address, "10.0.0.1".parse().ok(), "only one field is believed");
        }
    }

    #[test]
    fn scheme_is_the_one_of_the_nearest_proxy() {
        let proto = |peer: &str, lines: &[&str]| {
            let headers = headers(X_FORWARDED_PROTO, lines);
            origin(peer.parse().ok(), &headers, &trusted(), TrustedField::XForwardedFor).is_https
        };
        assert_eq!(proto("192.0.2.1", &["https"]), None);
        assert_eq!(proto("10.0.0.1", &["https"]), Some(true));
        assert_eq!(proto("10.0.0.1", &["https, http"]), Some(false));
        assert_eq!(proto("10.0.0.1", &["http", "https"]), Some(true));
        assert_eq!(proto("10.0.0.1", &["gopher"]), None);
        for (lines, https) in [
            (&["wss"][..], Some(true)),
            (&["WSS"], Some(true)),
            (&["ws"], Some(false)),
            (&["http, wss"], Some(true)),
            (&["wss, ws"], Some(false)),
            (&["https,"], Some(true)),
            (&["https", "", " , "], Some(true)),
            (&["https, gopher"], None),
            (&["\"https\""], None),
            (&[","], None),
            (&["wsss"], None),
        ] {
            assert_eq!(proto("10.0.0.1", lines), https, "{lines:?}");
            assert_eq!(proto("192.0.2.1", lines), None, "{lines:?}: nobody is asked who is not trusted");
        }
    }

    #[test]
    fn list_is_read_up_to_max_hops() {
        let long = ["6.6.6.6", &", 10.0.0.2".repeat(5000)].concat();
        let headers = headers(X_FORWARDED_FOR, &[&long]);
        let found = origin("10.0.0.1".parse().ok(), &headers, &trusted(), TrustedField::XForwardedFor);
        assert_eq!(found.address, "10.0.0.2".parse().ok());
    }

    #[test]
    fn forged_prefix_never_changes_the_client() {
        // The trusted proxy appends the client's address to any text that the client sends.
        let mut random = fastrand::Rng::with_seed(3);
        const PARTS: [&str; 18] = [
            "for=",
            "6.6.6.6",
            "10.0.0.2",
            "\"",
            "\\",
            ",",
            ";",
            "=",
            "proto=https",
            "[",
            "]",
            ":",
            "::1",
            "%",
            " ",
            "_x",
            "unknown",
            "é",
        ];
        for _ in 0..20_000 {
            let forged: String = (0..random.usize(0..12)).filter_map(|_| random.choice(PARTS)).collect();
            for (field, name, added) in [
                (TrustedField::XForwardedFor, X_FORWARDED_FOR, ", 192.0.2.1"),
                (TrustedField::Forwarded, "forwarded", ", for=192.0.2.1;proto=http"),
            ] {
                for lines in [vec![format!("{forged}{added}")], vec![forged.clone(), added[2..].to_owned()]] {
                    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                    let found = origin("10.0.0.1".parse().ok(), &headers(name, &lines), &trusted(), field);
                    assert_eq!(found.address, "192.0.2.1".parse().ok(), "{lines:?}");
                }
            }
        }
    }
}
