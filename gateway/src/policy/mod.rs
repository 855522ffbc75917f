//! What the gateway does to requests and responses besides passing them on: one file a policy.
//!
//! A policy is compiled from its table in the configuration, takes plain parts rather than a session, and
//! knows no other policy.

pub mod forwarded;
pub mod headers;
pub mod rate_limit;
pub mod request_id;
pub mod rewrite;
pub mod signed_cookie;

use crate::reply::Reply;

/// What a policy decides about a request.
#[derive(Debug)]
pub enum Verdict<T = ()> {
    /// It goes on, with what the policy found out.
    Continue(T),
    /// It is answered here.
    Reply(Reply),
}
