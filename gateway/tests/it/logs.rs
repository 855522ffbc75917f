use serde_json::Value;
use testkit::tls::{Authority, handshake};
use testkit::{Origin, dead_address, eventually, exchange, exchange_over};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Gateway, Setup};
use crate::tls::{config, shows};

#[tokio::test]
async fn each_request_is_one_json_line() {
    let origin = Origin::start().await;
    let gateway =
        Gateway::start(&[&origin], Setup { tables: "[logging]\nformat = \"json\"\n", ..Setup::default() })
            .await;
    let answer = gateway.get("/bytes/66?token=secret").await;
    let line = gateway.process.line("/bytes/66").await;
    let record: Value = serde_json::from_str(&line).unwrap();
    for (field, expected) in [
        ("level", "INFO"),
        ("method", "GET"),
        ("path", "/bytes/66"),
        ("client", "127.0.0.1"),
        ("backend", "origin-0"),
        ("message", "GET /bytes/66 200"),
        ("request_id", answer.header("x-request-id")),
    ] {
        assert_eq!(record[field], expected, "{line}");
    }
    assert_eq!(
        (&record["status"], &record["bytes"], &record["attempts"]),
        (&200.into(), &66.into(), &1.into())
    );
    assert!(record["duration_ms"].as_f64().is_some_and(|ms| ms > 0.0));
    assert!(record["timestamp"].as_str().is_some_and(|time| time.starts_with("20") && time.ends_with('Z')));
    let output = gateway.process.output();
    assert!(!output.contains("secret"), "queries may hold secrets");
    for line in output.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "not JSON: {line}");
    }
}

#[tokio::test]
async fn a_failure_is_one_line_that_says_why() {
    let tables = "[health_check]\nenabled = false\n";
    let gateway = Gateway::start_over(&[dead_address()], Setup { tables, ..Setup::default() }).await;
    gateway.get("/gone").await;
    let line = gateway.process.line("/gone").await;
    assert!(line.contains("GET /gone 502 "), "{line}");
    assert!(line.contains("backend=origin-0") && line.contains("error=\"connection_refused\""), "{line}");
    assert_eq!(gateway.process.output().matches("gone").count(), 1, "{}", gateway.process.output());
}

#[tokio::test]
async fn a_client_that_leaves_is_499_and_its_backend_is_let_go() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&[&origin], Setup::default()).await;
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(b"GET /delay/60000 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    testkit::eventually!(origin.count("/delay/60000") == 1);
    assert_eq!(gateway.metric("proxy_backend_requests_active{backend=\"origin-0\"}").await, 1.0);
    drop(client);
    let line = gateway.process.line("/delay/60000").await;
    assert!(line.contains(" 499 ") && line.contains("error=\"client_closed\""), "{line}");
    testkit::eventually!(gateway.metric("proxy_backend_requests_active{backend=\"origin-0\"}").await == 0.0);
    testkit::eventually!(gateway.metric("proxy_requests_active").await == 0.0);
}

#[tokio::test]
async fn logs_go_to_a_file_and_the_access_log_can_be_off() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.log");
    let tables = format!("[logging]\noutput = \"file\"\nfile_path = {path:?}\n");
    let origin = Origin::start().await;
    let gateway = Gateway::start_logging_to(&path, &[&origin], &tables).await;
    gateway.get("/anything/seen").await;
    let log = || std::fs::read_to_string(&path).unwrap_or_default();
    testkit::eventually!(log().contains("GET /anything/seen 200"));
    assert_eq!(gateway.process.output(), "");

    let quiet = format!("[logging]\naccess_log = false\noutput = \"file\"\nfile_path = {path:?}\n");
    drop(gateway);
    std::fs::remove_file(&path).unwrap();
    let mut gateway = Gateway::start_logging_to(&path, &[&origin], &quiet).await;
    gateway.get("/unseen").await;
    gateway.process.signal(testkit::Signal::SIGTERM);
    gateway.process.ended(testkit::DEADLINE).await;
    assert!(log().contains("stopping") && !log().contains("unseen"), "{}", log());
}

