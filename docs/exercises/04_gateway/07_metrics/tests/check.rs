//! Checks that requests are counted under the right labels, and that labels stay few.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use ex0407::Measured;
use http::Request;
use testkit::{Client, Origin, ServedProxy, expect, serve};

/// Serves a measured proxy, and the page with its metrics.
fn serve_measured(origin: &Origin) -> (ServedProxy, ServedProxy) {
    let measured = Measured::new(origin.address()).unwrap();
    let page = serve(measured.page());
    (serve(measured), page)
}

async fn send(proxy: &ServedProxy, method: &str, path: &str) {
    let request = Request::builder().method(method).uri(proxy.url(path)).body(Default::default());
    Client::new().send(request.unwrap()).await;
}

/// Returns each series with its labels and its value, as in "GET api 4xx = 1", sorted.
async fn series(page: &ServedProxy) -> Vec<String> {
    let text = Client::new().get(page.url("/metrics")).await.text();
    let lines = text.lines().filter_map(|line| line.strip_prefix("proxy_requests_total{"));
    let mut series: Vec<String> = lines
        .map(|line| {
            let parts: Vec<&str> = line.split('"').collect();
            format!("{} {} {} ={}", parts[1], parts[3], parts[5], parts[6].trim_start_matches('}'))
        })
        .collect();
    series.sort();
    series
}

#[tokio::test]
async fn requests_are_counted_by_class() {
    let origin = Origin::start().await;
    let (proxy, page) = serve_measured(&origin);
    send(&proxy, "GET", "/api/users").await;
    send(&proxy, "POST", "/static/logo").await;
    send(&proxy, "GET", "/?again").await;
    send(&proxy, "GET", "/status/304").await;
    send(&proxy, "GET", "/status/503").await;
    send(&proxy, "HEAD", "/").await;
    send(&proxy, "PUT", "/apix").await;
    send(&proxy, "DELETE", "/an/api/").await;
    send(&proxy, "PATCH", "/").await;
    let counted = [
        "DELETE other 4xx = 1",
        "GET api 4xx = 1",
        "GET other 2xx = 1",
        "GET other 3xx = 1",
        "GET other 5xx = 1",
        "HEAD other 2xx = 1",
        "POST static 4xx = 1",
        "PUT other 4xx = 1",
        "other other 2xx = 1",
    ];
    expect!(eventually series(&page).await, counted, "method, route and status in /metrics, after nine requests");
}

#[tokio::test]
async fn made_up_requests_make_only_few_series() {
    let origin = Origin::start().await;
    let (proxy, page) = serve_measured(&origin);
    for i in 0..4 {
        send(&proxy, "GET", &format!("/made-up-{i}")).await;
        send(&proxy, &format!("MADE-UP-{i}"), "/").await;
        send(&proxy, "GET", &format!("/status/{}", 600 + i)).await;
    }
    let counted = ["GET other 4xx = 4", "GET other other = 4", "other other 2xx = 4"];
    expect!(eventually series(&page).await, counted, "/metrics after twelve requests with made-up values");
}

#[tokio::test]
async fn clients_do_not_get_the_metrics() {
    let origin = Origin::start().await;
    let (proxy, _page) = serve_measured(&origin);
    send(&proxy, "GET", "/metrics").await;
    expect!(origin.count("/metrics"), 1, "how many of a client's requests for /metrics the upstream got");
}
