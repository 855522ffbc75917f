//! Replacing the process without a moment in which nobody listens: `gateway run --upgrade` takes the listeners
//! over from the gateway that runs.
//!
//! The successor waits on a Unix socket ([`place`]). On SIGQUIT the running gateway connects to it and sends all
//! listening sockets ([`hand_over()`]); it keeps them as well, and keeps serving. The successor starts on them
//! ([`TakeOver`], [`Listeners`]), says "ready" once its accept loops run, and is told to go ahead; only then does the
//! old process stop, as on SIGTERM but without haste towards idle connections. Whatever goes wrong before, the old
//! one serves on as if nothing had happened.
//!
//! Pingora has a transfer of its own. It is not used: there the old process ends even where the hand-over has failed,
//! the socket is open to every user, and nobody asks whether the successor serves.

mod hand_over;
mod listeners;
mod peer;
pub mod socket;
mod take_over;
mod wire;

pub use hand_over::{HandOverError, hand_over};
pub use listeners::{Listener, Listeners};
pub use take_over::{Confirmed, TakeOver, TakeOverError};
