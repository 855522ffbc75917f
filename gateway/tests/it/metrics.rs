use testkit::Origin;

use crate::support::{Gateway, Setup};

#[tokio::test]
async fn the_documented_metrics_are_served() {
    let origin = Origin::start().await;
    let gateway =
        Gateway::start(&[&origin], Setup { tables: "[rate_limit]\nrequests = 3\n", ..Setup::default() })
            .await;
    for _ in 0..4 {
        gateway.get("/?secret=1").await;
    }
    // The client has its response slightly before the gateway counts the request as finished.
    testkit::eventually!(gateway.metric("proxy_requests_active").await == 0.0);
    let text = gateway.monitor("/metrics").await.text();
    assert_eq!(gateway.monitor("/api/v1/metrics").await.status, 200);
    for series in [
        "proxy_requests_total{method=\"GET\",route=\"/\",vhost=\"*\"} 4",
        "proxy_requests_active 0",
        "proxy_responses_total{route=\"/\",status=\"2xx\",vhost=\"*\"} 3",
        "proxy_responses_total{route=\"/\",status=\"4xx\",vhost=\"*\"} 1",
        "proxy_responses_by_status_total{status=\"200\"} 3",
        "proxy_responses_by_status_total{status=\"429\"} 1",
        "proxy_latency_seconds_bucket{route=\"/\",vhost=\"*\",le=\"+Inf\"} 4",
        "proxy_latency_seconds_count{route=\"/\",vhost=\"*\"} 4",
        "proxy_request_duration_ms_count{route=\"/\",vhost=\"*\"} 4",
        "proxy_success_rate ",
        "proxy_requests_per_second ",
        "proxy_backend_connections_total{backend=\"origin-0\"} 1",
        "proxy_backend_connection_errors_total{backend=\"origin-0\"} 0",
        "proxy_backend_requests_active{backend=\"origin-0\"} 0",
        "proxy_retries_total{route=\"/\",vhost=\"*\"} 0",
        "proxy_rate_limited_total{policy=\"default\",route=\"/\",vhost=\"*\"} 1",
        "health_check_status{backend=\"origin-0\"} 1",
        "proxy_build_info{pingora=\"0.9.1\",",
        "process_open_fds ",
        "process_resident_memory_bytes ",
    ] {
        assert!(text.lines().any(|line| line.starts_with(series)), "{series} not in\n{text}");
    }
    assert!(
        !text.contains("secret") && !text.contains("127.0.0.1"),
        "no paths or addresses of clients\n{text}"
    );
}

#[tokio::test]
async fn rates_follow_the_traffic() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&[&origin], Setup::default()).await;
    for _ in 0..6 {
        gateway.get("/").await;
        gateway.get("/status/500").await;
    }
    testkit::eventually!(gateway.metric("proxy_requests_per_second").await > 0.0);
    testkit::eventually!(gateway.metric("proxy_success_rate").await == 0.5);
}

#[tokio::test]
async fn health_endpoints_answer() {
    let gateway = Gateway::start(&[&Origin::start().await], Setup::default()).await;
    for path in ["/health", "/livez", "/readyz"] {
        assert_eq!(gateway.monitor(path).await.status, 200, "{path}");
    }
    assert_eq!(gateway.monitor("/nothing").await.status, 404);
}
