//! Joins cookies for backends that speak HTTP/1. An HTTP/2 client may send each cookie in a separate field,
//! which compresses better. HTTP/1 has one field for all cookies, so the gateway joins the fields again (RFC
//! 9113 8.2.3).

use bytes::BytesMut;
use http::{HeaderValue, header};
use pingora::Result;
use pingora::http::RequestHeader;

/// Joins several Cookie fields into one.
///
/// # Errors
/// Returns an error if Pingora refuses the field, which does not happen for this one.
pub fn join(request: &mut RequestHeader) -> Result<()> {
    let mut crumbs = request.headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return Ok(()) };
    let mut all = BytesMut::from(first.as_bytes());
    for crumb in std::iter::once(second).chain(crumbs) {
        all.extend_from_slice(b"; ");
        all.extend_from_slice(crumb.as_bytes());
    }
    match HeaderValue::from_maybe_shared(all.freeze()) {
        Ok(cookie) => request.insert_header(header::COOKIE, cookie),
        // Unreachable: valid field values joined by `; ` are a valid field value.
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crumbs_become_one_field() {
        for (crumbs, joined) in [
            (&[][..], None),
            (&["a=1"], Some("a=1")),
            (&["a=1", "b=2; c=3", "d=4"], Some("a=1; b=2; c=3; d=4")),
        ] {
            let mut request = RequestHeader::build("GET", b"/", None).unwrap();
            for crumb in crumbs {
                request.append_header(header::COOKIE, *crumb).unwrap();
            }
            join(&mut request).unwrap();
            let cookies: Vec<_> = request.headers.get_all(header::COOKIE).iter().collect();
            assert_eq!(cookies, joined.into_iter().collect::<Vec<_>>());
        }
    }
}
