//! What the head of a backend's response must be before anything is made of it. Most of that Pingora sees to.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use pingora::http::ResponseHeader;
use pingora::prelude::*;

/// Refuses what no client may get, and makes one of several ways to say the same thing.
///
/// # Errors
/// A switch to a protocol that the client has not asked for (RFC 9110 7.8): `upgrade` is whether it has asked for a
/// WebSocket. A body of which nobody can know where it ends.
pub fn check(response: &mut ResponseHeader, upgrade: bool) -> Result<()> {
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        if !upgrade {
            return Err(switched_unasked());
        }
        let mut protocols = response.headers.get_all(header::UPGRADE).iter();
        let is_websocket = |protocol: &HeaderValue| protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
        if !protocols.next().is_some_and(is_websocket) || protocols.next().is_some() {
            // RFC 6455 4.1: nobody has agreed on what would pass the tunnel.
            return Err(Error::explain(InvalidHTTPHeader, "101, and not to a WebSocket").into_up());
        }
        if response.version != Version::HTTP_11 {
            // RFC 9110 7.8. To Pingora's half of the backend, nothing has been switched.
            return Err(Error::explain(InvalidHTTPHeader, "101, which HTTP/1.0 does not have").into_up());
        }
    }
    if response.version == Version::HTTP_10 && response.headers.contains_key(header::TRANSFER_ENCODING) {
        // RFC 9112 6.1: who knows where such a message ends?
        return Err(Error::explain(InvalidHTTPHeader, "an encoding that HTTP/1.0 does not have").into_up());
    }
    let mut codings = response.headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_known = |coding: &HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    if codings.next().is_some_and(|coding| !is_known(coding)) || codings.next().is_some() {
        // RFC 9112 6.1: it would go down as it came, and end nobody knows where.
        return Err(Error::explain(InvalidHTTPHeader, "a transfer coding that nobody knows here").into_up());
    }
    of_one_hop(response);
    if response.status == StatusCode::NO_CONTENT || is_interim(response.status) {
        // RFC 9110 8.6, RFC 9112 6.1: there is nothing whose length it could be, or that could be in chunks.
        response.remove_header(&header::CONTENT_LENGTH);
        response.remove_header(&header::TRANSFER_ENCODING);
    }
    one_length(response)
}

/// Whether a backend says on another than the first line of `Connection` that it closes its connection (RFC 9112 9.6).
/// Pingora looks at that one, and would keep it.
pub fn closes_unheard(response: &HeaderMap) -> bool {
    let others = response.get_all(header::CONNECTION).into_iter().skip(1);
    let mut options = others.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// Takes away what is about the connection to the backend alone: the fields that its `Connection` names, and those
/// that always are (RFC 9110 7.6.1). What frames the body stays, and what a WebSocket begins with.
fn of_one_hop(response: &mut ResponseHeader) {
    let always = ["keep-alive", "proxy-connection", "te"];
    always.iter().for_each(|name| drop(response.remove_header(*name)));
    if response.status == StatusCode::SWITCHING_PROTOCOLS
        || !response.headers.contains_key(header::CONNECTION)
    {
        return;
    }
    let lines: Vec<_> = response.headers.get_all(header::CONNECTION).iter().cloned().collect();
    let options = lines.iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    for name in options.filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok()) {
        if ![header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION].contains(&name) {
            response.remove_header(&name);
        }
    }
}

/// The error of a switch that was not asked for.
pub(super) fn switched_unasked() -> Box<Error> {
    Error::explain(InvalidHTTPHeader, "101 to a request that asked for no other protocol").into_up()
}

