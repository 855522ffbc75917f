//! The client's side of a request: how its connection behaves, and what it has been sent.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use pingora::{Error, Result};

use crate::config::Proxy;
use crate::tls::Handshake;
use crate::util::field_list;

/// How long the rest of a body is read that nobody wants, so that an early answer arrives.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What Pingora calls a connection that is kept, and that it waits for without an end: the client's stream has a
/// deadline for idle connections, which does not count the time that a head takes (`client`).
pub const KEPT: Option<u64> = Some(0);

/// Settles how the connection behaves from this request on. Nothing about it may last for ever.
pub fn settle(session: &mut Session, proxy: &Proxy) {
    // Where the request itself ends the connection (HTTP/1.0, `Connection: close`), it stays so.
    if session.get_keepalive().is_some() {
        let lasts = !asks_to_close(&session.req_header().headers);
        session.set_keepalive(KEPT.filter(|_| lasts));
    }
    // Counted down by Pingora from one request to the next, on a connection of HTTP/1.
    let requests = proxy.max_requests_per_connection;
    if requests > 0 && session.get_keepalive_reuses_remaining().is_none() {
        session.set_keepalive_reuses_remaining(Some(requests - 1));
    }
    // For a part of a response to find room in its stream's window. Of HTTP/1 the client's stream sees how it is
    // taken, and Pingora would only ask for a whole part in that time, however slow the client is.
    let is_http2 = session.req_header().version == Version::HTTP_2;
    session.set_write_timeout(is_http2.then(|| proxy.send_timeout_secs.duration()));
    // Otherwise a client that is still sending a body would get a reset in place of an early answer.
    session.set_close_on_response_before_downstream_finish(false);
    session.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
    if session.req_header().version <= Version::HTTP_10 {
        // RFC 9110 15.2: it does not know interim responses.
        session.set_ignore_info_resp(true);
    }
}

/// Whether any line of `Connection` says that this is the last request (RFC 9112 9.6); Pingora looks at one.
fn asks_to_close(request: &HeaderMap) -> bool {
    field_list::has(request, header::CONNECTION, "close")
}

/// What the TLS handshake has found out about the client; `None` where the connection is without TLS.
pub fn handshake(session: &Session) -> Option<&Handshake> {
    session.digest().and_then(Handshake::of)
}

/// The peer's address; IPv4 as IPv4, even on a socket of IPv6. `None` on a Unix socket.
pub fn peer_address(session: &Session) -> Option<IpAddr> {
    let address = session.client_addr().and_then(|address| address.as_inet());
    address.map(|address| address.ip().to_canonical())
}

/// Ready once the client has left: over HTTP/1 its side of the connection is closed, over HTTP/2 its stream. Where a body
/// follows, nobody looks: what would be read is part of it.
pub async fn left(session: &mut Session) {
    let session = session.as_downstream_mut();
    while session.is_body_done() {
        if session.read_body_or_idle(true).await.is_err() {
            return;
        }
    }
    std::future::pending().await
}

/// Whether the client waits for 100 (Continue) before it sends its body (RFC 9110 10.1.1).
pub fn awaits_continue(session: &Session) -> bool {
    let request = session.req_header();
    let asks = request.version > Version::HTTP_10
        && field_list::has(&request.headers, header::EXPECT, "100-continue");
    asks && session.response_written().is_none()
}

/// The status of the final response, where the client has been sent one.
pub fn final_response(session: &Session) -> Option<StatusCode> {
    session.response_written().map(|response| response.status).filter(|status| !is_interim(*status))
}

/// Whether an answer with this status has no content, whatever a backend sends behind its head (RFC 9110 6.4.1).
pub fn has_no_content(request: &RequestHeader, status: StatusCode) -> bool {
    request.method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Whether another response follows: all of 1xx but the one that ends HTTP on the connection (RFC 9110 15.2).
pub fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// Has the body of a response of unknown length end with the connection, where the client does not know chunks
/// (RFC 9112 6.1 and 6.3).
///
/// # Errors
/// Where the client is gone.
pub async fn close_delimit_for_http10(session: &mut Session, response: &mut ResponseHeader) -> Result<()> {
    let is_old = session.req_header().version < Version::HTTP_11;
    if !is_old || response.headers.contains_key(header::CONTENT_LENGTH) {
        return Ok(());
    }
    response.remove_header(&header::TRANSFER_ENCODING);
    session.set_keepalive(None);
    if response.version == Version::HTTP_2 {
        // Once this is done Pingora would make chunks of it, so the head is sent here. What Pingora sends of it then
        // passes for an interim response, and such a client gets none (see `settle`).
        let mut head = response.clone();
        head.set_version(Version::HTTP_11);
        session.write_response_header(Box::new(head), false).await.map_err(Error::into_down)?;
        response.set_status(StatusCode::EARLY_HINTS)?;
    }
    Ok(())
}

/// Whether the client asks for events: `text/event-stream` is among what it accepts, as it is for every browser's
/// `EventSource`. Known from the request because the timeouts of a connection to a backend are settled before
/// there is a response.
pub fn wants_events(request: &HeaderMap) -> bool {
    let is_events = |kind: &[u8]| {
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    };
    field_list::members(request, header::ACCEPT).any(is_events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_connection_may_stand_on_any_line() {
        for (lines, ends) in [
            (&["close"][..], true),
            (&["keep-alive", "Close"], true),
            (&["x-a, close"], true),
            (&["keep-alive"], false),
            (&["closed", "x-close"], false),
            (&[], false),
        ] {
            let mut request = HeaderMap::new();
            for line in lines {
                request.append(header::CONNECTION, line.parse().unwrap());
            }
            assert_eq!(asks_to_close(&request), ends, "{lines:?}");
        }
    }

    #[test]
    fn events_are_asked_for_by_their_type() {
        for (lines, asked) in [
            (&["text/event-stream"][..], true),
            (&["Text/Event-Stream; charset=utf-8"], true),
            (&["application/json, text/event-stream;q=0.9"], true),
            (&["application/json", "text/event-stream"], true),
            (&["text/*", "*/*"], false),
            (&["text/event-streams"], false),
            (&[], false),
        ] {
            let mut request = HeaderMap::new();
            for line in lines {
                request.append(header::ACCEPT, line.parse().unwrap());
            }
            assert_eq!(wants_events(&request), asked, "{lines:?}");
        }
    }
}
