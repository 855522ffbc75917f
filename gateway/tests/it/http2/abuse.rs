//! Clients that start requests and do not want the responses (CVE-2023-44487, CVE-2025-8671). They use the most
//! expensive pace: the backend works on each wave of requests before it is reset. The tests count the requests
//! that reach the backend.

use std::time::Duration;

use testkit::{Behaviour, DEADLINE, Origin, POLL, eventually};
use tokio::time::{Instant, sleep};

use super::{CLEARTEXT, start};
use crate::frames::{
    DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frame, HEADERS, PING, PROTOCOL_ERROR, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, Wire, block, get,
};
use crate::h2_peers::{connect, send};
use crate::support::{Gateway, Setup};

const PRIORITY: u8 = 2;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;

/// Number of requests that may be reset before they are answered, plus one wave that may be on its way.
const RESETS: usize = 200 + WAVE;
/// Number of requests that may break a rule, plus one wave that may be on its way.
const FAULTS: usize = 64 + WAVE;
const WAVE: usize = 20;

fn series(limit: &str) -> String {
    format!("proxy_limits_exceeded_total{{limit=\"{limit}\"}}")
}

fn open(stream: u32) -> Frame {
    Frame::head(stream, &get("web.test"), true)
}

/// Opens waves of streams. When the backend works on a wave, sends `then` on each of its streams, and repeats
/// this until one of `limits` has ended the connection. Returns the number of requests that reached the
/// backend, less those that the budget allows over time, and the error code of the GOAWAY.
async fn waves(limits: &[&str], then: impl Fn(u32) -> Frame) -> (usize, Option<u32>) {
    const A_SECOND: usize = 10;
    let began = Instant::now();
    let origin = Origin::start().await;
    origin.behave(Behaviour::Stall);
    let gateway = start(&origin, "[circuit_breaker]\nenabled = false\n").await;
    let mut wire = Wire::connect(gateway.address).await;
    let mut stream = 1;
    let mut sent = 0;
    while sent < 1_000 && met(&gateway, limits).await == 0.0 {
        let wave: Vec<u32> = (0..WAVE as u32).map(|i| stream + 2 * i).collect();
        stream += 2 * WAVE as u32;
        wire.send(&wave.iter().map(|stream| open(*stream)).collect::<Vec<_>>()).await;
        sent += WAVE;
        let start = Instant::now();
        while origin.received().len() < sent && met(&gateway, limits).await == 0.0 {
            assert!(start.elapsed() < DEADLINE, "{limits:?}: {} of {sent}", origin.received().len());
            sleep(POLL).await;
        }
        wire.send(&wave.iter().map(|stream| then(*stream)).collect::<Vec<_>>()).await;
    }
    assert_eq!(met(&gateway, limits).await, 1.0);
    let reason = wire.ended().await;
    eventually!(gateway.metric("proxy_requests_active").await == 0.0);
    let received = origin.received().len();
    origin.behave(Behaviour::Answer);
    assert_eq!(gateway.get("/").await.status, 200);
    let given_back = A_SECOND * usize::try_from(began.elapsed().as_secs() + 1).unwrap();
    (received.saturating_sub(given_back), reason)
}

/// Returns the number of connections that exceeded one of these limits.
async fn met(gateway: &Gateway, limits: &[&str]) -> f64 {
    let mut met = 0.0;
    for limit in limits {
        met += gateway.metric(&series(limit)).await;
    }
    met
}

#[tokio::test]
async fn resets_during_backend_work_end_the_connection() {
    for reason in [CANCEL, 0] {
        let (received, ended) = waves(&["http2_resets"], |stream| Frame::reset(stream, reason)).await;
        assert_eq!(ended, Some(ENHANCE_YOUR_CALM));
        assert!(received <= RESETS, "{received} requests reached the backend");
    }
}

#[tokio::test]
async fn streams_that_the_gateway_must_reset_end_the_connection() {
    let itself = |stream: u32| [&stream.to_be_bytes()[..], &[1]].concat();
    let shapes: [(&str, &dyn Fn(u32) -> Frame); 6] = [
        ("a window that overflows", &|stream| Frame::new(WINDOW_UPDATE, 0, stream, i32::MAX.to_be_bytes())),
        ("a window by nothing", &|stream| Frame::new(WINDOW_UPDATE, 0, stream, [0; 4])),
        ("DATA behind the end", &|stream| Frame::new(DATA, 0, stream, *b"x")),
        ("a head behind the end", &|stream| open(stream)),
        ("a priority on itself", &|stream| Frame::new(PRIORITY, 0, stream, itself(stream))),
        ("capitals behind the end", &|stream| Frame::head(stream, &[("X-A", "b")], true)),
    ];
    for (name, then) in shapes {
        let (received, ended) = waves(&["http2_faults", "http2_protocol"], then).await;
        // h2 treats some of these frames as a connection error.
        assert!(matches!(ended, Some(ENHANCE_YOUR_CALM | PROTOCOL_ERROR)), "{name}: {ended:?}");
        assert!(received <= FAULTS, "{name}: {received} requests reached the backend");
    }
}

