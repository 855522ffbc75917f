//! Tests of the helpers, which must do what their documentation says, so that a test that uses them fails
//! only for its own reasons.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod dns;
mod faulty;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::Request;
use pingora::prelude::*;
use testkit::{Behaviour, Client, DEADLINE, Origin, Process, Signal, eventually, exchange, serve};

fn get(origin: &Origin) -> Request<Bytes> {
    Request::get(format!("http://{}/", origin.address())).body(Bytes::new()).unwrap()
}

#[tokio::test]
async fn origin_records_received_requests() {
    let origin = Origin::start().await;
    let url = format!("http://{}/anything?a=b", origin.address());
    let request = Request::post(url).header("X-One", "1").body(Bytes::from("hello")).unwrap();
    let answer = Client::new().send(request).await;
    assert_eq!(answer.json()["body"], "hello");
    assert_eq!(answer.header("x-origin"), origin.label());
    let received = &origin.received()[0];
    assert_eq!((received.method.as_str(), received.uri.query()), ("POST", Some("a=b")));
    assert_eq!((received.header("x-one"), &received.body[..]), ("1", &b"hello"[..]));
    assert_eq!(origin.count("/anything"), 1);
    origin.forget();
    assert_eq!(origin.received().len(), 0);
}

#[tokio::test]
async fn origin_refuses_when_down_and_returns_on_its_port() {
    let mut origin = Origin::start().await;
    let client = Client::new();
    assert!(client.try_send(get(&origin)).await.is_ok());
    let address = origin.address();
    origin.die().await;
    for _ in 0..3 {
        let error = client.try_send(get(&origin)).await.unwrap_err();
        assert!(error.contains("refused"), "{error}");
    }
    origin.revive();
    assert_eq!(origin.address(), address);
    assert!(client.try_send(get(&origin)).await.is_ok());
}

#[tokio::test]
async fn origin_resets_stalls_or_answers_status_on_request() {
    let origin = Origin::start().await;
    origin.behave(Behaviour::Status(503));
    assert_eq!(Client::new().send(get(&origin)).await.status, 503);
    origin.behave(Behaviour::Reset);
    assert!(Client::new().try_send(get(&origin)).await.is_err());
    origin.behave(Behaviour::Stall);
    let client = Client::new();
    let answered = tokio::time::timeout(Duration::from_millis(200), client.try_send(get(&origin))).await;
    assert!(answered.is_err(), "it has taken the request and says nothing");
    assert_eq!(origin.count("/"), 3);
}

struct Forward(std::net::SocketAddr);

#[async_trait]
impl ProxyHttp for Forward {
    type CTX = ();
    fn new_ctx(&self) {}
    async fn upstream_peer(&self, session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        assert!(session.client_addr().is_some(), "a proxy knows its client, as on a server of its own");
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

#[tokio::test]
async fn proxy_is_served_in_process_until_dropped() {
    let origin = Origin::start().await;
    let proxy = serve(Forward(origin.address()));
    let address = proxy.address();
    assert_eq!(Client::new().get(proxy.url("/")).await.header("x-origin"), origin.label());
    drop(proxy);
    eventually!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn process_output_signals_and_exit_are_observed() {
    let mut process = Process::spawn("/bin/sh", &["-c", "echo out; echo err >&2; exec sleep 600"], &[]);
    assert_eq!((process.line("out").await, process.line("err").await), ("out".to_owned(), "err".to_owned()));
    assert!(process.is_running());
    process.signal(Signal::SIGTERM);
    assert!(!process.ended(DEADLINE).await.success());
    assert!(!process.is_running());

    let (code, said) = Process::run("/bin/sh", &["-c", "echo $WORD; exit 3"], &[("WORD", "hello")]).await;
    assert_eq!((code, said.as_str()), (Some(3), "hello"));
}

#[tokio::test]
async fn raw_exchange_returns_all_bytes_until_close() {
    let origin = Origin::start().await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert!(exchange(origin.address(), request.as_bytes()).await.starts_with("HTTP/1.1 200 OK"));
    let kept = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let answers = testkit::converse(origin.address(), &[kept, kept, request]).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3);
}
