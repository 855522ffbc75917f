//! Limits on a request's body on its way to a backend: the maximum length and the minimum rate.

use std::time::Instant;

use http::Version;
use pingora::Result;
use pingora::proxy::Session;

use crate::downstream::stream;
use crate::proxy::ctx::RequestCtx;
use crate::proxy::errors;

/// Begins to measure the rate of the body.
pub fn begin(session: &mut Session, ctx: &mut RequestCtx) {
    let route = ctx.route.as_ref().filter(|_| is_timed(ctx) && ctx.body_progress.is_none());
    let Some(route) = route else { return };
    let body_progress = route.body_limit.begin(stream::waited(session), Instant::now());
    // Over HTTP/2, Pingora waits for a body without end. There, the timeout for the backend's response ends the
    // request.
    session.set_read_timeout(Some(body_progress.left()));
    ctx.body_progress = Some(body_progress);
}

/// Begins to wait for the body after 100 (Continue). The gateway does not know yet how long the client itself has
/// waited. The rate is measured from the first part of the body on.
pub fn awaited(session: &mut Session, ctx: &RequestCtx) {
    let route = ctx.route.as_ref().filter(|_| is_timed(ctx) && ctx.body_progress.is_none());
    if let Some(route) = route {
        session.set_read_timeout(Some(route.body_limit.timeout()));
    }
}

/// Returns true unless the request may be silent without a limit, as gRPC calls and WebSockets may.
fn is_timed(ctx: &RequestCtx) -> bool {
    !ctx.wants_websocket && !ctx.grpc.as_ref().is_some_and(|call| call.needs_http2())
}

/// Handles a part of the body.
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

/// Returns true if the gateway reads and discards the rest of the body before it closes the connection. A close with
/// unread bytes is a reset, which may destroy the reply on its way (RFC 9112 9.6). HTTP/2 can end a stream without
/// that.
pub fn is_drained(session: &Session, error: &pingora::Error) -> bool {
    errors::is_body_too_long(error) && session.req_header().version != Version::HTTP_2
}
