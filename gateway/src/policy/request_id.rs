//! Request ids. The gateway sends the id to the backend, returns it to the client and logs it, so that a
//! request can be found by its id. An `X-Request-Id` from the client is ignored, because a client could choose
//! the id of another request.

use http::HeaderValue;
use uuid::{NoContext, Timestamp, Uuid};

pub use crate::reply::X_REQUEST_ID;

/// Returns a new id: a UUIDv7 (RFC 9562 5.7), because such ids sort by time. The library's shared counter is
/// not used, because it takes a lock.
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
    fn ids_are_unique_uuids_of_version_7() {
        let ids: HashSet<String> = (0..1000).map(|_| text(&generate()).to_owned()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| Uuid::parse_str(id).is_ok_and(|id| id.get_version_num() == 7)));
    }
}
