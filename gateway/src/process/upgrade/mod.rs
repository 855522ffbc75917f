//! Binary upgrade: replaces the process without a moment in which no process listens. `gateway run --upgrade` takes the
//! listeners over from the running gateway.
//!
//! The successor waits on a Unix socket ([`socket`]). On SIGQUIT, the running gateway connects to that socket and sends
//! all its listening sockets ([`hand_over()`]). It keeps them as well, and continues to serve. The successor starts on
//! them ([`TakeOver`], [`Listeners`]), and says "ready" once its accept loops run. The old process then tells it to go
//! ahead, and stops as on SIGTERM, but without haste for idle connections. If a step before that fails, the old process
//! continues to serve as before.
//!
//! Pingora has a hand-over of listeners too. It is not used, for three reasons. There, the old process ends even if the
//! hand-over has failed, the socket is open to every user, and no process checks that the successor serves.

mod hand_over;
mod listeners;
pub mod socket;
mod take_over;
mod wire;

pub use hand_over::{HandOverError, hand_over};
pub use listeners::{Listener, Listeners};
pub use take_over::{Confirmed, TakeOver, TakeOverError};
