//! Wrong: `starts_with` cuts words: `/apix` goes to the upstream of `/api`, which may belong to another team.
//! Caught: "the route for /apix, another word, out of [/api]"

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::prelude::*;

use crate::peer::peer;

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

impl Route {
    fn matches(&self, path: &str) -> bool {
        path.starts_with(self.prefix)
    }
}

impl Router {
    /// Returns the route for `path`: of the routes that match, the one with the longest prefix.
    pub fn find(&self, path: &str) -> Option<&Route> {
        let matching = self.routes.iter().filter(|route| route.matches(path));
        matching.max_by_key(|route| route.prefix.len())
    }
}

#[async_trait]
impl ProxyHttp for Router {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        let Some(route) = self.find(session.req_header().uri.path()) else {
            return Error::e_explain(HTTPStatus(404), "no route matches");
        };
        Ok(peer(route.upstream))
    }
}
