//! WebSockets over HTTP/2: there is no Upgrade, and the gateway does not offer Extended CONNECT (RFC 8441).

use testkit::Origin;

use super::over;
use crate::frames::{END_HEADERS, Frame, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, Wire, block};

/// SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 3).
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

#[tokio::test]
async fn extended_connect_is_not_offered_and_refused_without_harm() {
    let origin = Origin::start().await;
    let gateway = over(origin.address(), "http2_cleartext = true", "").await;
    let mut wire = Wire::connect(gateway.address).await;
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/ws"),
        (":authority", "web.test"),
    ];
    let ping = Frame::new(PING, 0, 0, *b"all well");
    assert!(wire.send(&[Frame::new(HEADERS, END_HEADERS, 1, block(&fields)), ping]).await);
    let (mut refused, mut alive) = (false, false);
    while !(refused && alive) {
        let frame = wire.next().await.unwrap();
        match (frame.kind, frame.stream) {
            (SETTINGS, _) => {
                let keys =
                    frame.payload.chunks(6).map(|setting| u16::from_be_bytes([setting[0], setting[1]]));
                assert!(keys.into_iter().all(|key| key != ENABLE_CONNECT_PROTOCOL));
            }
            (RST_STREAM, 1) => refused = true,
            (HEADERS, 1) => panic!("answered: {frame:?}"),
            (GOAWAY, _) => panic!("the whole connection is refused: {frame:?}"),
            (PING, _) => alive = frame.payload == b"all well",
            _ => {}
        }
    }
    assert!(origin.received().is_empty());
}
