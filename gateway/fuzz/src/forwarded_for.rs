//! Checks of `X-Forwarded-For`, which proxies write and clients forge.
//!
//! The first line of the input is the address of the peer. The second line has the trusted networks. Each
//! further line is the value of a field.

use std::net::IpAddr;

use gateway::config::{Cidr, TrustedField};
use gateway::policy::forwarded::{self, ForwardedClient, Origin};
use http::header::{HeaderMap, HeaderValue};
use pingora::http::RequestHeader;

const FIELD: &str = "x-forwarded-for";

/// Checks that the gateway believes only trusted peers, that the client address is the peer's or one that a
/// trusted proxy has named, and that the next proxy can read the field that the gateway writes.
pub fn check(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let mut next_text = || lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let (Some(peer), Some(networks)) = (next_text(), next_text()) else { return };
    // The gateway itself makes the address canonical in the same way (see `downstream`).
    let Ok(peer) = peer.parse::<IpAddr>().map(|peer| peer.to_canonical()) else { return };
    let trusted: Vec<Cidr> = networks.split(' ').filter_map(|network| network.parse().ok()).collect();
    let fields: Vec<HeaderValue> = lines.filter_map(|line| HeaderValue::from_bytes(line).ok()).collect();
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));

    let origin = |fields: &[HeaderValue]| {
        forwarded::origin(Some(peer), &headers(fields), &trusted, TrustedField::XForwardedFor)
    };
    let found = origin(&fields);
    if !is_trusted(peer) {
        return assert_eq!(found, Origin { address: Some(peer), is_https: None }, "{peer} is not trusted");
    }
    let Some(client) = found.address else { panic!("a client with an address has none: {fields:?}") };
    assert!(client == peer || named(&fields).contains(&client), "nobody has named {client}: {fields:?}");
    if !is_trusted(client) {
        let forged = [&[HeaderValue::from_static("192.0.2.66, 10.0.0.1")], &fields[..]].concat();
        assert_eq!(origin(&forged), found, "what stands before {client} was written by it: {forged:?}");
    }
    told(client);
}

fn headers(fields: &[HeaderValue]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for field in fields {
        headers.append(FIELD, field.clone());
    }
    headers
}

/// Returns each part of the fields that looks like an address. The method is independent of the gateway's
/// parser: it takes the parts between any separators.
fn named(fields: &[HeaderValue]) -> Vec<IpAddr> {
    let texts: Vec<_> = fields.iter().map(|field| String::from_utf8_lossy(field.as_bytes())).collect();
    let entries = texts.iter().flat_map(|text| text.split(',')).map(str::trim);
    let ways = entries.flat_map(|entry| {
        let bracketed = entry.split_once(']').map_or(entry, |(host, _)| host).trim_start_matches('[');
        let before_port = entry.rsplit_once(':').map_or(entry, |(host, _)| host);
        [entry.trim_end_matches(']'), bracketed, before_port]
    });
    let without_zone = |way: &str| way.split('%').next().unwrap_or_default().to_owned();
    ways.filter_map(|way| without_zone(way.trim_start_matches('[')).parse::<IpAddr>().ok())
        .map(|ip| ip.to_canonical())
        .collect()
}

/// Checks that another proxy, which trusts the gateway, reads the same client address from the field that the
/// gateway writes.
fn told(client: IpAddr) {
    let Ok(mut request) = RequestHeader::build("GET", b"/", None) else { panic!("a request cannot be made") };
    let told = forwarded::apply(
        &mut request,
        &ForwardedClient { address: Some(client), is_https: true, host: None },
    );
    assert!(told.is_ok(), "{client} cannot be told: {told:?}");
    let (gateway, everybody) = (IpAddr::from([127, 0, 0, 1]), ["127.0.0.1/32".parse()]);
    let trusted: Vec<Cidr> = everybody.into_iter().flatten().collect();
    let found = forwarded::origin(Some(gateway), &request.headers, &trusted, TrustedField::XForwardedFor);
    assert_eq!(found, Origin { address: Some(client), is_https: Some(true) });
}
