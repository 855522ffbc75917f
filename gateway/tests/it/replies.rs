use http::Request;
use testkit::{Behaviour, Client, Origin, exchange};

use crate::support::{Gateway, Setup};

const NO_CHECKS: &str = "[health_check]\nenabled = false\n";

#[tokio::test]
async fn a_dead_backend_is_502_with_the_reason() {
    let gateway = Gateway::start(&[&Origin::dead()], Setup { tables: NO_CHECKS, ..Setup::default() }).await;
    let answer = gateway.get("/").await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.header("proxy-status"), "gateway; error=connection_refused");
    let problem = answer.json();
    assert_eq!(problem["type"], "urn:problem-type:gateway:bad-gateway");
    assert_eq!(problem["status"], 502);
    assert_eq!(problem["request_id"], answer.header("x-request-id"));
    assert_eq!(problem["request_id"].as_str().map(str::len), Some(36));
}

#[tokio::test]
async fn a_slow_backend_is_504() {
    let origin = Origin::start().await;
    let setup = Setup { proxy: "request_timeout_secs = 1", tables: NO_CHECKS };
    let gateway = Gateway::start(&[&origin], setup).await;
    origin.behave(Behaviour::Stall);
    let answer = gateway.get("/").await;
    assert_eq!(answer.status, 504);
    assert_eq!(answer.header("proxy-status"), "gateway; error=http_response_timeout");
    assert_eq!(answer.json()["title"], "The backend took too long");
    assert_eq!(origin.count("/"), 1, "when the time is up nothing is tried again");
}

#[tokio::test]
async fn no_healthy_backend_is_503_and_the_connection_stays() {
    let tables = "[health_check]\ninterval_secs = 1\nunhealthy_threshold = 1\n";
    let gateway = Gateway::start(&[&Origin::dead()], Setup { tables, ..Setup::default() }).await;
    gateway.process.line("backend is unhealthy").await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let last = "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let first = gateway.get("/").await;
    assert_eq!(first.status, 503);
    assert_eq!(first.header("retry-after"), "5");
    assert_eq!(first.header("proxy-status"), "gateway; error=destination_unavailable");
    assert_eq!(first.header("connection"), "keep-alive");
    // Two requests on one connection; they are not pipelined, which Pingora closes after.
    let answers = testkit::converse(gateway.address, &[request, request, last]).await;
    assert_eq!(answers.matches("HTTP/1.1 503").count(), 3, "{answers}");
    let (_, head) = answers.rsplit_once("\r\n\r\n").unwrap();
    assert_eq!(head, "", "a HEAD gets no body");
}

#[tokio::test]
async fn a_request_without_a_host_or_with_a_bad_one_is_400() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&[&origin], Setup::default()).await;
    for head in ["", "Host:\r\n", "Host: a b\r\n", "Host: a\r\nHost: a\r\n", "Host: a/b\r\n", "Host: a:b\r\n"]
    {
        let request = format!("GET / HTTP/1.1\r\n{head}Connection: close\r\n\r\n");
        let answer = exchange(gateway.address, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head:?}: {answer}");
        // Several of them are refused by Pingora itself, before any phase and in its own words.
        let by_pingora = head.matches("Host").count() > 1;
        assert!(by_pingora || answer.contains("application/problem+json"), "{head:?}: {answer}");
    }
    assert_eq!(origin.received().len(), 0);
}

#[tokio::test]
async fn connections_end_when_the_request_says_so_and_stay_otherwise() {
    let origin = Origin::start().await;
    let gateway =
        Gateway::start(&[&origin], Setup { proxy: "keepalive_timeout_secs = 1", ..Setup::default() }).await;
    // `exchange` returns at the close: the fields show whether it was announced.
    for (request, connection) in [
        ("GET / HTTP/1.0\r\n\r\n", "close"),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "close"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "close",
        ),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "keep-alive"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "keep-alive"),
    ] {
        let answer = exchange(gateway.address, request.as_bytes()).await;
        assert!(answer.contains(" 200 OK\r\n"), "{request}{answer}");
        assert!(answer.contains(&format!("Connection: {connection}\r\n")), "{request}{answer}");
    }
}

#[tokio::test]
async fn an_early_answer_does_not_leave_a_body_behind() {
    let origin = Origin::start().await;
    let gateway =
        Gateway::start(&[&origin], Setup { tables: "[rate_limit]\nrequests = 1\n", ..Setup::default() })
            .await;
    let post = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 33\r\n\r\n{}",
        "GET /smuggled HTTP/1.1\r\nHost: a\r\n"
    );
    // Pingora closes rather than reading what nobody wants, and says so; nothing of it is a request.
    let answers = testkit::converse(gateway.address, &[&post, &post]).await;
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 2, "{answers}");
    assert!(answers.contains("HTTP/1.1 429") && answers.contains("Connection: close\r\n"), "{answers}");
    assert_eq!(origin.received().len(), 1);
    assert_eq!(origin.count("/smuggled"), 0);
}

#[tokio::test]
async fn a_host_that_nobody_serves_is_404() {
    let origin = Origin::start().await;
    let tables = format!(
        "[proxy]\nlisten_addr_http = \"127.0.0.1:0\"\n[metrics]\nlisten_addr = \"127.0.0.1:0\"\n\
         [[virtual_hosts]]\ndomain = \"a.example\"\nenabled_backends_tag = \"a\"\n\
         [[backends]]\nid = \"a\"\naddress = \"{}\"\ntags = [\"a\"]\n",
        origin.address()
    );
    let gateway = Gateway::start_with_config(&tables).await;
    let answer = gateway.get("/").await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.json()["type"], "urn:problem-type:gateway:unknown-host");
    let request = Request::get(gateway.url("/")).header("Host", "A.example").body(bytes::Bytes::new());
    assert_eq!(Client::new().send(request.unwrap()).await.status, 200);
}

#[tokio::test]
async fn garbage_from_a_backend_is_502() {
    // A backend that answers every connection with something that is not HTTP.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(b"this is not HTTP\r\n\r\n").await;
        }
    });
    let gateway = Gateway::start_over(&[address], Setup { tables: NO_CHECKS, ..Setup::default() }).await;
    let answer = gateway.get("/").await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.header("proxy-status"), "gateway; error=http_protocol_error");
}

#[tokio::test]
async fn more_connections_than_allowed_are_refused() {
    let origin = Origin::start().await;
    let gateway =
        Gateway::start(&[&origin], Setup { proxy: "max_connections = 2", ..Setup::default() }).await;
    let connect = || tokio::net::TcpStream::connect(gateway.address);
    let held = [connect().await.unwrap(), connect().await.unwrap()];
    testkit::eventually!(gateway.metric("proxy_connections_active").await == 2.0);
    let refused = exchange(gateway.address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(refused, "");
    assert_eq!(gateway.metric("proxy_connections_refused_total").await, 1.0);
    drop(held);
    testkit::eventually!(gateway.metric("proxy_connections_active").await == 0.0);
    assert_eq!(gateway.get("/").await.status, 200);
}
