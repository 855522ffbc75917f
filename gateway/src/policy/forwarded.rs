//! Who the client is: what a proxy in front of the gateway says, where it is trusted; and what the backend is told
//! by `X-Forwarded-*`, `X-Real-IP` and `Via`. Whatever a client claims in such a field is taken out first, since
//! a backend believes what it finds there.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use pingora::Result;
use pingora::http::RequestHeader;

use crate::config::Cidr;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// For whom a peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The client's address.
    pub address: Option<IpAddr>,
    /// Whether the client came by HTTPS; `None` where nobody who is trusted says anything.
    pub is_https: Option<bool>,
}

/// For whom `peer` speaks: for itself, unless it is one of `trusted`. Then the list in `X-Forwarded-For` is walked
/// from its end, as far as those are trusted who have written it: the first who is not is the client.
pub fn origin(peer: Option<IpAddr>, headers: &HeaderMap, trusted: &[Cidr]) -> Origin {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let Some(mut client) = peer.filter(|peer| is_trusted(*peer)) else {
        return Origin { address: peer, is_https: None };
    };
    let listed =
        |name: HeaderName| headers.get_all(name).iter().rev().map(|line| line.to_str().unwrap_or_default());
    for entry in listed(X_FORWARDED_FOR).flat_map(|line| line.rsplit(',')) {
        // What is no address was written by nobody who is trusted.
        let Some(address) = address(entry.trim()) else { break };
        client = address;
        if !is_trusted(client) {
            break;
        }
    }
    let scheme = listed(X_FORWARDED_PROTO).flat_map(|line| line.rsplit(',')).next().map(str::trim);
    let is_https = match scheme {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => Some(true),
        Some(scheme) if scheme.eq_ignore_ascii_case("http") => Some(false),
        _ => None,
    };
    Origin { address: Some(client), is_https }
}

/// An address as proxies write it: alone, or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let alone = || text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    alone().or_else(with_port).map(|address| address.to_canonical())
}

/// What the gateway knows about a request of a client.
pub struct Client<'a> {
    /// The client's address; `None` where it came over a Unix socket.
    pub address: Option<IpAddr>,
    /// Whether it came by HTTPS.
    pub is_https: bool,
    /// The host that the client asked for, as it wrote it.
    pub host: Option<&'a str>,
}

/// Replaces what the client said about itself by what is known.
///
/// # Errors
/// Never in practice: all of these values are valid.
pub fn apply(request: &mut RequestHeader, client: &Client<'_>) -> Result<()> {
    remove_claims(request);
    if let Some(address) = client.address {
        let mut text = String::with_capacity(45);
        let _ = write!(text, "{address}");
        let address = HeaderValue::from_str(&text).or_else(|_| HeaderValue::from_str("unknown"));
        if let Ok(address) = address {
            request.insert_header(X_REAL_IP, address.clone())?;
            request.insert_header(X_FORWARDED_FOR, address)?;
        }
    }
    request.insert_header(
        X_FORWARDED_PROTO,
        HeaderValue::from_static(if client.is_https { "https" } else { "http" }),
    )?;
    if let Some(host) = client.host {
        request.insert_header(X_FORWARDED_HOST, host)?;
    }
    Ok(())
}

/// Every field by which a client could pass for another one.
fn remove_claims(request: &mut RequestHeader) {
    let is_claim = |name: &&HeaderName| match name.as_str() {
        // Many an application cannot tell "_" from "-" in names (CGI, RFC 3875 4.1.18).
        name if name.contains('_') => is_claim(&name.replace('_', "-")),
        name => is_claim(name),
    };
    // Mostly there is none, and nothing is collected.
    let claims: Vec<HeaderName> = request.headers.keys().filter(is_claim).cloned().collect();
    for claim in &claims {
        request.remove_header(claim);
    }
}

