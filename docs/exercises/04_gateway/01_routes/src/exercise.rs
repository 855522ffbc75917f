//! # Routes
//!
//! One proxy has several upstreams, and the path of a request decides which of them gets it. `/api` matches
//! `/api` and every path below it, such as `/api/users`. It does not match `/apix`, which is another word. If
//! several routes match, the longest one wins. A prefix may end with a slash: `/static/` matches `/static/logo`.
//! The order of the routes does not matter.
//!
//! **Your task**: find the route, and answer 404 if there is none.

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::prelude::*;

/// Upstream for one part of the site.
pub struct Route {
    /// Beginning of the path. `/` means the whole site.
    pub prefix: &'static str,
    /// Address of the upstream.
    pub upstream: SocketAddr,
}

/// Proxy that chooses the upstream by the path of the request.
pub struct Router {
    /// Routes, in any order.
    pub routes: Vec<Route>,
}

impl Router {
    /// Returns the route for `path`: of the routes that match, the one with the longest prefix.
    pub fn find(&self, path: &str) -> Option<&Route> {
        // TODO: find the route.
        let _ = path;
        None
    }
}

#[async_trait]
impl ProxyHttp for Router {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        // TODO: call `find` with `session.req_header().uri.path()`, and return `crate::peer::peer` of the route's
        // upstream. Without a route, the error is a 404.
        Error::e_explain(HTTPStatus(501), "there is no routing yet")
    }
}
