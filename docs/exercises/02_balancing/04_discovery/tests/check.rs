//! Checks that an edit of the file moves the traffic, that a broken file changes nothing, and that the
//! service stops when it is told to.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use ex0204::{Balancer, Discovery};
use pingora::services::background::BackgroundService;
use testkit::{Client, DEADLINE, Origin, background, expect, serve};
use tokio::sync::watch;
use tokio::time::timeout;

fn list(file: &Path, origins: &[&Origin]) {
    let lines: Vec<String> = origins.iter().map(|origin| origin.address().to_string()).collect();
    replace(file, &lines.join("\n"));
}

/// Replaces the text of `file` in one step, as editors do. A reader sees the old text or the new one, and
/// never half of it.
fn replace(file: &Path, text: &str) {
    let draft = file.with_extension("new");
    std::fs::write(&draft, text).unwrap();
    std::fs::rename(&draft, file).unwrap();
}

#[tokio::test]
async fn an_edit_of_the_file_moves_the_traffic() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("upstreams");
    let (a, b) = (Origin::start().await, Origin::start().await);
    list(&file, &[&a]);
    let discovery = Arc::new(Discovery::new(file.clone()).unwrap());
    let _running = background(discovery.clone());
    let proxy = serve(Balancer { discovery, turn: AtomicUsize::new(0) });
    let client = Client::new();
    let answered_by = async || client.get(proxy.url("/")).await.header("x-origin").to_owned();
    expect!(answered_by().await, a.label(), "the file lists A: which upstream answers");

    list(&file, &[&b]);
    expect!(eventually answered_by().await, b.label(), "the file now lists B: which upstream answers soon");

    list(&file, &[]);
    expect!(eventually client.get(proxy.url("/")).await.status, 503, "the file now lists no upstream");
    list(&file, &[&a]);
    expect!(eventually answered_by().await, a.label(), "the file lists A again: which upstream answers");
}

#[tokio::test]
async fn a_list_that_cannot_be_read_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (broken, good) = (directory.path().join("broken"), directory.path().join("good"));
    let (a, b) = (Origin::start().await, Origin::start().await);
    list(&broken, &[&a]);
    list(&good, &[&a]);
    let discoveries = [&broken, &good].map(|file| Arc::new(Discovery::new(file.clone()).unwrap()));
    let _running = discoveries.clone().map(background);
    let [first, second] =
        discoveries.map(|discovery| serve(Balancer { discovery, turn: AtomicUsize::new(0) }));

    replace(&broken, "not an address");
    list(&good, &[&b]);
    let client = Client::new();
    // The second proxy follows its file several times. This gives the first one enough time to fail.
    for origin in [&b, &a, &b] {
        list(&good, &[origin]);
        let answered_by = async || client.get(second.url("/")).await.header("x-origin").to_owned();
        expect!(eventually answered_by().await, origin.label(), "which upstream answers after an edit");
    }
    let answered_by = async || client.get(first.url("/")).await.header("x-origin").to_owned();
    expect!(answered_by().await, a.label(), "a broken file has replaced the list: which upstream answers");

    // The service for the broken file still runs.
    list(&broken, &[&b]);
    expect!(eventually answered_by().await, b.label(), "the broken file now lists B: which upstream answers");
}

#[tokio::test]
async fn the_service_stops_when_the_server_does() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("upstreams");
    list(&file, &[]);
    let discovery = Discovery::new(file).unwrap();
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(async move { discovery.start(stopped).await });
    stop.send(true).unwrap();
    expect!(timeout(DEADLINE, running).await.is_ok(), true, "start() returns after shutdown has changed");
}
