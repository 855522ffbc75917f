//! Responses that bear something for one client alone, such as a cookie: no cache may keep them for others. A
//! `Set-Cookie` says nothing about that by itself (RFC 9111 7.3), and a backend that calls its page public knows nothing
//! of a cookie that is added behind it. (Local replies are kept by no cache at all: see `reply`.)

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::Result;
use pingora::http::ResponseHeader;

use crate::util::field_list;

/// What shared caches look at before `Cache-Control`, beside the fields of RFC 9213 (`…-CDN-Cache-Control`).
const SURROGATE_CONTROL: &str = "surrogate-control";

/// Tells caches that this response is for its client alone.
///
/// # Errors
/// Where Pingora refuses the field, which it does not do for parts of one that it has accepted.
pub fn keep_private(response: &mut ResponseHeader) -> Result<()> {
    for name in targeted(&response.headers) {
        response.remove_header(&name);
    }
    match made_private(&response.headers) {
        Some(value) => response.insert_header(CACHE_CONTROL, value),
        None => Ok(()),
    }
}

/// Returns the `Cache-Control` that keeps a response with these fields out of shared caches; `None` where it stays out of
/// them as it is. What it says for the client's own cache remains.
fn made_private(headers: &HeaderMap) -> Option<HeaderValue> {
    let says = |directive| field_list::has(headers, CACHE_CONTROL, directive);
    if says("private") || says("no-store") {
        return None;
    }
    let is_for_shared = |directive: &[u8]| {
        let name = directive.split(|byte| *byte == b'=').next().unwrap_or_default();
        name.eq_ignore_ascii_case(b"public") || name.eq_ignore_ascii_case(b"s-maxage")
    };
    let kept = field_list::members(headers, CACHE_CONTROL).filter(|directive| !is_for_shared(directive));
    let directives: Vec<&[u8]> = kept.chain([&b"private"[..]]).collect();
    Some(HeaderValue::from_bytes(&directives.join(&b", "[..])).unwrap_or(HeaderValue::from_static("private")))
}

/// The fields that speak to shared caches alone.
fn targeted(headers: &HeaderMap) -> Vec<HeaderName> {
    let is_targeted =
        |name: &&HeaderName| name.as_str().ends_with("cdn-cache-control") || *name == SURROGATE_CONTROL;
    headers.keys().filter(is_targeted).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_clients_own_cache_may_keep_it() {
        for (lines, expected) in [
            (&[][..], "private"),
            (&["public, max-age=60"], "max-age=60, private"),
            (&["Public,S-MaxAge=90", "max-age=60"], "max-age=60, private"),
            (&["public"], "private"),
            (&["max-age=60, Private"], "max-age=60, Private"),
            (&["no-store"], "no-store"),
            (&["private=\"x, set-cookie\", public"], "private=\"x, set-cookie\", private"),
            (&["no-cache", ""], "no-cache, private"),
        ] {
            let mut response = ResponseHeader::build(200, None).unwrap();
            for line in lines {
                response.append_header(CACHE_CONTROL, *line).unwrap();
            }
            for targeted in ["CDN-Cache-Control", "Example-CDN-Cache-Control", "Surrogate-Control"] {
                response.append_header(targeted, "max-age=600").unwrap();
            }
            keep_private(&mut response).unwrap();
            let found: Vec<_> = response.headers.iter().map(|(_, value)| value.to_str().unwrap()).collect();
            assert_eq!(found, [expected], "{lines:?}");
        }
    }
}