#[tokio::test]
async fn requests_reset_immediately_reach_no_backend() {
    let origin = Origin::start().await;
    let gateway = start(&origin, "").await;
    let mut wire = Wire::connect(gateway.address).await;
    let both = |i: u32| [open(2 * i + 1), Frame::reset(2 * i + 1, CANCEL)];
    assert!(wire.send(&(0..100).flat_map(both).collect::<Vec<_>>()).await);
    assert!(wire.send(&[open(301)]).await);
    assert_eq!(wire.status(301).await, 200);
    assert_eq!(origin.received().len(), 1);
}

#[tokio::test]
async fn clients_that_cancel_pages_are_served() {
    let origin = Origin::start().await;
    let gateway = start(&origin, "").await;
    let mut wire = Wire::connect(gateway.address).await;
    // A browser that leaves one page after the other. Half of the requests of each page were answered. The
    // number of resets would exceed the limit if no request had been answered.
    for page in 0..12 {
        let streams: Vec<u32> = (0..40).map(|i| 1 + 80 * page + 2 * i).collect();
        let (wanted, left) = streams.split_at(20);
        assert!(wire.send(&wanted.iter().map(|stream| open(*stream)).collect::<Vec<_>>()).await);
        for _ in wanted {
            assert!(wire.find(Frame::is_end).await.is_some(), "page {page}");
        }
        origin.behave(Behaviour::Stall);
        let seen = origin.received().len();
        assert!(wire.send(&left.iter().map(|stream| open(*stream)).collect::<Vec<_>>()).await);
        eventually!(origin.received().len() == seen + left.len());
        assert!(
            wire.send(&left.iter().map(|stream| Frame::reset(*stream, CANCEL)).collect::<Vec<_>>()).await
        );
        eventually!(gateway.metric("proxy_requests_active").await == 0.0);
        origin.behave(Behaviour::Answer);
    }
    assert_eq!(gateway.metric(&series("http2_resets")).await, 0.0);
}

#[tokio::test]
async fn frames_that_ask_for_nothing_end_the_connection() {
    let origin = Origin::start().await;
    let gateway = start(&origin, "").await;
    let post = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/anything")];
    for (ended, (name, nothing)) in [
        ("ping", Frame::new(PING, 0, 0, [0; 8])),
        ("settings", Frame::new(SETTINGS, 0, 0, [])),
        ("priority", Frame::new(PRIORITY, 0, 1, [0, 0, 0, 0, 1])),
        ("a window byte by byte", Frame::new(WINDOW_UPDATE, 0, 0, 1_u32.to_be_bytes())),
        ("an unknown kind", Frame::new(99, 0, 0, *b"x")),
        ("empty data", Frame::new(DATA, 0, 1, [])),
        ("resets of a stream that is over", Frame::reset(1, CANCEL)),
    ]
    .into_iter()
    .enumerate()
    {
        let mut wire = Wire::connect(gateway.address).await;
        assert!(wire.send(&[Frame::head(1, &post, name != "empty data")]).await);
        if name != "empty data" {
            assert!(wire.find(Frame::is_end).await.is_some());
        }
        let mut sent = 0;
        let many = vec![nothing; 100];
        // For a while, the gateway still reads frames beyond the limit, but it does not process them.
        while sent < 5_000 && wire.send(&many).await {
            sent += 100;
        }
        assert_eq!(wire.ended().await, Some(ENHANCE_YOUR_CALM), "{name}");
        eventually!(gateway.metric(&series("http2_frames")).await == ended as f64 + 1.0);
    }
}

#[tokio::test]
async fn frames_of_an_ordinary_client_do_not_end_the_connection() {
    let origin = Origin::start().await;
    let gateway = start(&origin, "").await;
    let mut wire = Wire::connect(gateway.address).await;
    let mut fields = get("web.test");
    fields[3].1 = "/bytes/40000000";
    assert!(wire.send(&[Frame::head(1, &fields, true)]).await);
    // The client opens its windows after each part, which makes thousands of frames.
    let mut parts = 0;
    loop {
        let frame = wire.next().await.unwrap();
        if frame.kind != DATA {
            continue;
        }
        parts += 1;
        if frame.is_end() {
            break;
        }
        let by = u32::try_from(frame.payload.len()).unwrap().to_be_bytes();
        if by != [0; 4] {
            let window = |stream| Frame::new(WINDOW_UPDATE, 0, stream, by);
            assert!(wire.send(&[window(1), window(0)]).await, "behind {parts} parts");
        }
    }
    assert!(parts > 2_000, "{parts}");
}

/// Returns a GET of a response that no buffer can hold.
fn large(stream: u32) -> Frame {
    let mut fields = get("web.test");
    fields[3].1 = "/bytes/20000000";
    Frame::head(stream, &fields, true)
}

