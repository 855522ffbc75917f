//! Refusal of a request that is not valid HTTP/1.

use crate::reply::Problem;
use crate::util::http1::Fault;

/// Refusal of an HTTP/1 request: the problem that the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Problem type of the reply.
    pub problem: Problem,
    /// Description of the problem, for the client.
    pub detail: &'static str,
}

impl Refusal {
    /// Returns a refusal with 400 (Bad Request).
    pub(super) const fn bad(detail: Fault) -> Self {
        Refusal { problem: Problem::BadRequest, detail }
    }
}
