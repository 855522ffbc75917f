//! What tests on real sockets need, and nothing else: upstreams that misbehave on request ([`Origin`])
//! or that break HTTP itself ([`Faulty`]), a DNS server ([`Dns`]), proxies run in this process ([`serve()`]) or as a child ([`Process`]), a [`Client`] that never waits
//! longer than [`DEADLINE`], [`eventually!`] in place of sleeps, certificates ([`tls`]), and for exercises
//! [`expect!`], whose failures tell a learner what to do.
//!
//! These helpers panic with a clear message where the test's world is broken: that is how a test ends.

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
pub use origin::{Behaviour, Origin, Received};
pub use process::{Process, free_address};
pub use serve::{Background, ServedProxy, background, serve, serve_on};

/// The longest that any helper waits before it fails the test.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// How often a condition is looked at again.
#[doc(hidden)]
pub const POLL: Duration = Duration::from_millis(10);

/// Waits until an expression (which may `.await`) is true, and fails the test if it is still false
/// after [`DEADLINE`], or after the duration given first as `within`.
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