fn is_claim(name: &str) -> bool {
    name.starts_with("x-forwarded")
        || name.starts_with("x-client-cert")
        || matches!(name, "forwarded" | "x-real-ip" | "client-cert" | "client-cert-chain")
}

/// The `Via` of a message that was received over `version` (RFC 9110 7.6.3). A proxy adds its own to those
/// that are there.
pub fn via(version: Version) -> (HeaderName, HeaderValue) {
    let via = match version {
        Version::HTTP_2 => "2 gateway",
        Version::HTTP_10 => "1.0 gateway",
        _ => "1.1 gateway",
    };
    (header::VIA, HeaderValue::from_static(via))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(fields: &[(&'static str, &str)], client: &Client<'_>) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        apply(&mut request, client).unwrap();
        request
    }

    #[test]
    fn claims_are_replaced_by_what_is_known() {
        let forged = [
            ("X-Forwarded-For", "6.6.6.6"),
            ("X-Forwarded-For", "7.7.7.7"),
            ("x-forwarded-proto", "https"),
            ("X-Forwarded-Host", "evil.example"),
            ("X-Forwarded-Port", "443"),
            ("X-Forwarded-Prefix", "/admin"),
            ("Forwarded", "for=6.6.6.6"),
            ("X-Real-IP", "6.6.6.6"),
            ("X-Client-Cert-Subject", "CN=admin"),
            ("Client-Cert", ":AA==:"),
            ("X_Client_Cert-Subject", "CN=admin"),
            ("x_forwarded_for", "6.6.6.6"),
            ("X-Other", "stays"),
        ];
        let client = Client { address: "192.0.2.1".parse().ok(), is_https: false, host: Some("a.example") };
        let request = applied(&forged, &client);
        let mut fields: Vec<(&str, &str)> =
            request.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        fields.sort_unstable();
        let expected = [
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-host", "a.example"),
            ("x-forwarded-proto", "http"),
            ("x-other", "stays"),
            ("x-real-ip", "192.0.2.1"),
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn only_those_who_are_trusted_speak_for_others() {
        let trusted: Vec<Cidr> = ["10.0.0.0/8", "::1"].map(|network| network.parse().unwrap()).into();
        for (peer, lists, client) in [
            ("192.0.2.1", &["6.6.6.6"][..], "192.0.2.1"),
            ("10.0.0.1", &["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", &["6.6.6.6", "192.0.2.1, 10.0.0.2"], "192.0.2.1"),
            ("10.0.0.1", &["6.6.6.6, nonsense, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["10.0.0.3"], "10.0.0.3"),
            ("10.0.0.1", &["192.0.2.1:5555"], "192.0.2.1"),
            ("10.0.0.1", &["[2001:db8::1]:5555"], "2001:db8::1"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("::1", &["::ffff:192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            for list in lists {
                headers.append(X_FORWARDED_FOR, HeaderValue::from_static(list));
            }
            let found = origin(peer.parse().ok(), &headers, &trusted);
            assert_eq!(found.address, client.parse().ok(), "{peer} {lists:?}");
        }
        let proto = |peer: &str, proto| {
            let headers = HeaderMap::from_iter([(X_FORWARDED_PROTO, HeaderValue::from_static(proto))]);
            origin(peer.parse().ok(), &headers, &trusted).is_https
        };
        assert_eq!(proto("192.0.2.1", "https"), None);
        assert_eq!(proto("10.0.0.1", "https"), Some(true));
        assert_eq!(proto("10.0.0.1", "https, http"), Some(false));
        assert_eq!(proto("10.0.0.1", "gopher"), None);
    }

    #[test]
    fn nothing_is_claimed_for_a_client_without_address() {
        let client = Client { address: None, is_https: true, host: None };
        let request = applied(&[("X-Forwarded-For", "6.6.6.6")], &client);
        assert!(!request.headers.contains_key("x-forwarded-for"));
        assert!(!request.headers.contains_key("x-forwarded-host"));
        assert_eq!(request.headers["x-forwarded-proto"], "https");
    }
}
