//! Helpers for tests on real sockets: upstreams that misbehave on request ([`Origin`]) or violate HTTP itself
//! ([`Faulty`]), a DNS server ([`Dns`]), proxies in this process ([`serve()`]) or in a child process
//! ([`Process`]), a [`Client`] that never waits longer than [`DEADLINE`], [`eventually!`] in place of sleeps,
//! and certificates ([`tls`]). For exercises there is [`expect!`], whose failures tell a learner what to do.
//!
//! A helper that cannot do its work panics with a clear message, which ends the test.
//!
//! # Testing a proxy of your own
//!
//! A proxy is tested best from outside: a real client sends a request, a real upstream records what arrives,
//! and the test compares both with what you expect. `testkit` is a dev-dependency. In a workspace of your own,
//! name the repository (or a path) and the same version of Pingora:
//!
//! ```text
//! [dev-dependencies]
//! testkit = { path = "../pingora-proxy-samples/docs/testkit" }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//! ```
//!
//! A first test has an upstream, your proxy in front of it, and a client. All of them are on free ports of
//! loopback, so tests can run at the same time, and all of them end with the test.
//!
//! ```text
//! #[tokio::test]
//! async fn request_is_forwarded_with_an_id() {
//!     let origin = Origin::start().await;
//!     let proxy = serve(MyProxy { upstream: origin.address() });
//!     let answer = Client::new().get(proxy.url("/anything/orders")).await;
//!     assert_eq!(answer.status, 200);
//!     assert_ne!(origin.received()[0].header("x-request-id"), "");
//! }
//! ```
//!
//! `/anything/…` of an [`Origin`] answers every request. The other paths are in the documentation of the crate
//! `origin`. Then ask what your proxy does when something goes wrong:
//!
//! | question | helper |
//! |---|---|
//! | The upstream refuses connections, or comes back later | [`Origin::dead`], [`Origin::die`], [`Origin::revive`] |
//! | It never answers, resets the connection, or answers 500 | [`Origin::behave`] with a [`Behaviour`] |
//! | Its response breaks in the middle, or is not HTTP | [`Faulty`] with a [`Fault`] |
//! | The client sends what no library sends | [`exchange()`], [`converse()`] with raw bytes |
//! | Clients have several addresses | [`exchange_from()`] with an address in 127.0.0.0/8 |
//! | The proxy speaks TLS, or the upstream does | [`serve_on()`], [`tls::Authority`], [`Origin::start_tls`] |
//! | A background service changes what the proxy does | [`background()`], then [`eventually!`] |
//! | The program has signals, arguments, or a log | [`Process`] |
//! | A name has other addresses than before | [`Dns`] |
//!
//! Four rules keep such tests fast and honest:
//!
//! 1. Do not sleep. Wait for what you expect, with [`eventually!`]. A sleep is too short on a busy machine and
//!    too long on every other one.
//! 2. Do not choose a port. Ask for a free one, as every helper here does. A port that must refuse connections
//!    stays reserved ([`dead_address()`]).
//! 3. Look at both sides. A status of 200 does not say which upstream has answered, how often it was asked, or
//!    what it got.
//! 4. See the test fail. Break the proxy on purpose, and read the message. A test that passes with a broken
//!    proxy tests nothing.

#![allow(clippy::panic, reason = "a helper that cannot help ends the test")]

mod client;
mod dns;
mod faulty;
pub mod lesson;
mod origin;
mod process;
mod serve;
pub mod tls;

use std::time::Duration;

pub use client::{Client, Response, converse, exchange, exchange_from, exchange_over};
pub use dns::{Dns, Failure, Service};
pub use faulty::{Fault, Faulty, Health};
pub use nix::sys::signal::Signal;
pub use origin::{Behaviour, Origin, Received, dead_address};
pub use process::{Process, free_address};
pub use serve::{Background, ServedProxy, background, serve, serve_on};

/// Maximum time that a helper waits before it fails the test.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// Interval between two checks of a condition.
#[doc(hidden)]
pub const POLL: Duration = Duration::from_millis(10);

/// Waits until an expression (which may `.await`) is true. Fails the test if it is still false after
/// [`DEADLINE`], or after the duration that is given first as `within`.
///
/// ```text
/// eventually!(origin.received().len() == 3);
/// eventually!(within Duration::from_secs(20), backend.is_healthy(), "the backend never came back");
/// ```
#[macro_export]
macro_rules! eventually {
    (within $deadline:expr, $condition:expr, $($message:tt)+) => {{
        let until = ::std::time::Instant::now() + $deadline;
        while !$condition {
            assert!(::std::time::Instant::now() < until, $($message)+);
            ::tokio::time::sleep($crate::POLL).await;
        }
    }};
    (within $deadline:expr, $condition:expr) => {
        $crate::eventually!(
            within $deadline, $condition, "not within {:?}: {}", $deadline, stringify!($condition)
        )
    };
    ($condition:expr, $($message:tt)+) => {
        $crate::eventually!(within $crate::DEADLINE, $condition, $($message)+)
    };
    ($condition:expr) => {
        $crate::eventually!(within $crate::DEADLINE, $condition)
    };
}
