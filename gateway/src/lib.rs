//! An API gateway on Pingora, and the capstone of this workspace's lessons.
//!
//! # The tour of a request
//!
//! A client's bytes arrive on a socket that [`listener`] bound before anything started; a connection is counted there,
//! and refused where too many are open, and may begin with [`tls`]. What is no valid request does not get past the
//! [`client`]'s stream. Pingora parses the request's head and calls the phases of [`proxy`], which is the file to read
//! next:
//!
//! 1. `new_ctx`: the request takes the current [`live::Snapshot`], a compiled [`config::Config`], and keeps
//!    it to its end in its [`ctx::RequestCtx`].
//! 2. `early_request_filter`: who asks ([`downstream`]; [`policy::forwarded`] will tell the backend), and under
//!    which id ([`policy::request_id`]).
//! 3. `request_filter`: what nobody may be asked about is refused ([`policy::hygiene`]). [`admission`] is granted or
//!    not: [`route`] finds the virtual host and its route; where several tags share its requests,
//!    [`upstream::Split`] says whose this one is; [`policy::cors`] tells browsers what pages may do;
//!    [`policy::access`], [`policy::rate_limit`] (here or in a store that several gateways share) and
//!    [`policy::auth`] are asked. Whoever refuses answers here, by a [`reply`] ([`answering`]).
//! 4. `proxy_upstream_filter`, `upstream_peer`: a usable backend of the route's pool is chosen
//!    ([`upstream`]), and Pingora connects to it, or takes a connection from its own pool.
//! 5. `upstream_request_filter`: the request is changed on its way up ([`policy::rewrite`], [`policy::headers`]), and
//!    its body follows ([`upload`]). When its last byte has passed `request_body_filter`, the response has a
//!    [`client::deadline`].
//! 6. `response_filter`: the response is changed on its way down, and perhaps compressed ([`policy::compression`]).
//!    Where it comes before the request is whole, it ends that ([`early_answer`]).
//!    Behind a 101 (Switching Protocols) it is bytes both ways from then on ([`websocket`]).
//! 7. When something fails, `fail_to_connect` and `error_while_proxy` decide whether another backend is
//!    tried ([`upstream::retry`]), and `fail_to_proxy` tells the client what went wrong ([`failure`]).
//!    A call of [`grpc`] has its outcome in the trailers that follow the body, and is answered in the same way
//!    where the gateway answers.
//! 8. `logging`: the request is counted, logged, and kept for a while with its timeline ([`books`], [`telemetry`]).
//!
//! A change of the configuration is a new [`live::Snapshot`] in the [`live::Store`], which requests that come later
//! start with. It comes from the file or from SIGHUP ([`live::Reloader`]), from the management API ([`admin`]), or
//! from a guarded rollout ([`live::Rollouts`]), and goes the same way each time.
//!
//! Around it: [`cli`] reads the command line, [`server`] puts the services on a Pingora server, [`process`] starts it,
//! ends it well, or hands its listeners to a new process (which [`lifetime`] tells everybody of), [`outgoing`]
//! asks servers that are no backends, [`secrets`] come from variables and [`files`], [`against`] says what a file would
//! change, and [`demo`] runs when nothing is configured.

pub mod admin;
pub mod admission;
pub mod against;
pub mod answering;
pub mod books;
pub mod cache_control;
pub mod cli;
pub mod client;
pub mod config;
pub mod ctx;
pub mod decimal;
pub mod demo;
pub mod downstream;
pub mod early_answer;
pub mod failure;
pub mod field_list;
pub mod files;
pub mod grpc;
pub mod http1;
pub mod lifetime;
pub mod listener;
pub mod live;
pub mod outgoing;
pub mod pace;
pub mod policy;
pub mod preference;
pub mod process;
pub mod proxy;
pub mod random;
pub mod reply;
pub mod route;
pub mod secrets;
pub mod server;
pub mod telemetry;
pub mod tls;
pub mod upload;
pub mod upstream;
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
