//! Clients that overload a connection. The gateway closes the connection or refuses its streams. Other clients
//! must not be affected, and the memory must stay within bounds.

use testkit::{Behaviour, Origin, eventually};

use super::{CLEARTEXT, start};
use crate::frames::{
    CONTINUATION, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frame, HEADERS, REFUSED_STREAM, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, Wire, block, get,
};
use crate::h2_peers::{connect, send};
use crate::support::{Gateway, Setup};

/// Largest growth of the process during a flood, in KiB.
const GROWTH: u64 = 64 * 1024;

/// Returns the head of a 431 response: `:status` (entry 8) and 431 in Huffman code, because the static table
/// has no such entry (RFC 7541 6.2.1).
fn too_large() -> (u8, Vec<u8>) {
    (HEADERS, vec![0x48, 0x83, 0x69, 0x90, 0xff])
}

/// A gateway, and the conditions that must hold after the flood.
struct Scene {
    origin: Origin,
    gateway: Gateway,
    bystander: h2::client::SendRequest<bytes::Bytes>,
    before: u64,
}

impl Scene {
    async fn new() -> Scene {
        let origin = Origin::start().await;
        let gateway = start(&origin, "").await;
        let bystander = connect(gateway.address).await;
        let scene = Scene { before: gateway.memory(), origin, gateway, bystander };
        scene.serves_others().await;
        scene
    }

    /// Checks that a connection which was open before the flood still works.
    async fn serves_others(&self) {
        let request = http::Request::get("http://web.test/").body(()).unwrap();
        assert_eq!(send(&self.bystander, request, "").await.unwrap().status, 200);
    }

    async fn end(self) {
        self.serves_others().await;
        let grown = self.gateway.memory().saturating_sub(self.before);
        assert!(grown < GROWTH, "it has grown by {grown} KiB");
        eventually!(self.gateway.metric("proxy_requests_active").await == 0.0);
        assert_eq!(self.origin.received().last().unwrap().uri.path(), "/");
        // Otherwise an attacker could fill the log.
        let logged = self.gateway.process.output();
        assert!(!logged.contains(" h2::") && !logged.contains(" pingora_"), "{logged}");
    }
}

/// Opens streams and sends `more` on each of them, as fast as possible, until the gateway closes the connection
/// or the test gives up. Returns the next stream id.
async fn open_and(wire: &mut Wire, more: impl Fn(u32) -> Frame) -> u32 {
    let mut stream = 1;
    for _ in 0..500 {
        let mut frames = Vec::new();
        for _ in 0..100 {
            frames.extend([Frame::head(stream, &get("web.test"), true), more(stream)]);
            stream += 2;
        }
        if !wire.send(&frames).await {
            break;
        }
    }
    stream
}

#[tokio::test]
async fn rapid_reset_ends_the_connection() {
    let scene = Scene::new().await;
    let mut wire = Wire::connect(scene.gateway.address).await;
    // CVE-2023-44487: open streams and reset them as fast as possible.
    let stream = open_and(&mut wire, |stream| Frame::reset(stream, 8)).await;
    let reason = wire.ended().await;
    assert!(reason.is_none_or(|reason| reason == ENHANCE_YOUR_CALM), "{reason:?}");
    assert!(stream < 100_000, "all of it was taken");
    scene.end().await;
}

#[tokio::test]
async fn continuation_without_end_ends_the_connection() {
    let scene = Scene::new().await;
    let mut wire = Wire::connect(scene.gateway.address).await;
    assert!(wire.send(&[Frame::new(HEADERS, END_STREAM, 1, block(&get("web.test")))]).await);
    let more = block(&[("x-more", &"x".repeat(8000))]);
    let mut sent = 0;
    while sent < 20_000 && wire.send(&[Frame::new(CONTINUATION, 0, 1, more.clone())]).await {
        sent += 1;
    }
    let _ = wire.ended().await;
    assert!(sent < 20_000, "all of it was taken");
    scene.end().await;

    // Empty frames cost only time, so the gateway must count them.
    let scene = Scene::new().await;
    let mut wire = Wire::connect(scene.gateway.address).await;
    assert!(wire.send(&[Frame::new(HEADERS, END_STREAM, 1, block(&get("web.test")))]).await);
    let empty = vec![Frame::new(CONTINUATION, 0, 1, []); 100];
    let mut sent = 0;
    while sent < 10_000 && wire.send(&empty).await {
        sent += 1;
    }
    let _ = wire.ended().await;
    assert!(sent < 10_000, "all of it was taken");
    scene.end().await;
}

