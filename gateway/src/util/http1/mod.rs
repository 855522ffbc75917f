//! Framing of HTTP/1 messages (RFC 9112). The gateway checks it in both directions before Pingora parses a
//! message. A message that two parsers could understand differently is sent neither to a backend nor to a
//! client.

pub(crate) mod body;
pub(crate) mod bytes;
pub mod chunked;
pub(crate) mod field;
pub(crate) mod read_ahead;

/// Reason why a message is refused, in words for the sender of the message.
pub type Fault = &'static str;
