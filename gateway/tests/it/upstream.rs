//! Connections to backends: TLS, HTTP/2 and Unix sockets, for requests and for probes.

use std::path::Path;

use http::Version;
use testkit::tls::Authority;
use testkit::{Behaviour, Origin, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use crate::support::{Gateway, Setup};

/// Tables with one attempt and without probes, so that a connection error is visible at once.
const ONCE: &str = "[health_check]\nenabled = false\n[retry]\nattempts = 1\n";

fn tables(keys: &str) -> String {
    format!("{ONCE}[upstream]\n{keys}\n")
}

async fn start(origin: &Origin, keys: &str) -> Gateway {
    Gateway::start(&[origin], Setup { tables: &tables(keys), ..Setup::default() }).await
}

#[tokio::test]
async fn a_certificate_is_verified_against_name_and_authority() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let origin = Origin::start_tls(&authority.issue("web.test")).await;
    let ca = |authority: &Authority| format!("ca_file = \"{}\"", authority.certificate_file().display());
    for (keys, status) in [
        (format!("tls = true\nsni = \"web.test\"\n{}", ca(&authority)), 200),
        (format!("tls = true\nsni = \"other.test\"\n{}", ca(&authority)), 502),
        (format!("tls = true\nsni = \"web.test\"\n{}", ca(&stranger)), 502),
        ("tls = true\nsni = \"web.test\"".to_owned(), 502),
        ("tls = true\nsni = \"other.test\"\nverify = false".to_owned(), 200),
    ] {
        let gateway = start(&origin, &keys).await;
        let answer = gateway.get("/").await;
        assert_eq!(answer.status, status, "{keys}: {}", answer.text());
        if status == 502 {
            let reason = answer.header("proxy-status");
            assert!(reason.contains("error=tls_certificate_error"), "{keys}: {reason}");
        }
    }
}

#[tokio::test]
async fn connections_of_another_name_or_authority_are_not_shared() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let origin = Origin::start_tls(&authority.issue("web.test")).await;
    let host = |domain: &str, keys: &str| {
        format!(
            "[[virtual_hosts]]\ndomain = \"{domain}\"\nenabled_backends_tag = \"all\"\n[virtual_hosts.upstream]\n\
             tls = true\n{keys}\n"
        )
    };
    let right = format!("sni = \"web.test\"\nca_file = \"{}\"", authority.certificate_file().display());
    let wrong_ca = format!("sni = \"web.test\"\nca_file = \"{}\"", stranger.certificate_file().display());
    let wrong_name = right.replace("web.test", "other.test");
    let tables = format!(
        "{ONCE}{}{}{}{}",
        host("right", &right),
        host("blind", "sni = \"web.test\"\nverify = false"),
        host("wrong-ca", &wrong_ca),
        host("wrong-name", &wrong_name)
    );
    let gateway = Gateway::start(&[&origin], Setup { tables: &tables, ..Setup::default() }).await;
    for _ in 0..2 {
        for (domain, status) in [("blind", 200), ("right", 200), ("wrong-ca", 502), ("wrong-name", 502)] {
            assert_eq!(gateway.get_from(domain, "/").await.status, status, "{domain}");
        }
    }
}

#[tokio::test]
async fn the_gateway_shows_its_own_certificate() {
    let authority = Authority::new();
    let origin = Origin::start_mutual_tls(&authority.issue("web.test"), &authority).await;
    let keys =
        format!("tls = true\nsni = \"web.test\"\nca_file = \"{}\"", authority.certificate_file().display());
    assert_eq!(start(&origin, &keys).await.get("/").await.status, 502, "it shows none");
    let own = authority.issue("gateway.test");
    let keys = format!(
        "{keys}\nclient_cert_file = \"{}\"\nclient_key_file = \"{}\"",
        own.certificate_file().display(),
        own.key_file().display()
    );
    assert_eq!(start(&origin, &keys).await.get("/").await.status, 200);
}