#[tokio::test]
async fn client_faults_are_not_logged_as_errors() {
    let origin = Origin::start().await;
    for access_log in [true, false] {
        let tables = format!("[logging]\naccess_log = {access_log}\n");
        let gateway = Gateway::start(&[&origin], Setup { tables: &tables, ..Setup::default() }).await;
        for request in [
            "BAD\r\n\r\n",
            "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /bytes/100000 HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\nx",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\nx",
        ] {
            for _ in 0..10 {
                let mut client = TcpStream::connect(gateway.address).await.unwrap();
                client.write_all(request.as_bytes()).await.unwrap();
                client.set_zero_linger().unwrap();
            }
        }
        // The gateway has accepted all earlier connections by now. They are finished when no connection is open.
        exchange(gateway.address, b"GET /after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        eventually!(gateway.metric("proxy_connections_active").await == 0.0);
        let said = gateway.process.output();
        assert!(!said.contains("ERROR"), "{said}");
    }
}

#[tokio::test]
async fn chosen_fields_tell_of_tls_of_the_attempt_and_of_the_client() {
    let authority = Authority::new();
    let origin = Origin::start().await;
    let identity = authority.issue("web.test");
    let fields = "access_fields = [\"protocol\", \"query\", \"user_agent\", \"referer\", \"tls_version\", \"tls_cipher\", \
                  \"server_name\", \"virtual_host\", \"route\", \"tag\", \"upstream_connect_ms\", \
                  \"upstream_response_ms\", \"upstream_ms\", \"status\"]";
    let text = config(origin.address(), "", &[shows("web.test", &identity)]);
    let gateway =
        Gateway::start_with_config(&format!("[logging]\naccess_format = \"json\"\n{fields}\n{text}")).await;
    let stream = handshake(gateway.https().await, Some("web.test"), |_| Ok(())).await.unwrap();
    let request = "GET /delay/30?page=2&token=secret HTTP/1.1\r\nHost: web.test\r\nUser-Agent: \"x\"\r\n\
                   Connection: close\r\n\r\n";
    exchange_over(stream, request.as_bytes()).await;
    let line = gateway.process.line("\"protocol\":").await;
    let record: Value = serde_json::from_str(&line).unwrap();
    for (field, expected) in [
        ("protocol", "HTTP/1.1"),
        ("query", "page=2&token=***"),
        ("user_agent", "\"x\""),
        ("tls_version", "TLSv1.3"),
        ("server_name", "web.test"),
        ("virtual_host", "web.test"),
        ("route", "/"),
        ("tag", "all"),
    ] {
        assert_eq!(record[field], expected, "{line}");
    }
    assert!(record["tls_cipher"].as_str().is_some_and(|cipher| cipher.starts_with("TLS_")), "{line}");
    assert_eq!((&record["referer"], &record["status"]), (&Value::Null, &200.into()), "{line}");
    let ms = |field: &str| record[field].as_f64().unwrap();
    assert!(ms("upstream_connect_ms") > 0.0 && ms("upstream_response_ms") >= 30.0, "{line}");
    assert!(ms("upstream_ms") >= ms("upstream_connect_ms") + ms("upstream_response_ms"), "{line}");
}

#[tokio::test]
async fn sampled_classes_of_statuses_leave_the_others_whole() {
    let origin = Origin::start().await;
    let tables =
        "[logging]\naccess_sample_percent = { \"2xx\" = 0 }\naccess_format = \"[{status} {path}]\"\n";
    let gateway = Gateway::start(&[&origin], Setup { tables, ..Setup::default() }).await;
    for path in ["/anything/hidden", "/status/404", "/anything/hidden", "/status/500"] {
        gateway.get(path).await;
    }
    gateway.process.line("[500 /status/500]").await;
    let output = gateway.process.output();
    assert!(output.contains("[404 /status/404]") && !output.contains("hidden"), "{output}");
}
