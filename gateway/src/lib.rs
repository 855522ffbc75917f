//! An API gateway on Pingora, and the capstone of this workspace's lessons.
//!
//! # A request's way through the code
//!
//! [`listener`] accepts the client's connection, counts it, and reads the PROXY header and the TLS handshake ([`tls`]).
//! [`downstream`] inspects the bytes of the connection before Pingora parses them, so that malformed requests never
//! reach it. Pingora then calls the phases of [`proxy`]. That file is the one to read next:
//!
//! 1. `new_ctx`: the request takes the current [`live::Snapshot`], which is a compiled [`config::Config`], and keeps it
//!    to its end in its [`proxy::ctx::RequestCtx`].
//! 2. `early_request_filter`: the client's address is resolved ([`policy::forwarded`]) and the request gets an id
//!    ([`policy::request_id`]).
//! 3. `request_filter`: [`policy::hygiene`] refuses ambiguous requests. [`proxy::admission`] finds the virtual host and the
//!    route ([`route`]), and asks each policy that may refuse: [`policy::access`], [`policy::cors`],
//!    [`policy::rate_limit`], [`policy::auth`]. A refusal is a local [`reply`], sent by [`proxy::respond`].
//! 4. `proxy_upstream_filter`, `upstream_peer`: a usable backend of the route's pool is chosen ([`upstream`]). Pingora
//!    connects to it, or reuses an idle connection.
//! 5. `upstream_request_filter`: [`policy::rewrite`] and [`policy::headers`] change the request. Its body follows
//!    ([`proxy::request_body`]). After the last byte of the body, the response has a [`downstream::read_deadline`].
//! 6. `response_filter`: the response is changed, and compressed where the client accepts that
//!    ([`policy::compression`]). A response before the end of the request ends the request
//!    ([`proxy::early_response`]). After a 101 (Switching Protocols), [`websocket`] copies bytes in both directions.
//! 7. `fail_to_connect` and `error_while_proxy` decide whether another backend is tried ([`upstream::retry`]).
//!    `fail_to_proxy` turns the error into a local reply ([`proxy::errors`]). [`grpc`] has what is particular about
//!    calls of gRPC, whose outcome stands in the trailers.
//! 8. `logging`: the request is counted and logged, and its timeline is kept ([`proxy::request_log`], [`telemetry`]).
//!
//! # A change of the configuration
//!
//! A change comes from the file or SIGHUP ([`live::Reloader`]), from the management API ([`admin`]), or from a guarded
//! rollout ([`live::Rollouts`]). It always becomes a new [`live::Snapshot`] in the [`live::Store`], and new requests use
//! that one.
//!
//! # Around it
//!
//! [`cli`] reads the command line. [`server`] puts listeners, proxy and background services on one Pingora server.
//! [`process`] starts and stops it, and hands its listeners to a new process; [`drain`] waits for requests in flight.
//! [`util`] has what several modules need. [`demo`] runs where nothing is configured.

pub mod admin;
pub mod cli;
pub mod config;
pub mod demo;
pub mod downstream;
pub mod drain;
pub mod grpc;
pub mod listener;
pub mod live;
pub mod policy;
pub mod process;
pub mod proxy;
pub mod reply;
pub mod route;
pub mod server;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod util;
pub mod websocket;

/// The release of Pingora that this is built on; a test holds it to the manifest.
pub const PINGORA_VERSION: &str = "0.9.1";

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_is_the_pinned_one() {
        let manifest = include_str!("../../Cargo.toml");
        assert!(manifest.contains(&format!("version = \"={}\"", super::PINGORA_VERSION)));
    }
}
