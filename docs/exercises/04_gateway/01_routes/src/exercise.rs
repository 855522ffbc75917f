//! # Routes
//!
//! One proxy, several upstreams: which of them a request goes to depends on its path. `/api` matches `/api` and
//! everything below it, `/api/users`, but not `/apix`, which is another word. Where several routes match, the
//! longest wins, whatever their order.
//!
//! **Your task**: find the route, and answer 404 where there is none.

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::prelude::*;

/// Where requests for a part of the site go.
pub struct Route {
    /// The beginning of the path; `/` is the whole site.
    pub prefix: &'static str,
    /// Where to.
    pub upstream: SocketAddr,
}

/// Forwards each request by its path.
pub struct Router {
    /// In no particular order.
    pub routes: Vec<Route>,
}

impl Router {
    /// The route of a path: of those that match, the one with the longest prefix.
    pub fn find(&self, path: &str) -> Option<&Route> {
        // TODO: find it.
        let _ = path;
        None
    }
}

#[async_trait]
impl ProxyHttp for Router {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        // TODO: ask `find` with `session.req_header().uri.path()`; without a route the error is a 404.
        Error::e_explain(HTTPStatus(501), "nothing is routed yet")
    }
}
