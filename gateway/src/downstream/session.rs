//! Helpers for the client's side of a Pingora session: the behaviour of the client's connection, and the response that
//! has been sent to the client.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use pingora::{Error, Result};

use crate::tls::Handshake;
use crate::util::field_list;
use crate::util::status::is_interim;

/// Maximum time for reading the unwanted rest of a request body. If the gateway did not read the rest, the client might
/// lose an early response.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Value that tells Pingora to keep a connection open without a timeout. The client's stream has its own deadline for
/// idle time, which ends when a request's head begins to arrive (`downstream::stream`).
pub const KEPT: Option<u64> = Some(0);

/// Configures the client's connection for this request and later ones, so that no wait lasts for ever. `max_requests`
/// is the maximum number of requests on the connection; 0 means no limit.
pub fn settle(session: &mut Session, max_requests: u32, send_timeout: Duration) {
    // A request that itself ends the connection (HTTP/1.0, `Connection: close`) still does so.
    if session.get_keepalive().is_some() {
        let lasts = !asks_to_close(&session.req_header().headers);
        session.set_keepalive(KEPT.filter(|_| lasts));
    }
    // On an HTTP/1 connection, Pingora lowers this number with each request.
    if max_requests > 0 && session.get_keepalive_reuses_remaining().is_none() {
        session.set_keepalive_reuses_remaining(Some(max_requests - 1));
    }
    // Timeout over HTTP/2 until the stream's window has room for a chunk. Over HTTP/1 the client's stream checks the
    // rate instead: Pingora's timeout would require a whole chunk in that time, also from a slow client.
    let is_http2 = session.req_header().version == Version::HTTP_2;
    session.set_write_timeout(is_http2.then_some(send_timeout));
    // If this were true, a client that is still sending its body would get a reset in place of an early response.
    session.set_close_on_response_before_downstream_finish(false);
    session.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
    if session.req_header().version <= Version::HTTP_10 {
        // RFC 9110 15.2: an HTTP/1.0 client does not understand interim responses.
        session.set_ignore_info_resp(true);
    }
}

/// Returns true if any `Connection` line has `close` (RFC 9112 9.6). Pingora looks at one line only.
fn asks_to_close(request: &HeaderMap) -> bool {
    field_list::has(request, header::CONNECTION, "close")
}

/// Returns the properties of the client's TLS handshake; `None` on a connection without TLS.
pub fn handshake(session: &Session) -> Option<&Handshake> {
    session.digest().and_then(Handshake::of)
}

/// Returns the client's address on the socket; `None` on a Unix socket. IPv4 in IPv6 form (`::ffff:192.0.2.1`) is
/// converted.
pub fn peer_address(session: &Session) -> Option<IpAddr> {
    let address = session.client_addr().and_then(|address| address.as_inet());
    address.map(|address| address.ip().to_canonical())
}

/// Waits until the client has closed its side of the connection (HTTP/1) or its stream (HTTP/2). Never returns while a
/// request body follows, because a read would consume a part of that body.
pub async fn left(session: &mut Session) {
    let session = session.as_downstream_mut();
    while session.is_body_done() {
        if session.read_body_or_idle(true).await.is_err() {
            return;
        }
    }
    std::future::pending().await
}

/// Returns true if the client waits for 100 (Continue) before it sends its body (RFC 9110 10.1.1).
pub fn awaits_continue(session: &Session) -> bool {
    let request = session.req_header();
    let asks = request.version > Version::HTTP_10
        && field_list::has(&request.headers, header::EXPECT, "100-continue");
    asks && session.response_written().is_none()
}

/// Returns the status of the final response; `None` if no final response has been sent to the client.
pub fn final_response(session: &Session) -> Option<StatusCode> {
    session.response_written().map(|response| response.status).filter(|status| !is_interim(*status))
}

/// Returns true if a response with this status has no content, even if a backend sends bytes after its head (RFC 9110
/// 6.4.1).
pub fn has_no_content(request: &RequestHeader, status: StatusCode) -> bool {
    request.method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Makes the end of the connection mark the end of the body, if the client speaks HTTP/1.0 and the body's length is
/// unknown (RFC 9112 6.1 and 6.3). Such a client does not understand chunks.
///
/// # Errors
/// Returns an error if the client has left.
pub async fn close_delimit_for_http10(session: &mut Session, response: &mut ResponseHeader) -> Result<()> {
    let is_old = session.req_header().version < Version::HTTP_11;
    if !is_old || response.headers.contains_key(header::CONTENT_LENGTH) {
        return Ok(());
    }
    response.remove_header(&header::TRANSFER_ENCODING);
    session.set_keepalive(None);
    if response.version == Version::HTTP_2 {
        // Pingora would now encode the body as chunks, so the head is sent here. The status 103 makes Pingora take its
        // own copy of the head for an interim response, which such a client does not get (see `settle`).
        let mut head = response.clone();
        head.set_version(Version::HTTP_11);
        session.write_response_header(Box::new(head), false).await.map_err(Error::into_down)?;
        response.set_status(StatusCode::EARLY_HINTS)?;
    }
    Ok(())
}

/// Returns true if the client accepts `text/event-stream`, as the `EventSource` of every browser does. The request must
/// tell this, because the timeouts of a backend connection are set before there is a response.
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
    fn connection_close_is_found_on_any_line() {
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
    fn event_stream_is_found_in_accept_by_its_type() {
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
