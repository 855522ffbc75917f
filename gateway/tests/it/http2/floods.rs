//! Clients that ask for too much of a connection: it ends, or their streams are refused. Whoever else is there
//! does not notice, and the memory stays within bounds.

use testkit::{Behaviour, Origin, eventually};

use super::start;
use crate::frames::{
    CONTINUATION, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frame, HEADERS, REFUSED_STREAM, RST_STREAM,
    SETTINGS, Wire, block, get,
};
use crate::h2_peers::{connect, send};
use crate::support::Gateway;

/// What the process may grow by while it is flooded, in KiB.
const GROWTH: u64 = 64 * 1024;

/// The memory of the gateway, in KiB.
fn resident(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A gateway, and what must hold when the flood is over.
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
        let scene = Scene { before: resident(&gateway), origin, gateway, bystander };
        scene.serves_others().await;
        scene
    }

    /// On a connection that was open before.
    async fn serves_others(&self) {
        let request = http::Request::get("http://web.test/").body(()).unwrap();
        assert_eq!(send(&self.bystander, request, "").await.unwrap().status, 200);
    }

    async fn end(self) {
        self.serves_others().await;
        let grown = resident(&self.gateway).saturating_sub(self.before);
        assert!(grown < GROWTH, "it has grown by {grown} KiB");
        eventually!(self.gateway.metric("proxy_requests_active").await == 0.0);
        assert_eq!(self.origin.received().last().unwrap().uri.path(), "/");
    }
}

#[tokio::test]
async fn rapid_reset_ends_the_connection() {
    let scene = Scene::new().await;
    let mut wire = Wire::connect(scene.gateway.address).await;
    let mut stream = 1;
    // CVE-2023-44487: open and reset, as fast as can be.
    for _ in 0..500 {
        let mut frames = Vec::new();
        for _ in 0..100 {
            frames.push(Frame::head(stream, &get("web.test"), true));
            frames.push(Frame::reset(stream, 8));
            stream += 2;
        }
        if !wire.send(&frames).await {
            break;
        }
    }
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

    // Frames that are empty cost nothing but time, so it is they that are counted.
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
    // :status (entry 8), and 431 in Huffman's code, since the static table does not have it (RFC 7541 6.2.1).
    let payload = answer.map(|frame| (frame.kind, frame.payload));
    assert_eq!(payload, Some((HEADERS, vec![0x48, 0x83, 0x69, 0x90, 0xff])));
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
