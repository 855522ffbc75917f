//! Binary upgrade: replaces the process without a moment in which no process listens. `gateway run --upgrade` takes the
//! listeners over from the running gateway.
//!
//! The successor waits on a Unix socket ([`socket`]). On SIGQUIT, the running gateway connects to that socket and
//! sends all its listening sockets ([`hand_over()`]). The running gateway keeps the sockets open, and continues to
//! serve. The successor starts on them ([`TakeOver`], [`Listeners`]), and says "ready" when its accept loops run. The
//! old process then confirms the takeover, and stops as on SIGTERM, but leaves idle connections more time. If an
//! earlier step fails, the old process continues to serve.
//!
//! Pingora can also hand over listeners. The gateway does not use this: with Pingora, the old process ends even if
//! the hand-over fails, the socket is open to every user, and no process checks that the successor serves.

mod hand_over;
mod listeners;
pub mod socket;
mod take_over;
mod wire;

pub use hand_over::{HandOverError, hand_over};
pub use listeners::{Listener, Listeners};
pub use take_over::{Confirmed, TakeOver, TakeOverError};
