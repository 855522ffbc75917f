//! Tests of each fault, as a client sees it.

use std::time::Duration;

use testkit::{Fault, Faulty, Health, eventually, exchange};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const GET: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";

/// Sends `bytes` and returns true if the received bytes begin with `expected`.
async fn says(stream: &mut TcpStream, bytes: &str, expected: &str) -> bool {
    let _ = stream.write_all(bytes.as_bytes()).await;
    let mut said = vec![0; expected.len()];
    stream.read_exact(&mut said).await.is_ok() && said == expected.as_bytes()
}

async fn connected(faulty: &Faulty) -> TcpStream {
    TcpStream::connect(faulty.address()).await.unwrap()
}

fn hello(fields: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nhello")
}

#[tokio::test]
async fn without_fault_requests_are_answered_and_counted() {
    let faulty = Faulty::start(Fault::None).await;
    let chunked = "POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\n\r\n";
    let mut stream = connected(&faulty).await;
    for request in [GET, POST, chunked] {
        assert!(says(&mut stream, request, &hello("Content-Length: 5")).await, "{request}");
    }
    stream.write_all(b"GET /a HTTP/1.1\r\nHalf: a").await.unwrap();
    assert_eq!((faulty.seen("GET", "/a"), faulty.seen("POST", "/a"), faulty.seen("POST", "/b")), (1, 1, 1));
    assert_eq!(faulty.connections(), 1);
}

#[tokio::test]
async fn faulty_refuses_when_down_and_returns_on_its_port() {
    let mut faulty = Faulty::start(Fault::None).await;
    faulty.die().await;
    assert!(TcpStream::connect(faulty.address()).await.is_err());
    faulty.revive();
    assert!(says(&mut connected(&faulty).await, GET, "HTTP/1.1 200").await);
    let [first, second] = Faulty::twins().await;
    assert!(first.address().port() == second.address().port() && first.address() != second.address());
}

#[tokio::test]
async fn resets_occur_at_the_chosen_point() {
    for (fault, seen, said) in [
        (Fault::ResetOnAccept, 0, ""),
        (Fault::ResetUnread, 0, ""),
        (Fault::Reset, 1, ""),
        (Fault::ResetInBody, 1, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"),
    ] {
        let faulty = Faulty::start(fault).await;
        let mut stream = connected(&faulty).await;
        let sent = stream.write_all(POST.as_bytes()).await;
        let mut answer = Vec::new();
        // The kernel reports a reset only once, to the write or to the read.
        let read = stream.read_to_end(&mut answer).await;
        let end = sent.and(read);
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset, "{fault:?}");
        assert_eq!((faulty.seen("POST", "/a"), String::from_utf8_lossy(&answer).as_ref()), (seen, said));
    }
}

#[tokio::test]
async fn faulty_responses_match_the_fault() {
    for (fault, said) in [
        (Fault::Status(500), "HTTP/1.1 500 So\r\nContent-Length: 0\r\n\r\n".to_owned()),
        (Fault::LengthTooLong, hello("Content-Length: 10")),
        (Fault::LengthTooShort, hello("Content-Length: 5") + "HTTP/1.1 200 OK\r\n"),
        (Fault::LengthsDiffer, hello("Content-Length: 5\r\nContent-Length: 6")),
        (Fault::LengthsRepeat, hello("Content-Length: 5\r\nContent-Length: 5")),
        (Fault::LengthsListed, hello("Content-Length: 5, 5")),
        (Fault::SwitchUnasked, "HTTP/1.1 101 Switching Protocols\r\n".to_owned()),
        (Fault::Garbage, "this is not HTTP".to_owned()),
        (Fault::Drip(Duration::from_millis(1)), hello("Content-Length: 5")),
    ] {
        let faulty = Faulty::start(Fault::Garbage).await;
        faulty.behave(fault);
        assert!(says(&mut connected(&faulty).await, GET, &said).await, "{fault:?}");
        assert_eq!(faulty.seen("GET", "/a"), 1);
    }
}

#[tokio::test]
async fn one_byte_is_sent_for_each_step() {
    let faulty = Faulty::start(Fault::Stepped).await;
    let mut stream = connected(&faulty).await;
    assert!(says(&mut stream, GET, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await);
    for byte in ["h", "e", "l", "l", "o"] {
        let early = tokio::time::timeout(Duration::from_millis(20), stream.peek(&mut [0])).await;
        assert!(early.is_err(), "nothing comes before the step");
        faulty.step();
        assert!(says(&mut stream, "", byte).await);
    }
}

#[tokio::test]
async fn close_reused_closes_on_the_second_request() {
    let faulty = Faulty::start(Fault::CloseReused).await;
    let mut stream = connected(&faulty).await;
    assert!(says(&mut stream, GET, &hello("Content-Length: 5")).await);
    assert!(!says(&mut stream, GET, "H").await);
    assert!(says(&mut connected(&faulty).await, GET, "HTTP/1.1 200").await);
    assert_eq!(faulty.seen("GET", "/a"), 2);
}

#[tokio::test]
async fn early_responses_arrive_before_the_body() {
    let (head, body) = POST.split_at(POST.len() - 3);
    let faulty = Faulty::start(Fault::AnswerEarly).await;
    let mut stream = connected(&faulty).await;
    assert!(says(&mut stream, head, &hello("Content-Length: 5")).await);
    assert!(says(&mut stream, &format!("{body}{head}"), &hello("Content-Length: 5")).await);

    faulty.behave(Fault::AnswerEarlyAndClose);
    let answer = exchange(faulty.address(), head.as_bytes()).await;
    assert_eq!(answer, hello("Content-Length: 5"));
}

#[tokio::test]
async fn expect_continue_is_honoured_or_ignored() {
    let head = "POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    let faulty = Faulty::start(Fault::None).await;
    let mut stream = connected(&faulty).await;
    assert!(says(&mut stream, head, "HTTP/1.1 100 Continue\r\n\r\n").await);
    assert!(says(&mut stream, "abc", "HTTP/1.1 200").await);

    faulty.behave(Fault::IgnoreExpectation);
    let mut stream = connected(&faulty).await;
    assert!(says(&mut stream, &format!("{head}abc"), "HTTP/1.1 200").await);
}

#[tokio::test]
async fn probes_are_answered_independently_of_the_fault() {
    let faulty = Faulty::start(Fault::Reset).await;
    let probe = "GET /health HTTP/1.1\r\n\r\n";
    let mut stream = connected(&faulty).await;
    assert!(says(&mut stream, probe, &hello("Content-Length: 5")).await);
    faulty.health(Health::Flaps);
    for status in [200, 500, 200] {
        let mut stream = connected(&faulty).await;
        assert!(says(&mut stream, probe, &format!("HTTP/1.1 {status} ")).await);
    }
    faulty.health(Health::Fails);
    assert!(says(&mut connected(&faulty).await, probe, "HTTP/1.1 500 ").await);
    eventually!(faulty.probes() == 5);
}