#[tokio::test]
async fn http2_is_spoken_with_prior_knowledge_or_by_alpn() {
    let authority = Authority::new();
    let plain = Origin::start().await;
    let tls = Origin::start_tls(&authority.issue("web.test")).await;
    let over_tls =
        format!("tls = true\nsni = \"web.test\"\nca_file = \"{}\"", authority.certificate_file().display());
    for (origin, keys, version) in [
        (&plain, "protocol = \"http1\"".to_owned(), Version::HTTP_11),
        (&plain, "protocol = \"http2\"".to_owned(), Version::HTTP_2),
        (&tls, over_tls.clone(), Version::HTTP_11),
        (&tls, format!("{over_tls}\nprotocol = \"http2\""), Version::HTTP_2),
        (&tls, format!("{over_tls}\nprotocol = \"auto\""), Version::HTTP_2),
    ] {
        let gateway = start(origin, &keys).await;
        origin.forget();
        assert_eq!(gateway.get("/anything/a?b=c").await.status, 200, "{keys}");
        let large = "x".repeat(200_000);
        assert_eq!(gateway.post("/anything", &large).await.json()["body"], large.as_str(), "{keys}");
        let received = origin.received();
        assert_eq!(received.len(), 2, "{keys}");
        assert!(received.iter().all(|request| request.version == version), "{keys}: {received:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_good_is_named_with_its_place() {
    let origin = Origin::start().await;
    let gateway = start(&origin, "").await;
    let config = std::fs::read_to_string(gateway.file()).unwrap();
    let config =
        config.replace("[upstream]\n", "[upstream]\ntls = true\nsni = \"a\"\nca_file = \"/no/such.pem\"\n");
    gateway.edit(&config);
    let line = gateway.process.line("cannot read '/no/such.pem'").await;
    assert!(line.contains("gateway.toml:"), "{line}");
    assert_eq!(gateway.get("/").await.status, 200, "what ran before goes on");
}

/// Starts a backend on a Unix socket, which answers one request after another on a connection.
fn serve_at(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = Vec::new();
                while let Ok(byte) = stream.read_u8().await {
                    request.push(byte);
                    if request.ends_with(b"\r\n\r\n") {
                        request.clear();
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsocket";
                        if stream.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
}

#[tokio::test]
async fn a_backend_may_be_a_unix_socket_and_is_probed_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    serve_at(&path);
    let config = crate::support::config(
        &[],
        Setup { tables: "[health_check]\npath = \"/health\"\ninterval_secs = 1\n", ..Setup::default() },
    );
    let backend =
        format!("[[backends]]\nid = \"app\"\naddress = \"unix:{}\"\ntags = [\"all\"]\n", path.display());
    let gateway = Gateway::start_with_config(&(config + &backend)).await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/").await.text(), "socket");
    }
    let passed = "health_check_probes_total{backend=\"app\",result=\"passed\"}";
    eventually!(gateway.metric(passed).await >= 1.0);
    assert_eq!(gateway.metric("proxy_backend_connections_total{backend=\"app\"}").await, 1.0, "it is kept");
}

#[tokio::test]
async fn probes_go_over_tls_and_ask_grpc_servers_in_their_way() {
    let authority = Authority::new();
    let over_tls = Origin::start_tls(&authority.issue("web.test")).await;
    let tables = format!(
        "[health_check]\npath = \"/health\"\nhost = \"probe.test\"\ninterval_secs = 1\nunhealthy_threshold = 1\n\
         [upstream]\ntls = true\nsni = \"web.test\"\nca_file = \"{}\"\n",
        authority.certificate_file().display()
    );
    let gateway = Gateway::start(&[&over_tls], Setup { tables: &tables, ..Setup::default() }).await;
    eventually!(over_tls.count("/health") >= 1);
    assert_eq!(over_tls.received()[0].header("host"), "probe.test");
    assert_eq!(gateway.metric("health_check_status{backend=\"origin-0\"}").await, 1.0);

    let grpc = Origin::start().await;
    grpc.behave(Behaviour::Chunks(&["\0\0\0\0\u{2}", "\u{8}\u{1}"]));
    let tables = "[health_check]\nkind = \"grpc\"\ninterval_secs = 1\nunhealthy_threshold = 1\nhealthy_threshold = 1\n\
                  [upstream]\nprotocol = \"http2\"\n";
    let gateway = Gateway::start(&[&grpc], Setup { tables, ..Setup::default() }).await;
    let healthy = "health_check_status{backend=\"origin-0\"}";
    eventually!(
        gateway.metric("health_check_probes_total{backend=\"origin-0\",result=\"passed\"}").await >= 1.0
    );
    let probe = &grpc.received()[0];
    assert_eq!((probe.uri.path(), probe.version), ("/grpc.health.v1.Health/Check", Version::HTTP_2));
    assert_eq!((probe.header("content-type"), &probe.body[..]), ("application/grpc", &[0; 5][..]));
    // The gRPC health status NOT_SERVING.
    grpc.behave(Behaviour::Chunks(&["\0\0\0\0\u{2}\u{8}\u{2}"]));
    eventually!(gateway.metric(healthy).await == 0.0);
    grpc.behave(Behaviour::Chunks(&["\0\0\0\0\u{2}\u{8}\u{1}"]));
    eventually!(gateway.metric(healthy).await == 1.0);
}

/// Starts a backend that answers each request with these bytes and closes the connection.
async fn saying(bytes: &'static [u8]) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                request.push(byte);
            }
            let _ = stream.write_all(bytes).await;
        }
    });
    address
}

