//! Compiled configuration: all that a request looks up. A snapshot never changes.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::config::Config;
use crate::pool::{Backend, Pool};

/// Compiled configuration.
pub struct Snapshot {
    /// Configuration that the snapshot was compiled from.
    pub config: Config,
    /// State of each backend, in the order of the configuration.
    pub backends: Vec<Arc<Backend>>,
    /// Routes, the longest path first.
    routes: Vec<Arc<Route>>,
}

/// Part of the site, with the pool that serves it.
pub struct Route {
    /// Path that the request's path must be, or must be below.
    pub path_prefix: String,
    /// Backends that serve the route.
    pub pool: Pool,
}

impl Snapshot {
    /// Compiles a configuration that has been checked. `backends` are in the order of the configuration.
    pub fn new(config: Config, backends: Vec<Arc<Backend>>) -> Snapshot {
        let mut routes = Vec::new();
        for route in &config.routes {
            let members =
                config.backends.iter().zip(&backends).filter(|(backend, _)| backend.tag == route.tag);
            let pool = Pool::new(members.map(|(_, state)| state.clone()).collect());
            routes.push(Arc::new(Route { path_prefix: route.path_prefix.clone(), pool }));
        }
        routes.sort_by_key(|route| Reverse(route.path_prefix.len()));
        Snapshot { config, backends, routes }
    }

    /// Returns the route for `path`: of the routes that match, the one with the longest path.
    pub fn find(&self, path: &str) -> Option<Arc<Route>> {
        let matches = |route: &Route| {
            let rest = path.strip_prefix(&*route.path_prefix)?;
            (rest.is_empty() || rest.starts_with('/') || route.path_prefix.ends_with('/')).then_some(())
        };
        self.routes.iter().find(|route| matches(route).is_some()).cloned()
    }
}
