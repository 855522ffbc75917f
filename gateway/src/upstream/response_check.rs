//! Check of a response before it is processed: responses that no client may get are refused. The framing of a response
//! over HTTP/1 has been checked before, when it was read (see [`super::connection`]). For a response over HTTP/2, this
//! module also checks the fields, because h2 accepts fields that HTTP/1.1 does not allow.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use pingora::http::ResponseHeader;
use pingora::prelude::*;

use super::connection::HeadLimits;
use crate::util::field_list;
use crate::util::http1::bytes::is_token;
use crate::util::http1::{Fault, field};

/// Refuses a response that no client may get. Removes hop-by-hop fields, and normalizes the length of the body.
/// `upgrade` is true if the client has asked for a WebSocket.
///
/// # Errors
/// Returns an error for a switch to a protocol that the client has not asked for (RFC 9110 7.8), and for fields of an
/// HTTP/2 response that [`check_fields`] refuses.
pub fn check(response: &mut ResponseHeader, upgrade: bool, limits: &HeadLimits) -> Result<()> {
    if response.version == Version::HTTP_2 {
        check_fields(&response.headers, limits)?;
    }
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        if !upgrade {
            return Err(switched_unasked());
        }
        let mut protocols = response.headers.get_all(header::UPGRADE).iter();
        let is_websocket = |protocol: &HeaderValue| protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
        if !protocols.next().is_some_and(is_websocket) || protocols.next().is_some() {
            // RFC 6455 4.1: the two ends of the tunnel have not agreed on a protocol.
            return Err(Error::explain(InvalidHTTPHeader, "101, but not for a WebSocket").into_up());
        }
        if response.version != Version::HTTP_11 {
            // RFC 9110 7.8 has no 101 over HTTP/1.0, and for Pingora the connection has not switched either.
            return Err(Error::explain(
                InvalidHTTPHeader,
                "101 over HTTP/1.0, which does not have this status",
            )
            .into_up());
        }
    }
    strip_hop_by_hop(response);
    if response.status == StatusCode::NO_CONTENT || response.status.is_informational() {
        // RFC 9110 8.6, RFC 9112 6.1: such a response has no body, so it has neither a length nor chunks.
        response.remove_header(&header::CONTENT_LENGTH);
        response.remove_header(&header::TRANSFER_ENCODING);
    }
    dedupe_content_length(response)
}

/// Checks the fields of a head or of trailers over HTTP/2. Refuses fields that h2 accepts although HTTP/1.1 does not
/// allow them (RFC 9113 8.2.1 and 10.3), and more fields than `limits` allows.
///
/// # Errors
/// Returns an error that says what is wrong with the fields.
pub fn check_fields(fields: &HeaderMap, limits: &HeadLimits) -> Result<()> {
    let fault = || -> std::result::Result<(), Fault> {
        if fields.len() > limits.fields {
            return Err("there are more header fields than proxy.max_response_header_fields allows");
        }
        let size: usize =
            fields.iter().map(|(name, value)| name.as_str().len() + value.len() + AROUND_FIELD).sum();
        if size > limits.bytes {
            return Err("the header is larger than proxy.max_response_header_bytes allows");
        }
        for (name, value) in fields {
            if !is_token(name.as_str().as_bytes()) {
                return Err("the name of a header field has bytes that are not allowed in a name");
            }
            if value.as_bytes().trim_ascii().len() != value.len() {
                return Err("the value of a header field begins or ends with white space");
            }
        }
        Ok(())
    };
    fault().map_err(|detail| Error::explain(InvalidHTTPHeader, detail).into_up())
}

/// Length of the colon, the space and the line end that HTTP/1 adds to each field.
const AROUND_FIELD: usize = 4;

/// Removes the fields that concern only the connection to the backend: those that the field `Connection` names, and
/// those that are always hop-by-hop (RFC 9110 7.6.1). The fields that frame the body stay, and so do those that open a
/// WebSocket.
fn strip_hop_by_hop(response: &mut ResponseHeader) {
    let always = ["keep-alive", "proxy-connection", "te"];
    always.iter().for_each(|name| drop(response.remove_header(*name)));
    if response.status == StatusCode::SWITCHING_PROTOCOLS
        || !response.headers.contains_key(header::CONNECTION)
    {
        return;
    }
    let options = field_list::members(&response.headers, header::CONNECTION);
    let names: Vec<_> = options.filter_map(|option| HeaderName::from_bytes(option).ok()).collect();
    for name in names {
        if ![header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION].contains(&name) {
            response.remove_header(&name);
        }
    }
}

/// Returns the error for a switch of protocols that the client did not ask for.
pub(super) fn switched_unasked() -> Box<Error> {
    Error::explain(InvalidHTTPHeader, "101 to a request that did not ask for another protocol").into_up()
}

