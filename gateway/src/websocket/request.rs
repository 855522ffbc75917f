//! Detection of requests for a WebSocket. Other requests with an `Upgrade` field are ordinary requests.

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{Method, Version};
use pingora::http::RequestHeader;

use crate::util::field_list;

/// Returns true if `request` asks for a WebSocket (RFC 6455 4.1). A request for another protocol, or in another form,
/// is an ordinary request: a server may ignore `Upgrade` (RFC 9110 7.8), and the gateway does so.
pub fn is_asked_for(request: &RequestHeader) -> bool {
    let mut protocols = field_list::members(&request.headers, UPGRADE);
    let is_websocket = protocols.next().is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
    let has_body = || {
        let length = request.headers.get(CONTENT_LENGTH);
        length.is_some_and(|length| length != "0") || request.headers.contains_key(TRANSFER_ENCODING)
    };
    is_websocket
        && protocols.next().is_none()
        && request.version == Version::HTTP_11
        && request.method == Method::GET
        && field_list::has(&request.headers, CONNECTION, "upgrade")
        && !has_body()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, version: Version, fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build(method, b"/", None).unwrap();
        request.set_version(version);
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    #[test]
    fn only_requests_as_in_rfc_6455_ask_for_a_websocket() {
        let (connection, upgrade) = (("Connection", "Upgrade"), ("Upgrade", "websocket"));
        for (asks, fields) in [
            (true, &[connection, upgrade][..]),
            (true, &[("Connection", "keep-alive, upgrade"), ("Upgrade", "WebSocket")]),
            (true, &[connection, upgrade, ("Content-Length", "0")]),
            (true, &[("Connection", ", Upgrade,"), ("Upgrade", "websocket,")]),
            (true, &[connection, upgrade, ("Upgrade", "")]),
            (false, &[upgrade]),
            (false, &[connection, ("Upgrade", ",")]),
            (false, &[("Connection", "keep-alive"), upgrade]),
            (false, &[connection, ("Upgrade", "h2c")]),
            (false, &[connection, ("Upgrade", "h2c, websocket")]),
            (false, &[connection, upgrade, upgrade]),
            (false, &[connection, upgrade, ("Content-Length", "5")]),
            (false, &[connection, upgrade, ("Transfer-Encoding", "chunked")]),
        ] {
            assert_eq!(is_asked_for(&request("GET", Version::HTTP_11, fields)), asks, "{fields:?}");
        }
        let fields = [connection, upgrade];
        assert!(!is_asked_for(&request("POST", Version::HTTP_11, &fields)));
        assert!(!is_asked_for(&request("GET", Version::HTTP_10, &fields)));
        assert!(!is_asked_for(&request("GET", Version::HTTP_2, &fields)));
    }
}
