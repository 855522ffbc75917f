//! Client's side of the gateway: a client's connection, as a stream that inspects each request before Pingora reads it,
//! and helpers for the client's side of a Pingora session.

pub mod bounds;
mod deadline;
pub mod http1;
pub mod http2;
pub mod read_deadline;
pub mod request_limit;
pub mod session;
pub mod stream;
mod write_rate;
