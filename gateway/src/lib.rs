//! An API gateway on Pingora, and the capstone of this workspace's lessons.
//!
//! This page is a tour of the code. The first reading shows what each request passes. The second reading shows the code
//! that is there for the sake of real life. Paths are relative to `gateway/src`; numbers of lines are without tests.
//!
//! # First reading
//!
//! Eleven files, about 3,000 lines, in this order:
//!
//! 1. `main.rs` (about 25 lines): the way from the arguments to the exit code. [`cli`] has one file for each command.
//! 2. `server.rs` ([`server`], about 290 lines): the parts of the process, and what each part gets from the others.
//! 3. `live/snapshot.rs` ([`live::Snapshot`], about 310 lines): all that requests look up, compiled before.
//! 4. `proxy/mod.rs` ([`proxy`], about 680 lines): the phases of a request in their order, and the policies in each.
//! 5. `proxy/ctx.rs` ([`proxy::ctx`], about 350 lines): the state of a request, each field with its phase.
//! 6. `proxy/admission.rs` ([`proxy::admission`], about 170 lines): the choice of the route, and all checks in a loop.
//! 7. `live/checks.rs` ([`live::checks`], about 180 lines): the one list that says in which order policies may refuse.
//! 8. `policy/access.rs` ([`policy::access`], about 65 lines): a whole policy. It compiles its table once, and returns
//!    a [`policy::Verdict`] for each request. The other policies have the same form.
//! 9. `upstream/pool.rs` ([`upstream::Pool`], about 180 lines): the choice of a backend. An [`upstream::Attempt`]
//!    counts as in flight until it is dropped.
//! 10. `proxy/errors.rs` ([`proxy::errors`], about 280 lines): the status and the local reply that each error becomes.
//! 11. `live/store.rs` ([`live::Store`], about 480 lines): the steps of a change, and the swap of snapshots.
//!
//! # A request's way through the code
//!
//! [`listener`] accepts the client's connection, counts it, and reads the PROXY header and the TLS handshake ([`tls`]).
//! [`downstream`] inspects the bytes of the connection before Pingora parses them, so that malformed requests never
//! reach it. Pingora then calls the phases of [`proxy`]:
//!
//! 1. `new_ctx`: the request takes the current [`live::Snapshot`], which is a compiled [`config::Config`], and keeps it
//!    to its end in its [`proxy::ctx::RequestCtx`].
//! 2. `early_request_filter`: the client's address is resolved ([`policy::forwarded`]) and the request gets an id
//!    ([`policy::request_id`]).
//! 3. `request_filter`: [`policy::hygiene`] refuses ambiguous requests. [`proxy::admission`] finds the virtual host and
//!    the route ([`route`]), and asks each policy that may refuse, such as [`policy::access`], [`policy::cors`],
//!    [`policy::rate_limit`] and [`policy::auth`]. A refusal is a local [`reply`], sent by [`proxy::respond`].
//! 4. `proxy_upstream_filter`, `upstream_peer`: a usable backend of the route's pool is chosen ([`upstream`]). Pingora
//!    connects to it, or reuses an idle connection.
//! 5. `upstream_request_filter`: [`policy::rewrite`] and [`policy::headers`] change the request. Its body follows
//!    ([`proxy::request_body`]). After the last byte of the body, the response has a [`downstream::read_deadline`].
//! 6. `response_filter`: the response is changed, and compressed where the client accepts that
//!    ([`policy::compression`]). A response that is complete before its request ends the request
//!    ([`proxy::early_response`]). After a 101 (Switching Protocols), [`websocket`] copies bytes in both directions.
//! 7. `fail_to_connect` and `error_while_proxy` decide whether another backend is tried ([`upstream::retry`]).
//!    `fail_to_proxy` turns the error into a local reply ([`proxy::errors`]). [`grpc`] has what is particular about
//!    calls of gRPC, whose outcome stands in the trailers.
//! 8. `logging`: the request is counted and logged, and its timeline is kept ([`proxy::request_log`], [`telemetry`]).
//!
//! # A change of the configuration
//!
//! A change comes from the file or SIGHUP ([`live::Reloader`]), from the management API ([`admin`]), or from a guarded
//! rollout ([`live::Rollouts`]). It always becomes a new [`live::Snapshot`] in the [`live::Store`], and new requests
//! use that one.
//!
//! # Around it
//!
//! [`server`] puts listeners, proxy and background services on one Pingora server. [`process`] starts and stops it, and
//! hands its listeners to a new process; [`drain`] waits for requests in flight. [`util`] has what several modules
//! need. [`demo`] runs where nothing is configured.
//!
//! # Second reading: for the sake of real life
//!
//! The first reading does not need these parts, and their order does not matter. Each is there because something goes
//! wrong in production without it.
//!
//! - **The upgrade** (`process/upgrade/`, [`process::upgrade`], about 790 lines). A deploy must not lose a request.
//!   Look for the messages between the two processes: at each step, at least one of them serves.
//! - **The HTTP/1 inspector** (`downstream/http1/`, [`downstream::http1`], about 630 lines, and the stream that it
//!   works on, `downstream/stream.rs`, about 420). Pingora's parser is lenient, which makes request smuggling possible.
//!   Look for the substitute that Pingora gets for a refused head, and for bodies that are verified without a copy.
//! - **The HTTP/2 inspector** (`downstream/http2/`, [`downstream::http2`], about 1,780 lines). A client can make many
//!   requests and reset them at once. Look for the budgets in `ledger.rs`.
//! - **Responses of backends** (`upstream/connection/`, [`upstream::connection`], about 820 lines). Half a response
//!   must not look like a whole one. Look for the same inspection as that of requests, in the other direction.
//! - **WebSockets** (`websocket/`, [`websocket`], about 840 lines). Pingora's own tunnel can stall if both sides are
//!   busy. Look for the two directions, which do not wait for each other, and for the Close frames of a drain.
//! - **ACME** (`tls/acme/`, [`tls::acme`], about 1,700 lines). Certificates expire, and authorities limit orders. Begin
//!   with `order.rs`. Look for the files: an order that fails changes none of them.
//! - **Patching TOML** (`config/rewrite/`, about 320 lines, called by [`config::Source::change`]; `config/document.rs`,
//!   about 230; `live/persist.rs`, about 80). The management API changes a file that people write. Look for comments
//!   that stay in their places, for faults with their positions, and for a file that a crash cannot cut in half.
//! - **Ambiguous paths** (`config/path/`, [`config::read_path`], about 360 lines). A backend may read a path in another
//!   way than the gateway. Look for the other readings, which must all lead to the same route.
//! - **Shared rate limits** (`policy/rate_limit/store/`, [`policy::rate_limit::Store`], about 540 lines). Redis may be
//!   away. Look for the moment from which no request waits for it any more.
//! - **Passwords** (`policy/auth/hashing.rs`, about 130 lines). A hash costs the gateway more than a guess costs an
//!   attacker. Look for the queue that each client has of its own.

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
