//! Key for consistent hashing: a part of the request that is the same for each request of a client, or for each
//! request for a resource.

use std::net::IpAddr;

use pingora::http::RequestHeader;

use super::cookies;
use crate::config::HashKey;

/// Returns the hash key of a request. Falls back to the address of `client` if the request lacks the configured
/// part. `room` is a buffer for the bytes of the address.
pub fn of<'r>(
    key: &'r HashKey,
    request: &'r RequestHeader,
    client: Option<IpAddr>,
    room: &'r mut [u8; 16],
) -> &'r [u8] {
    let found = match key {
        HashKey::ClientIp => None,
        HashKey::Uri => request.uri.path_and_query().map(|uri| uri.as_str().as_bytes()),
        HashKey::Header(name) => request.headers.get(&name.0).map(|value| value.as_bytes()),
        HashKey::Cookie(name) => cookies(&request.headers, name).next().map(str::as_bytes),
    };
    found.unwrap_or_else(|| {
        *room = match client {
            Some(IpAddr::V4(client)) => client.to_ipv6_mapped().octets(),
            Some(IpAddr::V6(client)) => client.octets(),
            None => [0; 16],
        };
        room
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_its_part_of_the_request_or_the_client() {
        let mut request = RequestHeader::build("GET", b"/a?b=c", None).unwrap();
        request.insert_header("X-User", "ann").unwrap();
        request.insert_header("Cookie", "x=1; session=s1").unwrap();
        let client = Some(IpAddr::from([192, 0, 2, 1]));
        let key = |text: &str| {
            let key = HashKey::try_from(text.to_owned()).unwrap();
            of(&key, &request, client, &mut [0; 16]).to_vec()
        };
        assert_eq!(key("uri"), b"/a?b=c");
        assert_eq!(key("header:X-User"), b"ann");
        assert_eq!(key("cookie:session"), b"s1");
        assert_eq!(key("client_ip").len(), 16);
        assert_eq!(key("header:X-Other"), key("client_ip"));
        assert_eq!(key("cookie:sess"), key("client_ip"));
    }
}
