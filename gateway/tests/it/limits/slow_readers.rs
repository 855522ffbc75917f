//! Clients that do not read the responses to their requests.

use testkit::{Origin, eventually};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{met, open, start};
use crate::frames::{END_HEADERS, END_STREAM, Frame, HEADERS, RST_STREAM, SETTINGS, Wire, block, get};

const WINDOW_UPDATE: u8 = 8;
const INITIAL_WINDOW_SIZE: u16 = 4;

const ONE_SECOND: &str = "send_timeout_secs = 1";

/// Returns a GET of a response that is larger than the socket buffers.
fn large(stream: u32) -> Frame {
    let mut fields = get("a");
    fields[3].1 = "/bytes/20000000";
    Frame::head(stream, &fields, true)
}

fn settings(window: u32) -> Frame {
    Frame::new(SETTINGS, 0, 0, [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &window.to_be_bytes()].concat())
}

fn window_update(stream: u32, by: u32) -> Frame {
    Frame::new(WINDOW_UPDATE, 0, stream, by.to_be_bytes())
}

#[tokio::test]
async fn http1_client_that_reads_nothing_is_disconnected() {
    let origin = Origin::start().await;
    let gateway = start(&origin, ONE_SECOND, "").await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(b"GET /bytes/20000000 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    eventually!(met(&gateway, "send_rate").await == 1.0);
    eventually!(open(&gateway).await == 0.0);
    eventually!(gateway.metric("proxy_requests_active").await == 0.0);
}

#[tokio::test]
async fn client_that_reads_in_time_gets_the_whole_response() {
    let origin = Origin::start().await;
    let gateway = start(&origin, ONE_SECOND, "").await;
    let answer = gateway.get("/bytes/20000000").await;
    assert_eq!(answer.body.len(), 20_000_000);
    assert_eq!(met(&gateway, "send_rate").await, 0.0);
}

#[tokio::test]
async fn http2_stream_without_or_with_tiny_window_is_reset() {
    let origin = Origin::start().await;
    let gateway = start(&origin, ONE_SECOND, "").await;
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(&[settings(0), large(1), large(3)]).await;
    let mut ended = [false; 2];
    while ended != [true; 2] {
        // The second stream gets a window of one byte at a time until it is reset.
        if !ended[1] {
            wire.send(&[window_update(3, 1)]).await;
        }
        let frame = wire.next().await.unwrap();
        ended[0] |= frame.kind == RST_STREAM && frame.stream == 1;
        ended[1] |= frame.kind == RST_STREAM && frame.stream == 3;
    }
    assert_eq!(met(&gateway, "send_rate").await, 2.0);
    // The connection must still serve other streams.
    wire.send(&[settings(65_535), Frame::head(5, &get("a"), true)]).await;
    assert_eq!(wire.status(5).await, 200);
}

#[tokio::test]
async fn unread_streams_do_not_block_a_shared_backend_connection() {
    const STREAMS: usize = 90;
    let origin = Origin::start().await;
    let gateway = start(&origin, "", "[upstream]\nprotocol = \"http2\"\n").await;
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(&[settings(0)]).await;
    for n in 0..STREAMS as u32 {
        // The test waits for the head of each response, because then the connection to the backend can be shared.
        wire.send(&[large(2 * n + 1)]).await;
        assert!(wire.find(|frame| frame.kind == HEADERS).await.is_some());
    }
    assert_eq!(gateway.get("/bytes/1000000").await.body.len(), 1_000_000);
    assert_eq!(gateway.metric("proxy_backend_connections_total{backend=\"origin-0\"}").await, 1.0);
    assert_eq!(gateway.metric("proxy_requests_active").await, STREAMS as f64);
}

#[tokio::test]
async fn unread_http2_connection_ends_despite_open_windows() {
    let origin = Origin::start().await;
    let gateway = start(&origin, ONE_SECOND, "").await;
    let mut wire = Wire::connect(gateway.address).await;
    let most = i32::MAX as u32;
    let requests: Vec<Frame> = (0..20).map(|n| large(2 * n + 1)).collect();
    wire.send(&[settings(most), window_update(0, most - 65_535)]).await;
    wire.send(&requests).await;
    eventually!(met(&gateway, "send_rate").await >= 1.0);
    eventually!(open(&gateway).await == 0.0);
    eventually!(gateway.metric("proxy_requests_active").await == 0.0);
}

#[tokio::test]
async fn a_head_of_http2_that_never_ends_does_not_keep_its_connection() {
    let origin = Origin::start().await;
    let gateway = start(&origin, "keepalive_timeout_secs = 1", "").await;
    let fields = block(&get("a"));
    let frame = Frame::new(HEADERS, END_STREAM | END_HEADERS, 1, fields).bytes();
    // The client stops in the middle of the frame.
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let begin =
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &Frame::new(SETTINGS, 0, 0, []).bytes()[..], &frame[..20]];
    stream.write_all(&begin.concat()).await.unwrap();
    eventually!(open(&gateway).await == 1.0);
    eventually!(open(&gateway).await == 0.0);
    assert!(origin.received().is_empty());

    // The client stops between two frames of one head.
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(&[Frame::new(HEADERS, END_STREAM, 1, block(&get("a")))]).await;
    // The connection is idle, so the client gets a GOAWAY.
    assert!(wire.ended().await.is_none_or(|reason| reason == 0));
    assert!(origin.received().is_empty());
}
