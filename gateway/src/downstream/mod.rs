//! The client's side of a request: its connection as a stream that is inspected before Pingora reads it, and what a
//! session says of the client.

pub mod bounds;
pub mod http1;
pub mod http2;
pub mod read_deadline;
pub mod request_limit;
pub mod session;
pub mod stream;
mod stream_traits;
mod write_rate;
