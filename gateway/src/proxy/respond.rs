//! Sends local replies: adds the header fields of the policies, and closes the connection so that the reply arrives.

use http::{Version, header};
use pingora::prelude::*;
use tracing::debug;

use crate::downstream::session;
use crate::proxy::ctx::RequestCtx;
use crate::proxy::request_body;
use crate::reply::{self, Recipient, Reply};

/// Sends a local reply.
///
/// # Errors
/// Returns an error if the client has left.
pub async fn send(mut reply: Reply, session: &mut Session, ctx: &mut RequestCtx) -> Result<()> {
    ctx.error = reply.reason();
    ctx.security_headers().on_reply(ctx.is_https, reply.fields_mut());
    if let Some(cors) = ctx.cors() {
        cors.on_reply(session.req_header().headers.get(header::ORIGIN), reply.fields_mut());
    }
    if let Some(quota) = &ctx.quota {
        quota.on_reply(reply.fields_mut());
    }
    if let Some(identity) = &ctx.identity {
        // The client must store a renewed session even if the request itself fails.
        identity.on_reply(reply.fields_mut());
    }
    let help = ctx.snapshot.proxy.problems_url.as_deref().unwrap_or(reply::PROBLEMS);
    if session::awaits_continue(session) {
        // The client may still send its body. The gateway could not tell that body from another request.
        session.set_keepalive(None);
    }
    let sent = reply.send(session, Recipient { id: &ctx.id, help, call: ctx.grpc.as_deref_mut() }).await;
    // An error here means that the client has left, which is no error of the gateway.
    sent.map_err(Error::into_down)
}

/// Sends the local reply for a request that failed with `error`, and ends the client's connection.
pub async fn respond_error(reply: Reply, error: &Error, session: &mut Session, ctx: &mut RequestCtx) {
    // Pingora closes the connection, so the reply must announce it.
    session.set_keepalive(None);
    let mut told = send(reply, session, ctx).await;
    let is_stream = ctx.grpc.is_some() && session.req_header().version == Version::HTTP_2;
    let is_ours = *error.esource() != ErrorSource::Downstream || request_body::is_drained(session, error);
    if told.is_ok() && is_ours && !is_stream {
        // A close with unread bytes of the body would be a reset, which might destroy the reply on its way.
        told = session.drain_request_body().await;
    }
    if let Err(error) = told {
        debug!("the client left before the gateway could reply: {error}");
    }
}
