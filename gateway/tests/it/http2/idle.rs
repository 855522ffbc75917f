//! Orderly end of an HTTP/2 connection: the GOAWAY that an idle client gets, and the early response that a
//! client can read while it still sends its request.

use std::process::Stdio;

use testkit::{Behaviour, Origin, eventually};

use super::CLEARTEXT;
use crate::frames::{DATA, END_STREAM, Frame, GOAWAY, HEADERS, PING, RST_STREAM, Wire, get};
use crate::support::{Gateway, Setup};

const ACK: u8 = 1;
const NO_ERROR: u32 = 0;

async fn start(origin: &Origin, proxy: &str, tables: &str) -> Gateway {
    let proxy = format!("{CLEARTEXT}{proxy}");
    let tables = format!("[health_check]\nenabled = false\n{tables}");
    Gateway::start(&[origin], Setup { proxy: &proxy, tables: &tables }).await
}

#[tokio::test]
async fn idle_client_gets_goaway_and_crossing_request_is_answered() {
    let origin = Origin::start().await;
    let gateway = start(&origin, "keepalive_timeout_secs = 1\n", "").await;
    for has_asked in [false, true] {
        let mut wire = Wire::connect(gateway.address).await;
        if has_asked {
            assert!(wire.send(&[Frame::head(1, &get("web.test"), true)]).await);
            assert_eq!(wire.status(1).await, 200);
        }
        // RFC 9113 6.8: the first GOAWAY still accepts requests that are on their way.
        let goaway = wire.find(|frame| frame.kind == GOAWAY).await.unwrap();
        assert_eq!((goaway.reason(), &goaway.payload[..4]), (NO_ERROR, &i32::MAX.to_be_bytes()[..]));
        assert!(wire.send(&[Frame::head(3, &get("web.test"), true)]).await);
        assert_eq!(wire.status(3).await, 200);
        let ping = wire.find(|frame| frame.kind == PING && frame.flags & ACK == 0).await;
        if let Some(ping) = ping {
            wire.send(&[Frame::new(PING, ACK, 0, ping.payload)]).await;
        }
        assert!(wire.ended().await.is_none_or(|reason| reason == NO_ERROR));
    }
}

#[tokio::test]
async fn pinging_client_is_idle_and_waiting_client_is_not() {
    let origin = Origin::start().await;
    let gateway = start(&origin, "keepalive_timeout_secs = 1\n", "").await;
    origin.behave(Behaviour::Stall);
    let mut waiting = Wire::connect(gateway.address).await;
    assert!(waiting.send(&[Frame::head(1, &get("web.test"), true)]).await);
    eventually!(origin.received().len() == 1);
    let mut pings = Wire::connect(gateway.address).await;
    loop {
        assert!(pings.send(&[Frame::new(PING, 0, 0, *b"12345678")]).await);
        if pings.find(|frame| frame.kind == GOAWAY || frame.payload == b"12345678").await.unwrap().kind
            == GOAWAY
        {
            break;
        }
        tokio::time::sleep(testkit::POLL).await;
    }
    assert!(waiting.send(&[Frame::reset(1, 8), Frame::new(PING, 0, 0, *b"12345678")]).await);
    assert!(waiting.find(|frame| frame.kind == PING || frame.kind == GOAWAY).await.unwrap().kind == PING);
}

const TEN: &str = "[limits]\nmax_request_body_bytes = 10\n";

#[tokio::test]
async fn early_response_can_be_read_before_the_reset() {
    let origin = Origin::start().await;
    let gateway = start(&origin, "", TEN).await;
    let mut wire = Wire::connect(gateway.address).await;
    let head = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/anything")];
    // If the client ends its request after the response, the stream is not reset.
    wire.send(&[Frame::head(1, &head, false), Frame::new(DATA, 0, 1, vec![0; 100])]).await;
    assert_eq!(wire.status(1).await, 413);
    assert!(wire.find(|frame| frame.stream == 1 && frame.is_end()).await.is_some());
    wire.send(&[Frame::new(DATA, END_STREAM, 1, vec![0; 100]), Frame::head(3, &get("a"), true)]).await;
    let next = wire.find(|frame| frame.kind == RST_STREAM || frame.kind == HEADERS).await.unwrap();
    assert_eq!((next.kind, next.stream), (HEADERS, 3));
    eventually!(gateway.metric("proxy_requests_active").await == 0.0);
}

#[tokio::test]
async fn curl_reads_the_answer_to_an_upload_that_is_refused() {
    let origin = Origin::start().await;
    let gateway = start(&origin, "", TEN).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(20 * 1024 * 1024).unwrap();
    let mut answers = Vec::new();
    for _ in 0..50 {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sS", "--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST"]);
        curl.args(["-H", "Expect:", "-T"])
            .arg(file.path())
            .arg(gateway.url("/anything"))
            .stdin(Stdio::null());
        let Ok(output) = tokio::task::spawn_blocking(move || curl.output()).await.unwrap() else {
            eprintln!("skipped: there is no curl");
            return;
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        answers.push((output.status.code(), text(&output.stdout), text(&output.stderr)));
    }
    let failed: Vec<_> =
        answers.iter().filter(|(code, status, _)| *code != Some(0) || status != "413").collect();
    assert!(failed.is_empty(), "{} of {}: {:?}", failed.len(), answers.len(), failed[0]);
}
