//! A request's body on its way to a backend: how long it gets, and how slowly it comes.

use std::time::Instant;

use http::Version;
use pingora::Result;
use pingora::proxy::Session;

use crate::downstream::stream;
use crate::proxy::ctx::RequestCtx;
use crate::proxy::errors;

/// From now on the body is waited for.
pub fn begin(session: &mut Session, ctx: &mut RequestCtx) {
    let route = ctx.route.as_ref().filter(|_| is_timed(ctx) && ctx.body_progress.is_none());
    let Some(route) = route else { return };
    let body_progress = route.body_limit.begin(stream::waited(session), Instant::now());
    // Over HTTP/2 Pingora waits for a body for ever; there it is the backend's silence that ends the request.
    session.set_read_timeout(Some(body_progress.left()));
    ctx.body_progress = Some(body_progress);
}

/// The client has been told to go on, and is waited for from now on. How long it has been until then is known once
/// something has come, and the count begins with that.
pub fn awaited(session: &mut Session, ctx: &RequestCtx) {
    let route = ctx.route.as_ref().filter(|_| is_timed(ctx) && ctx.body_progress.is_none());
    if let Some(route) = route {
        session.set_read_timeout(Some(route.body_limit.patience()));
    }
}

/// Streams that may be silent for as long as they like are not: calls of gRPC, WebSockets.
fn is_timed(ctx: &RequestCtx) -> bool {
    !ctx.wants_websocket && !ctx.grpc.as_ref().is_some_and(|call| call.needs_http2())
}

/// A part of it has come.
///
/// # Errors
/// Where it is too much, or comes too slowly.
pub fn came(session: &mut Session, ctx: &mut RequestCtx, bytes: usize) -> Result<()> {
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
            body_progress.came(bytes, waited, Instant::now()).map_err(|_| errors::body_too_slow())?;
            session.set_read_timeout(Some(body_progress.left()));
        }
        // Its client had waited for 100 (Continue).
        None => begin(session, ctx),
    }
    Ok(())
}

/// Whether the rest of it is read, in vain, before the connection is closed: a close with bytes unread is a reset,
/// which may take the answer away with it (RFC 9112 9.6). HTTP/2 can end a stream without.
pub fn is_drained(session: &Session, error: &pingora::Error) -> bool {
    errors::is_body_too_long(error) && session.req_header().version != Version::HTTP_2
}
