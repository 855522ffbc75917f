//! Tests of a client's stream: the bytes that reach Pingora, the bytes that do not, and the deadlines.

use prometheus::IntGauge;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, timeout};

use super::*;
use crate::policy::head_size::HeadSize;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OTHER: &[u8] =
    b"POST /other HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
const LONG: Duration = Duration::from_secs(3600);
const IDLE: Duration = Duration::from_secs(20);

fn over_http1() -> (ClientStream, DuplexStream) {
    let (ours, theirs) = duplex(4096);
    let size = HeadSize { uri: 100, bytes: 1000, fields: 10 };
    let terms = HeadTerms::new(move || Bounds { size, time: Duration::from_secs(10), idle: IDLE });
    (ClientStream::new(Box::new(ours)).with_http1(terms), theirs)
}

/// Returns the bytes of one read into a buffer of `room` bytes.
async fn read(stream: &mut ClientStream, room: usize) -> Vec<u8> {
    let mut bytes = vec![0; room];
    let length = stream.read(&mut bytes).await.unwrap();
    bytes.truncate(length);
    bytes
}

fn over(stream: &ClientStream) {
    stream.http1.as_ref().unwrap().inspector.request_over();
}

fn refusal(stream: &ClientStream) -> Option<u16> {
    let refusal = stream.http1.as_ref().unwrap().inspector.refusal();
    refusal.map(|refusal| refusal.problem.status().as_u16())
}

