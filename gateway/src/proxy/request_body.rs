//! Limits on a request's body on its way to a backend: the maximum length and the minimum rate.

use std::time::Instant;

use http::Version;
use pingora::Result;
use pingora::proxy::Session;

use crate::downstream::stream;
use crate::proxy::ctx::RequestCtx;
use crate::proxy::errors;

/// Begins to measure the rate at which the body arrives.
pub fn begin(session: &mut Session, ctx: &mut RequestCtx) {
    let route = ctx.route.as_ref().filter(|_| is_timed(ctx) && ctx.body_progress.is_none());
    let Some(route) = route else { return };
    let body_progress = route.body_limit.begin(stream::waited(session), Instant::now());
    // This timeout has no effect over HTTP/2, where Pingora waits for a body for ever. The timeout for the backend's
    // response then ends the request.
    session.set_read_timeout(Some(body_progress.left()));
    ctx.body_progress = Some(body_progress);
}

/// Sets a timeout for the first part of the body after 100 (Continue). The measurement of the rate begins with that
/// part, because the gateway does not know how long the client itself has waited.
pub fn awaited(session: &mut Session, ctx: &RequestCtx) {
    let route = ctx.route.as_ref().filter(|_| is_timed(ctx) && ctx.body_progress.is_none());
    if let Some(route) = route {
        session.set_read_timeout(Some(route.body_limit.timeout()));
    }
}

/// Returns true if the rate of the request's body is limited; false for gRPC calls and WebSockets, which may be silent.
fn is_timed(ctx: &RequestCtx) -> bool {
    !ctx.wants_websocket && !ctx.grpc.as_ref().is_some_and(|call| call.needs_http2())
}

/// Checks a part of the body, which has `bytes` bytes.
///
/// # Errors
/// Returns an error if the body is too long or arrives too slowly.
pub fn on_data(session: &mut Session, ctx: &mut RequestCtx, bytes: usize) -> Result<()> {
    if ctx.wants_websocket || bytes == 0 {
        return Ok(());
    }
    let Some(route) = &ctx.route else { return Ok(()) };
    if !route.body_limit.allows(session.as_downstream().body_bytes_read()) {
        return Err(errors::body_too_long());
    }
    let waited = stream::waited(session);
    match &mut ctx.body_progress {
        Some(body_progress) => {
            body_progress.on_data(bytes, waited, Instant::now()).map_err(|_| errors::body_too_slow())?;
            session.set_read_timeout(Some(body_progress.left()));
        }
        // The client waited for 100 (Continue), so the measurement begins with this part.
        None => begin(session, ctx),
    }
    Ok(())
}

/// Returns true if the gateway must read and discard the rest of the body before it closes the connection. A close with
/// unread bytes is a reset, which may destroy the reply (RFC 9112 9.6). Over HTTP/2 it is enough to close the stream.
pub fn is_drained(session: &Session, error: &pingora::Error) -> bool {
    errors::is_body_too_long(error) && session.req_header().version != Version::HTTP_2
}
