//! The framing of HTTP/1 messages (RFC 9112), which the gateway checks in both directions before Pingora reads them:
//! what two readers could read in two ways goes neither to a backend nor to a client.

pub(crate) mod body;
pub(crate) mod bytes;
pub mod chunked;
pub(crate) mod field;
pub(crate) mod read_ahead;

/// What is wrong with a message, in words for its sender.
pub type Fault = &'static str;
