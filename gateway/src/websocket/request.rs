//! Is it a request for a WebSocket?

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{Method, Version};
use pingora::http::RequestHeader;

/// Whether `request` asks for a WebSocket (RFC 6455 4.1). What asks for another protocol, or asks in another way,
/// is a request like any other: a server may ignore Upgrade (RFC 9110 7.8), and this one does.
pub fn is_asked_for(request: &RequestHeader) -> bool {
    let upgrade = request.headers.get_all(UPGRADE);
    let mut upgrade = upgrade.iter();
    let is_websocket = upgrade.next().is_some_and(|value| is(value.as_bytes(), b"websocket"));
    let is_option = || {
        let options = request.headers.get_all(CONNECTION).into_iter();
        options.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).any(|it| is(it, b"upgrade"))
    };
    let has_body = || {
        let length = request.headers.get(CONTENT_LENGTH);
        length.is_some_and(|length| length != "0") || request.headers.contains_key(TRANSFER_ENCODING)
    };
    is_websocket
        && upgrade.next().is_none()
        && request.version == Version::HTTP_11
        && request.method == Method::GET
        && is_option()
        && !has_body()
}

fn is(value: &[u8], expected: &[u8]) -> bool {
    value.trim_ascii().eq_ignore_ascii_case(expected)
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
    fn only_what_asks_in_the_way_of_the_rfc_asks() {
        let (connection, upgrade) = (("Connection", "Upgrade"), ("Upgrade", "websocket"));
        for (asks, fields) in [
            (true, &[connection, upgrade][..]),
            (true, &[("Connection", "keep-alive, upgrade"), ("Upgrade", "WebSocket")]),
            (true, &[connection, upgrade, ("Content-Length", "0")]),
            (false, &[upgrade]),
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