#[tokio::test]
async fn http_1_0_response_is_sent_as_http_1_1() {
    for (answer, begins, contains) in [
        (&b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi"[..], "HTTP/1.1 200 ", "hi"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", "HTTP/1.1 200 ", "until the end"),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 204 ", "via: 1.1 gateway"),
        (
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            "HTTP/1.1 502 ",
            "http_protocol_error",
        ),
    ] {
        let gateway =
            Gateway::start_over(&[saying(answer).await], Setup { tables: ONCE, ..Setup::default() }).await;
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let got = testkit::exchange(gateway.address, request).await;
        assert!(got.starts_with(begins) && got.contains(contains), "{got}");
        assert!(!got.starts_with("HTTP/1.1 204 ") || !got.to_lowercase().contains("content-length"), "{got}");
    }
}

#[tokio::test]
async fn http2_backend_failure_retries_get_but_not_post() {
    let (bad, good) = (Origin::start().await, Origin::start().await);
    let tables = "[health_check]\nenabled = false\n[upstream]\nprotocol = \"http2\"\nread_timeout_secs = 1\n";
    let setup = Setup { proxy: "request_timeout_secs = 3", tables };
    let gateway = Gateway::start(&[&bad, &good], setup).await;
    for behaviour in [Behaviour::Reset, Behaviour::Stall] {
        bad.behave(behaviour);
        for _ in 0..2 {
            assert_eq!(gateway.get("/").await.status, 200, "{behaviour:?}");
        }
        bad.forget();
        good.forget();
        let statuses = [gateway.post("/post", "x").await.status, gateway.post("/post", "x").await.status];
        let failed = if behaviour == Behaviour::Reset { 502 } else { 504 };
        assert!(statuses.map(|status| status.as_u16()).contains(&failed), "{behaviour:?}: {statuses:?}");
        assert_eq!(bad.count("/post") + good.count("/post"), 2, "no POST was sent twice");
    }
}

#[tokio::test]
async fn http2_bodiless_request_has_deadline_and_mirror() {
    let (origin, shadow) = (Origin::start().await, Origin::start().await);
    let tables = format!(
        "[health_check]\nenabled = false\n[upstream]\nprotocol = \"http2\"\n\
         [[virtual_hosts]]\ndomain = \"m\"\nenabled_backends_tag = \"all\"\n\
         [[virtual_hosts.routes]]\npath_prefix = \"/\"\nmirror_tag = \"shadow\"\n\
         [[backends]]\nid = \"shadow\"\naddress = \"{}\"\ntags = [\"shadow\"]\n",
        shadow.address()
    );
    let setup = Setup { proxy: "request_timeout_secs = 1", tables: &tables };
    let gateway = Gateway::start(&[&origin], setup).await;
    assert_eq!(gateway.get_from("m", "/copied").await.status, 404);
    eventually!(shadow.count("/copied") == 1);
    origin.behave(Behaviour::Stall);
    let answer = gateway.get("/").await;
    assert_eq!(answer.status, 504, "well before the read timeout of half a minute");
}
