//! Cache control for responses with data for one client only, such as a cookie: no shared cache may store them.
//! `Set-Cookie` alone does not prevent caching (RFC 9111 7.3). A backend that marks its page as public does not know
//! that the gateway adds a cookie. Local replies are never cached: see `reply`.

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::Result;
use pingora::http::ResponseHeader;

use crate::util::field_list;

/// Field that shared caches read before `Cache-Control`, in addition to the fields of RFC 9213
/// (`…-CDN-Cache-Control`).
const SURROGATE_CONTROL: &str = "surrogate-control";

/// Prevents shared caches from storing the response.
///
/// # Errors
/// Returns an error if Pingora refuses the field, which does not happen for parts of a field that it has accepted.
pub fn keep_private(response: &mut ResponseHeader) -> Result<()> {
    for name in targeted(&response.headers) {
        response.remove_header(&name);
    }
    match made_private(&response.headers) {
        Some(value) => response.insert_header(CACHE_CONTROL, value),
        None => Ok(()),
    }
}

/// Returns the `Cache-Control` value that prevents shared caches from storing a response with the fields `headers`.
/// Returns `None` if the present value already does so. Directives for the client's own cache are kept.
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

/// Returns the names of the fields that only shared caches read.
fn targeted(headers: &HeaderMap) -> Vec<HeaderName> {
    let is_targeted =
        |name: &&HeaderName| name.as_str().ends_with("cdn-cache-control") || *name == SURROGATE_CONTROL;
    headers.keys().filter(is_targeted).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_response_is_kept_out_of_shared_caches() {
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