#[tokio::test]
async fn a_head_must_come_whole_in_its_time() {
    let origin = Origin::start().await;
    let proxy = format!("{CLEARTEXT}header_timeout_secs = 1\n");
    let gateway = Gateway::start(&[&origin], Setup { proxy: &proxy, ..Setup::default() }).await;
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(&[Frame::head(1, &get("web.test"), true)]).await;
    assert_eq!(wire.status(1).await, 200);
    // h2 limits the number of frames, but it would wait for the next frame without a timeout.
    let more = Frame::new(CONTINUATION, 0, 3, block(&[("x-more", "x")]));
    wire.send(&[Frame::new(HEADERS, END_STREAM, 3, block(&get("web.test"))), more]).await;
    wire.ended().await;
}

#[tokio::test]
async fn a_header_list_that_is_too_large_is_refused() {
    let scene = Scene::new().await;
    let mut wire = Wire::connect(scene.gateway.address).await;
    let settings = wire.find(|frame| frame.kind == SETTINGS && frame.flags == 0).await.unwrap();
    let setting = |id: u16| {
        let mut settings = settings.payload.chunks(6);
        settings.find_map(|pair| (pair[..2] == id.to_be_bytes()).then(|| pair[2..].try_into().unwrap()))
    };
    assert_eq!(setting(6).map(u32::from_be_bytes), Some(64 * 1024), "the largest header list is announced");
    assert_eq!(setting(3).map(u32::from_be_bytes), Some(100), "and so is how many streams there may be");
    let fill = "x".repeat(15_000);
    let mut frames = vec![Frame::new(HEADERS, END_STREAM, 1, block(&get("web.test")))];
    for part in 0..5 {
        let flags = if part == 4 { END_HEADERS } else { 0 };
        frames.push(Frame::new(CONTINUATION, flags, 1, block(&[("x-fill", &fill)])));
    }
    assert!(wire.send(&frames).await);
    let answer = wire.find(|frame| frame.stream == 1).await;
    assert_eq!(answer.map(|frame| (frame.kind, frame.payload)), Some(too_large()));
    scene.end().await;
}

#[tokio::test]
async fn streams_beyond_a_hundred_are_refused() {
    let scene = Scene::new().await;
    scene.origin.behave(Behaviour::Stall);
    let mut wire = Wire::connect(scene.gateway.address).await;
    wire.find(|frame| frame.kind == SETTINGS && frame.flags == 0).await.unwrap();
    let open = |stream: u32| Frame::head(stream, &get("web.test"), true);
    assert!(wire.send(&(0..100).map(|i| open(2 * i + 1)).collect::<Vec<_>>()).await);
    eventually!(scene.gateway.metric("proxy_requests_active").await == 100.0);
    assert!(wire.send(&(100..110).map(|i| open(2 * i + 1)).collect::<Vec<_>>()).await);
    for _ in 0..10 {
        let answer = wire.find(|frame| frame.stream != 0).await.unwrap();
        assert!(answer.stream > 200, "{answer:?}");
        assert_eq!((answer.kind, answer.reason()), (RST_STREAM, REFUSED_STREAM));
    }
    drop(wire);
    scene.origin.behave(Behaviour::Answer);
    scene.end().await;
}

#[tokio::test]
async fn resets_that_the_gateway_is_made_to_send_end_the_connection() {
    let scene = Scene::new().await;
    let mut wire = Wire::connect(scene.gateway.address).await;
    // RUSTSEC-2025-0070 (CVE-2025-8671): the client opens streams and breaks a rule on each, so that the
    // gateway must reset them.
    let too_much = |stream| Frame::new(WINDOW_UPDATE, 0, stream, i32::MAX.to_be_bytes());
    let stream = open_and(&mut wire, too_much).await;
    let reason = wire.ended().await;
    assert!(reason.is_none_or(|reason| reason == ENHANCE_YOUR_CALM), "{reason:?}");
    assert!(stream < 100_000, "all of it was taken");
    scene.end().await;
}

#[tokio::test]
async fn a_small_block_does_not_become_a_large_header_list() {
    let scene = Scene::new().await;
    // CVE-2026-105297: one field is stored in the dynamic table (RFC 7541 6.2.1) and then repeated with one
    // byte each time (6.1). A block of 15 KB stands for 45 MB.
    let fields = block(&get("web.test"));
    let mut stored = block(&[("x-bomb", &"x".repeat(3000))]);
    stored[0] = 0x40;
    for times in [30, 1000, 11_000].repeat(10) {
        let bomb = [fields.clone(), stored.clone(), vec![0x80 | 62; times]].concat();
        let mut wire = Wire::connect(scene.gateway.address).await;
        assert!(wire.send(&[Frame::new(HEADERS, END_HEADERS | END_STREAM, 1, bomb)]).await);
        // A list that is only a little too large gets 431. A larger one ends the connection.
        let answer = wire.find(|frame| frame.stream == 1).await.map(|frame| (frame.kind, frame.payload));
        assert!(answer.as_ref().is_none_or(|answer| *answer == too_large()), "{times} times: {answer:?}");
        assert!(answer.is_some() || times > 30, "it ended without a word");
    }
    assert!(scene.origin.received().iter().all(|request| !request.headers.contains_key("x-bomb")));
    scene.end().await;
}