/// A length that is there several times becomes one (RFC 9110 8.6). Those that differ have been refused by now.
fn one_length(response: &mut ResponseHeader) -> Result<()> {
    let mut lines = response.headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else { return Ok(()) };
    let list = first.as_bytes().iter().position(|byte| *byte == b',');
    if lines.next().is_none() && list.is_none() {
        return Ok(());
    }
    let length = &first.as_bytes()[..list.unwrap_or(first.len())];
    let length = String::from_utf8_lossy(length).trim().to_owned();
    response.insert_header(header::CONTENT_LENGTH, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, lengths: &[&str]) -> ResponseHeader {
        let mut response = ResponseHeader::build(status, None).unwrap();
        for length in lengths {
            response.append_header("Content-Length", *length).unwrap();
        }
        response
    }

    #[test]
    fn nobody_switches_to_what_was_not_asked_for() {
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
            assert_eq!(check(&mut switch(protocols), true).is_ok(), is_fine, "{protocols:?}");
        }
        let error = check(&mut switch(&["websocket"]), false).unwrap_err();
        assert_eq!((error.esource(), error.etype()), (&ErrorSource::Upstream, &InvalidHTTPHeader));
        assert!(check(&mut response(100, &[]), false).is_ok());
        let mut old = switch(&["websocket"]);
        old.set_version(Version::HTTP_10);
        assert!(check(&mut old, true).is_err());
    }

    #[test]
    fn a_close_that_pingora_does_not_hear_is_one_on_another_line() {
        for (lines, is_unheard) in [
            (&["close"][..], false),
            (&["x, close"], false),
            (&["keep-alive", "close"], true),
            (&["x", "y, Close"], true),
            (&["x", "closed"], false),
        ] {
            let mut answer = response(200, &[]);
            lines.iter().for_each(|line| drop(answer.append_header("Connection", *line)));
            assert_eq!(closes_unheard(&answer.headers), is_unheard, "{lines:?}");
        }
    }

    #[test]
    fn what_is_coded_as_nobody_knows_is_refused_and_what_has_no_body_has_no_coding() {
        for (status, codings, is_fine) in [
            (200, &["chunked"][..], true),
            (200, &["Chunked"], true),
            (200, &["gzip, chunked"], false),
            (200, &["chunked, identity"], false),
            (200, &["xchunked"], false),
            (200, &["chunked", "chunked"], false),
            (204, &["chunked"], true),
            (103, &["chunked"], true),
        ] {
            let mut response = response(status, &[]);
            for coding in codings {
                response.append_header("Transfer-Encoding", *coding).unwrap();
            }
            assert_eq!(check(&mut response, false).is_ok(), is_fine, "{status} {codings:?}");
            assert!(status == 200 || !response.headers.contains_key("transfer-encoding"), "{status}");
        }
    }

    #[test]
    fn what_a_body_cannot_have_goes_or_is_refused() {
        let mut old = response(200, &[]);
        old.set_version(Version::HTTP_10);
        assert!(check(&mut old, false).is_ok());
        old.insert_header("Transfer-Encoding", "chunked").unwrap();
        assert!(check(&mut old, false).is_err());
        let mut empty = response(204, &["5"]);
        check(&mut empty, false).unwrap();
        assert!(empty.headers.is_empty());
    }

    #[test]
    fn what_is_about_the_connection_to_the_backend_stays_there() {
        let mut of_one_hop = response(200, &["5"]);
        for (name, value) in [
            ("Connection", "close, X-Private"),
            ("Connection", "x-other,content-length"),
            ("X-Private", "1"),
            ("X-Other", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "close"),
            ("X-Kept", "1"),
        ] {
            of_one_hop.append_header(name, value).unwrap();
        }
        check(&mut of_one_hop, false).unwrap();
        let mut left: Vec<_> = of_one_hop.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["connection", "content-length", "x-kept"]);
    }

    #[test]
    fn one_length_is_left_of_several() {
        for lengths in [&["5"][..], &["5", "5"], &["5, 5"], &["5 ,5", "5"]] {
            let mut response = response(200, lengths);
            check(&mut response, false).unwrap();
            let left: Vec<_> = response.headers.get_all("content-length").iter().collect();
            assert_eq!(left, ["5"], "{lengths:?}");
        }
    }
}
