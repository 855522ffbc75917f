//! What the gateway does to requests and responses besides passing them on: one file a policy.
//!
//! A policy is compiled from its table in the configuration, takes plain parts rather than a session, and
//! knows no other policy.

pub mod client_certificate;
pub mod content_length;
pub mod cookie_crumbs;
pub mod fault;
pub mod forwarded;
pub mod hash_key;
pub mod head_size;
pub mod headers;
pub mod https_redirect;
pub mod hygiene;
pub mod rate_limit;
pub mod request_id;
pub mod rewrite;
pub mod security_headers;
pub mod signed_cookie;

use http::{HeaderMap, header};

pub use crate::reply::Verdict;

/// The values of the cookies called `name` (RFC 6265 4.2.1).
fn cookies<'h>(headers: &'h HeaderMap, name: &'h str) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(move |(named, _)| *named == name).map(|(_, value)| value)
}
