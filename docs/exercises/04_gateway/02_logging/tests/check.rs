//! Checks that each request is one event, with its facts in fields.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use ex0402::Logged;
use parking_lot::Mutex;
use serde_json::Value;
use testkit::{Behaviour, Client, Origin, dead_address, eventually, expect, serve};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tracing::subscriber::DefaultGuard;

/// Writer that collects the log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(&mut *self.0.lock(), bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Collects what this thread logs, until the guard is dropped. The proxy runs on the same thread.
    fn is_written_to(&self) -> DefaultGuard {
        let writer = self.clone();
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }

    /// Returns the events that the proxy has logged so far.
    fn events(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().clone()).unwrap();
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events
            .filter(|event| event["target"].as_str().is_some_and(|target| target.starts_with("ex0402")))
            .collect()
    }
}

/// Sends GET `path` through a proxy to `upstream`, and returns the only event that this logs.
async fn event(upstream: SocketAddr, path: &str) -> Value {
    let log = Log::default();
    let _guard = log.is_written_to();
    let proxy = serve(Logged { upstream });
    Client::new().get(proxy.url(path)).await;
    expect!(eventually log.events().len(), 1, "how many events were logged for one request");
    log.events().remove(0)
}

#[tokio::test]
async fn a_request_is_one_event_with_fields() {
    let origin = Origin::start().await;
    let event = event(origin.address(), "/status/404?password=secret").await;
    let fields = &event["fields"];
    for (name, is, expected) in [
        ("level", &event["level"], "\"INFO\""),
        ("message", &fields["message"], "\"request\""),
        ("field `method`", &fields["method"], "\"GET\""),
        ("field `path`", &fields["path"], "\"/status/404\""),
        ("field `status`", &fields["status"], "404"),
    ] {
        expect!(is.to_string(), expected, "the {name} of the event {event}");
    }
    expect!(event.to_string().contains("secret"), false, "whether the query is in the event {event}");
}

#[tokio::test]
async fn the_duration_is_a_number_of_milliseconds() {
    let origin = Origin::start().await;
    let started = Instant::now();
    let event = event(origin.address(), "/delay/50").await;
    let most = started.elapsed().as_secs_f64() * 1000.0;
    let duration = event["fields"]["duration_ms"].as_f64();
    let right = duration.is_some_and(|duration| (50.0..=most).contains(&duration));
    expect!(right, true, "whether `duration_ms` is a number from 50 to {most} in the event {event}");
}

#[tokio::test]
async fn a_client_that_leaves_is_logged_with_status_0() {
    let log = Log::default();
    let _guard = log.is_written_to();
    let origin = Origin::start().await;
    origin.behave(Behaviour::Stall);
    let proxy = serve(Logged { upstream: origin.address() });
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    eventually!(origin.count("/") == 1);
    drop(client);
    expect!(eventually log.events().len(), 1, "how many events a client that leaves early causes");
    let event = log.events().remove(0);
    expect!(event["fields"]["status"].to_string(), "0", "the field `status` of the event {event}");
}

#[tokio::test]
async fn a_request_that_fails_is_logged_too() {
    let event = event(dead_address(), "/").await;
    expect!(event["fields"]["status"].to_string(), "502", "the field `status` of the event {event}");
}