#[tokio::test(start_paused = true)]
async fn first_bytes_have_a_deadline_and_later_bytes_have_none() {
    for (sent, is_in_time) in [(&b""[..], false), (b"abc", false), (b"abcd", true), (b"abcde", true)] {
        let (client, mut other) = duplex(64);
        let mut stream = ClientStream::new(Box::new(client)).awaiting(4, Duration::from_secs(10));
        other.write_all(sent).await.unwrap();
        let mut read = vec![0; sent.len()];
        stream.read_exact(&mut read).await.unwrap();
        let next = timeout(Duration::from_secs(60), stream.read_u8()).await;
        assert_eq!(next.is_err(), is_in_time, "{sent:?}: {next:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn http2_head_has_a_deadline_and_other_frames_have_none() {
    // If the frame is a head, its payload is GET and `/` (RFC 7541 A).
    let frame = |kind: u8, flags: u8| [0, 0, 2, kind, flags, 0, 0, 0, 1, 0x82, 0x84];
    let (data, head, part, last) = (frame(0, 0), frame(1, 4), frame(1, 0), frame(9, 4));
    for (frames, is_in_time) in [
        (&[data, data][..], true),
        (&[head, data], true),
        (&[head, head, head], true),
        (&[part, last, part, last], true),
        // Each frame has 11 bytes, one every 500 ms.
        (&[data, part], false),
        (&[part, frame(9, 0), last], false),
    ] {
        let (client, mut other) = duplex(64);
        let size = HeadSize { uri: 100, bytes: 1000, fields: 10 };
        let terms = HeadTerms::new(move || Bounds { size, time: Duration::from_secs(10), idle: IDLE });
        let stream = ClientStream::new(Box::new(client)).awaiting(1, Duration::from_secs(5));
        let counter = IntCounter::new("a", "b").unwrap();
        let open = IntGauge::new("a", "b").unwrap();
        let streams = StreamLimit { most: 1, open, refused: counter.clone() };
        let mut stream = stream.with_http2_heads(terms, 1, streams, counter);
        let bytes = [b"P", frames.concat().as_slice()].concat();
        let sending = tokio::spawn(async move {
            for byte in bytes {
                other.write_u8(byte).await.unwrap();
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            tokio::time::sleep(LONG).await;
        });
        let has_failed = loop {
            match timeout(LONG / 2, stream.read_u8()).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => break true,
                Err(_) => break false,
            }
        };
        assert_eq!(has_failed, !is_in_time, "{frames:?}");
        sending.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn pipelined_request_waits_until_current_request_is_over() {
    for room in [1, 7, 4096] {
        let (mut stream, mut client) = over_http1();
        client.write_all(&[GET, OTHER, GET].concat()).await.unwrap();
        for request in [GET, OTHER, GET] {
            let mut got = Vec::new();
            while got.len() < request.len() {
                got.extend(read(&mut stream, room).await);
            }
            assert_eq!(got, request);
            assert!(timeout(LONG, read(&mut stream, 1)).await.is_err());
            over(&stream);
        }
        drop(client);
        assert_eq!(read(&mut stream, room).await, b"");
    }
}

#[tokio::test(start_paused = true)]
async fn half_closed_client_has_not_left_while_a_request_waits() {
    let (mut stream, mut client) = over_http1();
    client.write_all(&[GET, OTHER].concat()).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read(&mut stream, 4096).await, GET);
    assert!(timeout(LONG, read(&mut stream, 1)).await.is_err());
    over(&stream);
    assert_eq!(read(&mut stream, 4096).await, OTHER);
    assert_eq!(timeout(LONG, read(&mut stream, 1)).await, Ok(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_is_noticed_while_it_waits() {
    let (mut stream, mut client) = over_http1();
    client.write_all(GET).await.unwrap();
    assert_eq!(read(&mut stream, 4096).await, GET);
    drop(client);
    assert_eq!(timeout(LONG, read(&mut stream, 1)).await, Ok(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn refused_or_late_head_is_replaced_by_a_harmless_one() {
    for (sent, stands, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "- /", 400),
        (b"HEAD / HTTP/1.1\r\n\r\n", "HEAD /", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx", "- /", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", "- /", 408),
    ] {
        let (mut stream, mut client) = over_http1();
        client.write_all(sent).await.unwrap();
        let start = Instant::now();
        let got = String::from_utf8(read(&mut stream, 4096).await).unwrap();
        assert!(got.starts_with(stands) && got.ends_with("Connection: close\r\n\r\n"), "{got}");
        assert_eq!(
            (refusal(&stream), start.elapsed().as_secs()),
            (Some(status), if status == 408 { 10 } else { 0 })
        );
    }
}

#[tokio::test(start_paused = true)]
async fn empty_line_after_a_request_leaves_connection_idle() {
    let (mut stream, mut client) = over_http1();
    client.write_all(&[GET, b"\r\n"].concat()).await.unwrap();
    assert_eq!(read(&mut stream, 4096).await, GET);
    over(&stream);
    assert!(timeout(IDLE / 2, read(&mut stream, 4096)).await.is_err());
    client.write_all(GET).await.unwrap();
    assert_eq!(read(&mut stream, 4096).await, [b"\r\n", GET].concat());
}

#[tokio::test(start_paused = true)]
async fn malformed_body_fails_this_and_later_reads() {
    let (mut stream, mut client) = over_http1();
    client.write_all(&OTHER[..OTHER.len() - 5]).await.unwrap();
    assert_eq!(read(&mut stream, 4096).await, OTHER[..OTHER.len() - 5]);
    client.write_all(b"0\n\n").await.unwrap();
    for _ in 0..2 {
        let failed = stream.read(&mut [0; 10]).await.unwrap_err();
        assert_eq!((failed.kind(), refusal(&stream)), (io::ErrorKind::InvalidData, Some(400)));
    }
}

#[tokio::test(start_paused = true)]
async fn close_lingers_if_bytes_are_unread_but_not_for_ever() {
    for (sent, secs) in [(GET.to_vec(), 0), ([GET, b"x"].concat(), 2), (b"x y\r\n".to_vec(), 2)] {
        let (mut stream, mut client) = over_http1();
        client.write_all(&sent).await.unwrap();
        read(&mut stream, 4096).await;
        let start = Instant::now();
        stream.shutdown().await.unwrap();
        assert_eq!(start.elapsed().as_secs(), secs, "{sent:?}");
    }
    let (mut stream, mut client) = over_http1();
    client.write_all(b"x y\r\n").await.unwrap();
    read(&mut stream, 4096).await;
    drop(client);
    let start = Instant::now();
    stream.shutdown().await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 0);
}

/// Returns the number of seconds until a connection ends; `None` if it does not end within an hour. The given bytes
/// arrive at the given seconds. Bytes that are read are dropped.
async fn ended_after(
    mut stream: ClientStream,
    mut client: DuplexStream,
    sent: &[(u64, &[u8])],
) -> Option<u64> {
    let sent: Vec<(u64, Vec<u8>)> = sent.iter().map(|(at, bytes)| (*at, bytes.to_vec())).collect();
    let start = Instant::now();
    let sending = tokio::spawn(async move {
        for (at, bytes) in sent {
            tokio::time::sleep_until(start + Duration::from_secs(at)).await;
            client.write_all(&bytes).await.unwrap();
        }
        tokio::time::sleep(2 * LONG).await;
        drop(client);
    });
    let ended = timeout(LONG, async {
        loop {
            match stream.read(&mut [0; 4096]).await {
                Ok(0) => return,
                Ok(_) => over(&stream),
                Err(error) => panic!("{error}"),
            }
        }
    });
    let ended = ended.await.ok().map(|()| start.elapsed().as_secs());
    sending.abort();
    ended
}

#[tokio::test(start_paused = true)]
async fn connection_is_idle_until_a_head_begins() {
    for (sent, secs) in [
        (&[][..], 20),
        // An empty line does not begin a request.
        (&[(15, &b"\r\n"[..])], 20),
        (&[(0, b"\r"), (7, b"\n")], 20),
        (&[(15, GET)], 35),
        (&[(15, GET), (16, b"\r\n"), (30, b"\r\n")], 35),
        (&[(15, GET), (34, GET)], 54),
        // A head that begins late still has its full time.
        (&[(19, b"GET / HTTP/1.1\r\n"), (28, b"Host: a\r\n\r\n")], 48),
        (&[(0, GET), (19, b"\r\nGET / HTTP/1.1\r\n"), (28, b"Host: a\r\n\r\n")], 48),
    ] {
        let (stream, client) = over_http1();
        assert_eq!(ended_after(stream, client, sent).await, Some(secs), "{sent:?}");
    }
}
