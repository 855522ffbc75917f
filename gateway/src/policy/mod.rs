//! Policies that the gateway applies to the requests and responses that it forwards, one file for each policy.
//!
//! A policy is compiled from its table in the configuration. Its functions get parts of a request instead of a
//! session, and do not use any other policy.

pub mod access;
pub mod auth;
pub mod body_limit;
pub mod client_certificate;
pub mod compression;
pub mod connection_login;
pub mod content_length;
pub mod cookie_crumbs;
pub mod cors;
pub mod fault;
pub mod forwarded;
pub mod hash_key;
pub mod head_size;
pub mod headers;
pub mod https_redirect;
pub mod hygiene;
pub mod rate_limit;
pub mod redirect;
pub mod request_id;
pub mod rewrite;
pub mod security_headers;
pub mod signed_cookie;

use http::{HeaderMap, HeaderName, header};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

use crate::config::normalized_name;
pub use crate::reply::Verdict;
use crate::util::field_list;

/// Removes the fields for which `is_meant` returns true, in every spelling that a backend may accept:
/// `is_meant` gets each name as [`normalized_name`] returns it.
fn remove_where(request: &mut RequestHeader, is_meant: impl Fn(&str) -> bool) {
    // Most requests have no such field, so the vector rarely allocates memory.
    let meant: Vec<HeaderName> =
        request.headers.keys().filter(|name| is_meant(&normalized_name(name.as_str()))).cloned().collect();
    for name in &meant {
        request.remove_header(name);
    }
}

/// Returns the values of the cookies called `name` (RFC 6265 4.2.1).
fn cookies<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(move |(named, _)| *named == name).map(|(_, value)| value)
}

/// Adds the request field `field`, on which the response depends, to Vary (RFC 9110 12.5.5).
fn add_vary(response: &mut ResponseHeader, field: &'static str) -> Result<()> {
    let is_there = |name| field_list::has(&response.headers, header::VARY, name);
    if is_there("*") || is_there(field) {
        return Ok(());
    }
    response.append_header(header::VARY, field).map(|_| ())
}
