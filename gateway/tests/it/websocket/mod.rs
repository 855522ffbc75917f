//! WebSockets through the gateway.

mod bytes;
mod raw;
