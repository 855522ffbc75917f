//! Helpers for tests on real sockets: upstreams that misbehave on request ([`Origin`]) or violate HTTP itself
//! ([`Faulty`]), a DNS server ([`Dns`]), proxies in this process ([`serve()`]) or in a child process
//! ([`Process`]), a [`Client`] that never waits longer than [`DEADLINE`], [`eventually!`] in place of sleeps,
//! and certificates ([`tls`]). For exercises there is [`expect!`], whose failures tell a learner what to do.
//!
//! A helper that cannot do its work panics with a clear message, which ends the test.

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