/// Returns the memory that each of `streams` streams holds, in KiB, if the client opens all windows and reads
/// nothing.
async fn held_by_one(streams: u32, protocol: &str) -> u64 {
    let origin = Origin::start().await;
    let gateway = start(&origin, &format!("[upstream]\nprotocol = \"{protocol}\"\n")).await;
    assert_eq!(gateway.get("/bytes/100000").await.status, 200);
    let before = gateway.memory();
    let mut wire = Wire::connect(gateway.address).await;
    let most = i32::MAX as u32;
    let wide = [&4_u16.to_be_bytes()[..], &most.to_be_bytes()].concat();
    let windows =
        [Frame::new(SETTINGS, 0, 0, wide), Frame::new(WINDOW_UPDATE, 0, 0, (most - 65_535).to_be_bytes())];
    assert!(wire.send(&windows).await);
    let requests: Vec<Frame> = (0..streams).map(|i| large(2 * i + 1)).collect();
    assert!(wire.send(&requests).await);
    eventually!(origin.received().len() == streams as usize + 1);
    // Waits until the memory stops growing.
    let mut held = 0;
    for _ in 0..40 {
        sleep(Duration::from_millis(300)).await;
        let now = gateway.memory().saturating_sub(before);
        if now <= held && held > 0 {
            break;
        }
        held = now;
    }
    assert_eq!(gateway.metric("proxy_http2_streams_active").await, f64::from(streams));
    drop(wire);
    held / u64::from(streams)
}

#[tokio::test]
async fn client_that_does_not_read_holds_bounded_memory_per_stream() {
    // Buffers in KiB: 64 in Pingora, 32 in h2, and ten reads of 4 to 16. From an HTTP/2 backend, each read is a
    // frame that keeps its whole read buffer alive, and 64 more frames may be unread.
    for (streams, protocol, most) in [(100, "http1", 320), (50, "http2", 1_000)] {
        let held = held_by_one(streams, protocol).await;
        assert!((1..most).contains(&held), "{held} KiB for each of {streams}, {protocol}");
    }
}

#[tokio::test]
async fn open_streams_of_all_connections_are_limited() {
    const MOST: u32 = 30;
    let origin = Origin::start().await;
    origin.behave(Behaviour::Stall);
    let proxy = format!("{CLEARTEXT}max_http2_streams = {MOST}\n");
    let gateway =
        Gateway::start(&[&origin], Setup { proxy: &proxy, tables: "[health_check]\nenabled = false\n" })
            .await;
    let mut wires = Vec::new();
    for n in 1..=3 {
        let mut wire = Wire::connect(gateway.address).await;
        assert!(wire.send(&(0..10).map(|i| open(2 * i + 1)).collect::<Vec<_>>()).await);
        eventually!(gateway.metric("proxy_http2_streams_active").await == f64::from(10 * n));
        wires.push(wire);
    }
    // Another stream exceeds the limit, on an old connection and on a new one. REFUSED_STREAM allows the client
    // to send it again.
    wires.push(Wire::connect(gateway.address).await);
    for wire in [0, 3] {
        assert!(wires[wire].send(&[open(101)]).await);
        let reset = wires[wire].find(|frame| frame.kind == RST_STREAM).await.unwrap();
        assert_eq!((reset.stream, &reset.payload[..]), (101, &REFUSED_STREAM.to_be_bytes()[..]));
    }
    assert_eq!(gateway.metric(&series("http2_streams")).await, 2.0);
    eventually!(origin.received().len() == MOST as usize);
    // HTTP/1 requests do not count. A stream that is reset frees its place, and so does a connection that closes.
    origin.behave(Behaviour::Answer);
    assert_eq!(gateway.get("/").await.status, 200);
    assert!(wires[0].send(&[Frame::reset(1, CANCEL)]).await);
    eventually!(gateway.metric("proxy_http2_streams_active").await == f64::from(MOST - 1));
    assert!(wires[3].send(&[open(103)]).await);
    assert_eq!(wires[3].status(103).await, 200);
    wires.truncate(1);
    eventually!(gateway.metric("proxy_http2_streams_active").await == 9.0);
}

#[tokio::test]
async fn clients_of_the_same_backend_are_served_during_abuse() {
    let origin = Origin::start().await;
    let gateway = start(&origin, "").await;
    let bystander = connect(gateway.address).await;
    let mut wire = Wire::connect(gateway.address).await;
    let mut stream = 1;
    while wire.send(&[open(stream), Frame::new(RST_STREAM, 0, stream, CANCEL.to_be_bytes())]).await
        && stream < 2_000
    {
        stream += 2;
        if stream % 101 == 0 {
            let request = http::Request::get("http://web.test/").body(()).unwrap();
            assert_eq!(send(&bystander, request, "").await.unwrap().status, 200);
        }
    }
    let _ = wire.ended().await;
    let fields = block(&get("web.test"));
    let mut wire = Wire::connect(gateway.address).await;
    assert!(wire.send(&[Frame::new(HEADERS, END_HEADERS | END_STREAM, 1, fields)]).await);
    assert_eq!(wire.status(1).await, 200, "a new connection of the same client");
}
