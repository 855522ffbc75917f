//! Over HTTP/2 there is no Upgrade, and Extended CONNECT (RFC 8441) is not offered.

use testkit::Origin;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::over;
use crate::http2_frames::{
    END_HEADERS, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, fields_block, frame, read_frame,
};

/// SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 3).
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

#[tokio::test]
async fn extended_connect_is_not_offered_and_refused_without_harm() {
    let origin = Origin::start().await;
    let gateway = over(origin.address(), "http2_cleartext = true", "").await;
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/ws"),
        (":authority", "web.test"),
    ];
    let mut opening = PREFACE.to_vec();
    opening.extend(frame(SETTINGS, 0, 0, &[]));
    opening.extend(frame(HEADERS, END_HEADERS, 1, &fields_block(&fields)));
    opening.extend(frame(PING, 0, 0, b"all well"));
    client.write_all(&opening).await.unwrap();
    let (mut refused, mut alive) = (false, false);
    while !(refused && alive) {
        match read_frame(&mut client).await {
            (SETTINGS, _, payload) => {
                let keys = payload.chunks(6).map(|setting| u16::from_be_bytes([setting[0], setting[1]]));
                assert!(keys.into_iter().all(|key| key != ENABLE_CONNECT_PROTOCOL));
            }
            (RST_STREAM, 1, _) => refused = true,
            (HEADERS, 1, block) => panic!("answered: {block:?}"),
            (GOAWAY, _, payload) => panic!("the whole connection is refused: {payload:?}"),
            (PING, _, payload) => alive = payload == b"all well",
            _ => {}
        }
    }
    assert!(origin.received().is_empty());
}
