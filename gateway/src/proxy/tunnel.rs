//! Upgrade of a connection to a WebSocket tunnel. It is prepared before the request is sent, and decided when the
//! response's head has arrived.

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

/// Begins the requested tunnel if the response's `status` is 101. Gives the upgrade up otherwise.
///
/// # Errors
/// Returns an error if the response is a 101 for a connection that cannot become a tunnel. The client must not receive
/// this 101.
pub(super) fn settle(status: StatusCode, session: &mut Session, ctx: &RequestCtx) -> Result<()> {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        if !ctx.upgrade.as_ref().is_some_and(|upgrade| upgrade.agree()) {
            return Err(errors::no_tunnel());
        }
        // Pingora's read timeout must not end a tunnel, which has its own timeouts.
        session.set_read_timeout(None);
    } else if let Some(client) = stream::websocket(session) {
        client.give_up();
        if ctx.wants_websocket {
            // The client may send WebSocket frames next, which must not be read as a request.
            session.set_keepalive(None);
        }
    }
    Ok(())
}
