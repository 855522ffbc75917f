//! Over HTTP/2 there is no Upgrade, and Extended CONNECT (RFC 8441) is not offered.

use testkit::{DEADLINE, Origin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::over;

const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 3).
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// A frame (RFC 9113 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The kind, stream and payload of the next frame.
async fn read_frame(client: &mut TcpStream) -> (u8, u32, Vec<u8>) {
    let reading = async {
        let mut head = [0; 9];
        client.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        client.read_exact(&mut payload).await.unwrap();
        (head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload)
    };
    timeout(DEADLINE, reading).await.unwrap()
}

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
    // Each a literal without indexing (RFC 7541 6.2.2).
    let block: Vec<u8> = fields
        .iter()
        .flat_map(|(name, value)| {
            [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
        })
        .collect();
    let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    opening.extend(frame(SETTINGS, 0, 0, &[]));
    opening.extend(frame(HEADERS, 0x4, 1, &block));
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
