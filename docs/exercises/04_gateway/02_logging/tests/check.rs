//! Each request is one event, with its facts in fields.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use ex0402::Logged;
use parking_lot::Mutex;
use serde_json::Value;
use testkit::{Client, Origin, expect, serve};

/// What is logged ends here.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The events that the proxy has logged so far.
    fn events(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().clone()).unwrap();
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events
            .filter(|event| event["target"].as_str().is_some_and(|target| target.starts_with("ex0402")))
            .collect()
    }
}

/// The one event of a GET of `path` through a proxy to `upstream`.
async fn event(upstream: SocketAddr, path: &str) -> Value {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
    // For this thread alone, which is the one that the proxy runs on too.
    let _guard = tracing::subscriber::set_default(subscriber);
    let proxy = serve(Logged { upstream });
    Client::new().get(proxy.url(path)).await;
    expect!(eventually log.events().len(), 1, "how many events one request has logged");
    log.events().remove(0)
}

#[tokio::test]
async fn a_request_is_one_event_with_fields() {
    let origin = Origin::start().await;
    let event = event(origin.address(), "/status/404?password=secret").await;
    expect!(event["level"], "INFO", "the level of the event {event}");
    let fields = &event["fields"];
    expect!(fields["message"], "request", "the message of the event {event}");
    expect!(fields["method"], "GET", "the field `method` of the event {event}");
    expect!(fields["path"], "/status/404", "the field `path` of the event {event}");
    expect!(fields["status"], 404, "the field `status` of the event {event}");
    expect!(
        fields["duration_ms"].is_number(),
        true,
        "the field `duration_ms` is a number in the event {event}"
    );
    expect!(event.to_string().contains("secret"), false, "the query is in the event {event}");
}

#[tokio::test]
async fn a_request_that_fails_is_logged_too() {
    let event = event(Origin::dead().address(), "/").await;
    expect!(event["fields"]["status"], 502, "the field `status` of the event {event}");
}