/// Replaces a Content-Length that is repeated, or has leading zeros, by one plain number (RFC 9110 8.6). Different
/// lengths have been refused before.
fn dedupe_content_length(response: &mut ResponseHeader) -> Result<()> {
    let mut lines = response.headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else { return Ok(()) };
    let is_plain = matches!(first.as_bytes(), b"0" | [b'1'..=b'9', ..]) && !first.as_bytes().contains(&b',');
    if lines.next().is_none() && is_plain {
        return Ok(());
    }
    let length = field::content_length(field_list::parts(first.as_bytes()).next().unwrap_or_default());
    let length = length.map_err(|fault| Error::explain(InvalidHTTPHeader, fault).into_up())?;
    response.insert_header(header::CONTENT_LENGTH, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 1000, fields: 10 };

    fn response(status: u16, lengths: &[&str]) -> ResponseHeader {
        let mut response = ResponseHeader::build(status, None).unwrap();
        for length in lengths {
            response.append_header("Content-Length", *length).unwrap();
        }
        response
    }

    #[test]
    fn switch_to_unrequested_protocol_is_refused() {
        let switch = |protocols: &[&str]| {
            let mut switch = response(101, &[]);
            protocols.iter().for_each(|protocol| drop(switch.append_header("Upgrade", *protocol)));
            switch
        };
        for (protocols, is_fine) in [
            (&["websocket"][..], true),
            (&["WebSocket"], true),
            (&[], false),
            (&["h2c"], false),
            (&["websocket, h2c"], false),
            (&["websocket", "h2c"], false),
        ] {
            assert_eq!(check(&mut switch(protocols), true, &LIMITS).is_ok(), is_fine, "{protocols:?}");
        }
        let error = check(&mut switch(&["websocket"]), false, &LIMITS).unwrap_err();
        assert_eq!((error.esource(), error.etype()), (&ErrorSource::Upstream, &InvalidHTTPHeader));
        assert!(check(&mut response(100, &[]), false, &LIMITS).is_ok());
        let mut old = switch(&["websocket"]);
        old.set_version(Version::HTTP_10);
        assert!(check(&mut old, true, &LIMITS).is_err());
    }

    #[test]
    fn bodiless_response_loses_length_and_transfer_encoding() {
        for status in [204, 103] {
            let mut empty = response(status, &["5"]);
            empty.insert_header("Transfer-Encoding", "chunked").unwrap();
            check(&mut empty, false, &LIMITS).unwrap();
            assert!(empty.headers.is_empty(), "{status}");
        }
        let mut switch = response(101, &["0"]);
        switch.insert_header("Upgrade", "websocket").unwrap();
        switch.insert_header("Transfer-Encoding", "chunked").unwrap();
        check(&mut switch, true, &LIMITS).unwrap();
        assert_eq!(switch.headers.len(), 1, "{:?}", switch.headers);
    }

    #[test]
    fn http2_field_invalid_in_http1_is_refused() {
        let with = |name: &str, value: &str| {
            let mut fields = HeaderMap::new();
            fields.append(HeaderName::from_lowercase(name.as_bytes()).unwrap(), value.parse().unwrap());
            check_fields(&fields, &LIMITS).is_ok()
        };
        assert!(with("x-a", "b c"));
        for (name, value) in [("x\"a", "b"), ("x-a", " b"), ("x-a", "b "), ("x-a", "\tb")] {
            assert!(!with(name, value), "{name}: {value:?}");
        }
        assert!(!with("x-a", &"x".repeat(LIMITS.bytes)));
        let mut many = HeaderMap::new();
        for _ in 0..LIMITS.fields {
            many.append("x-a", HeaderValue::from_static("b"));
        }
        assert!(check_fields(&many, &LIMITS).is_ok());
        many.append("x-a", HeaderValue::from_static("b"));
        assert!(check_fields(&many, &LIMITS).is_err());
    }

    #[test]
    fn hop_by_hop_fields_of_backend_are_removed() {
        let mut strip_hop_by_hop = response(200, &["5"]);
        for (name, value) in [
            ("Connection", "close, X-Private"),
            ("Connection", "x-other,content-length"),
            ("X-Private", "1"),
            ("X-Other", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "close"),
            ("X-Kept", "1"),
        ] {
            strip_hop_by_hop.append_header(name, value).unwrap();
        }
        check(&mut strip_hop_by_hop, false, &LIMITS).unwrap();
        let mut left: Vec<_> = strip_hop_by_hop.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["connection", "content-length", "x-kept"]);
    }

    #[test]
    fn repeated_content_length_becomes_one() {
        for lengths in [&["5"][..], &["5", "5"], &["5, 5"], &["5 ,5", "5"], &["005"], &["05", "5"]] {
            let mut response = response(200, lengths);
            check(&mut response, false, &LIMITS).unwrap();
            let left: Vec<_> = response.headers.get_all("content-length").iter().collect();
            assert_eq!(left, ["5"], "{lengths:?}");
        }
    }
}
