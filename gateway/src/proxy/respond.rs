//! How the gateway's own answers get to a client: with the fields that its policies add, and so that they arrive.

use http::{Version, header};
use pingora::prelude::*;
use tracing::debug;

use crate::downstream::session;
use crate::proxy::ctx::RequestCtx;
use crate::proxy::request_body;
use crate::reply::{self, Recipient, Reply};

/// Answers a request here.
///
/// # Errors
/// Where the client is gone.
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
        // A session that was renewed is renewed whatever became of the request.
        identity.on_reply(reply.fields_mut());
    }
    let help = match ctx.snapshot.config.proxy.problems_url.as_str() {
        "" => reply::PROBLEMS,
        elsewhere => elsewhere,
    };
    if session::awaits_continue(session) {
        // It need not send its body any more, and may as well: nobody could tell that from another request.
        session.set_keepalive(None);
    }
    let sent = reply.send(session, Recipient { id: &ctx.id, help, call: ctx.grpc.as_deref_mut() }).await;
    // Where it is gone, that is nothing that has gone wrong in here.
    sent.map_err(Error::into_down)
}

/// Tells a client why its request has come to nothing, by `error`. Its connection ends with that.
pub async fn tell(reply: Reply, error: &Error, session: &mut Session, ctx: &mut RequestCtx) {
    // Pingora closes it, so the answer says so.
    session.set_keepalive(None);
    let mut told = send(reply, session, ctx).await;
    let is_stream = ctx.grpc.is_some() && session.req_header().version == Version::HTTP_2;
    let is_ours = *error.esource() != ErrorSource::Downstream || request_body::is_drained(session, error);
    if told.is_ok() && is_ours && !is_stream {
        // A close with the rest of a body unread would be a reset, and might take the answer with it.
        told = session.drain_request_body().await;
    }
    if let Err(error) = told {
        debug!("the client left before it was told: {error}");
    }
}
