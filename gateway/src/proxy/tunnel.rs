//! Upgrade of a connection to a WebSocket tunnel: prepared before the request is sent, and decided by the response's
//! head.

use http::StatusCode;
use pingora::Result;
use pingora::prelude::HttpPeer;
use pingora::proxy::Session;

use crate::downstream::stream;
use crate::proxy::ctx::RequestCtx;
use crate::proxy::{GatewayDeps, errors};
use crate::websocket::{TunnelOptions, Upgrade, intercept_upgrade};

/// Prepares a WebSocket request so that its connection to the backend can become a tunnel.
pub(super) fn intercept(
    peer: Box<HttpPeer>,
    session: &Session,
    ctx: &mut RequestCtx,
    gateway: &GatewayDeps,
) -> Box<HttpPeer> {
    let (Some(client), Some(route)) = (stream::websocket(session), &ctx.route) else { return peer };
    let upgrade = Upgrade::new(TunnelOptions {
        idle: route.peers.stream_idle_timeout(),
        grace_period: ctx.snapshot.proxy.grace_period,
        stopping: gateway.stopping.clone(),
        active: gateway.request_log.metrics.websockets_active.clone(),
    });
    client.await_upgrade(upgrade.clone());
    let peer = intercept_upgrade(peer, &upgrade, &gateway.connector);
    ctx.upgrade = Some(upgrade);
    peer
}

/// Decides with the response's head whether a requested WebSocket begins.
///
/// # Errors
/// Returns an error if the backend agreed on a connection that cannot become a tunnel. The client must not receive this
/// 101.
pub(super) fn settle(status: StatusCode, session: &mut Session, ctx: &RequestCtx) -> Result<()> {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        if !ctx.upgrade.as_ref().is_some_and(|upgrade| upgrade.agree()) {
            return Err(errors::no_tunnel());
        }
        // No read timeout of Pingora applies to a tunnel: the tunnel has timeouts that it enforces itself.
        session.set_read_timeout(None);
    } else if let Some(client) = stream::websocket(session) {
        client.give_up();
        if ctx.wants_websocket {
            // The client may send WebSocket frames next. They must not be read as a request.
            session.set_keepalive(None);
        }
    }
    Ok(())
}
