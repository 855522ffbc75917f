//! An id for every request: sent up, returned to the client and logged, so that all of them can be found
//! again by it. What a client sends as `X-Request-Id` is not believed; it could be anybody's.

use http::HeaderValue;
use uuid::{NoContext, Timestamp, Uuid};

pub use crate::reply::X_REQUEST_ID;

/// A new id: a UUIDv7 (RFC 9562 5.7), so that ids sort by time. Made without the library's shared counter,
/// which would take a lock.
pub fn generate() -> HeaderValue {
    let id = Uuid::new_v7(Timestamp::now(NoContext));
    let mut buffer = Uuid::encode_buffer();
    let text: &str = id.hyphenated().encode_lower(&mut buffer);
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("none"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn text(id: &HeaderValue) -> &str {
        id.to_str().unwrap()
    }

    #[test]
    fn ids_are_uuids_and_never_the_same() {
        let ids: HashSet<String> = (0..1000).map(|_| text(&generate()).to_owned()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| Uuid::parse_str(id).is_ok_and(|id| id.get_version_num() == 7)));
    }
}
