//! Client's side of a request: the client's connection, as a stream that inspects each request before Pingora reads
//! it, and helpers for a Pingora session that concern the client.

pub mod bounds;
mod deadline;
pub mod http1;
pub mod http2;
pub mod read_deadline;
pub mod request_limit;
pub mod session;
pub mod stream;
mod write_rate;
