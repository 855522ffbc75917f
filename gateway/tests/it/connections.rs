//! Connections to backends: which requests share them, what closes them, and how their certificates are verified.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use testkit::tls::{Authority, Identity};
use testkit::{Origin, converse, eventually, exchange};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{Gateway, Setup};

const ONCE: &str = "[health_check]\nenabled = false\n[retry]\nattempts = 1\n";

async fn over(backend: SocketAddr, upstream: &str) -> Gateway {
    let tables = format!("{ONCE}[circuit_breaker]\nenabled = false\n[upstream]\n{upstream}\n");
    Gateway::start_over(&[backend], Setup { tables: &tables, ..Setup::default() }).await
}

/// A backend that speaks HTTP/1 without a library, over TLS if it has an identity. It answers every request
/// with `answer`, which gets the head.
struct ByHand {
    address: SocketAddr,
    /// Connection number and request line of each request.
    seen: Arc<Mutex<Vec<(usize, String)>>>,
}

impl ByHand {
    async fn start(
        identity: Option<Identity>,
        answer: impl Fn(&str) -> String + Clone + Send + Sync + 'static,
    ) -> ByHand {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<(usize, String)>>>::default();
        let record = seen.clone();
        let identity = identity.map(Arc::new);
        tokio::spawn(async move {
            for number in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (record, answer, identity) = (record.clone(), answer.clone(), identity.clone());
                tokio::spawn(async move {
                    match identity {
                        None => serve(stream, number, &record, answer).await,
                        Some(identity) => {
                            let Ok(stream) = identity.accept(stream, b"\x08http/1.1").await else { return };
                            serve(stream, number, &record, answer).await;
                        }
                    }
                });
            }
        });
        ByHand { address, seen }
    }

    /// Returns the connections that had requests with `line` in the request line.
    fn connections(&self, line: &str) -> Vec<usize> {
        let seen = self.seen.lock();
        seen.iter().filter(|(_, first)| first.contains(line)).map(|(number, _)| *number).collect()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    number: usize,
    record: &Mutex<Vec<(usize, String)>>,
    answer: impl Fn(&str) -> String,
) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        record.lock().push((number, head.lines().next().unwrap_or_default().to_owned()));
        let answer = answer(&head);
        if stream.write_all(answer.as_bytes()).await.is_err() || answer.is_empty() {
            return;
        }
        if head.starts_with("HEAD") {
            return;
        }
    }
}

const FINE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn connection_based_login_is_bound_to_the_clients_connection() {
    let backend = ByHand::start(None, |_| FINE.to_owned()).await;
    let gateway = over(backend.address, "").await;
    let get = |path: &str, field: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n{field}\r\n");
    let close = "Connection: close\r\n";
    converse(gateway.address, &[&get("/before", close)]).await;
    let login = ["NTLM TlRMTVNTUAAB", "Negotiate YIIJ"].map(|value| format!("Authorization: {value}\r\n"));
    for (who, login) in ["a", "b"].iter().zip(&login) {
        let steps = [
            get(&format!("/{who}-1"), login),
            get(&format!("/{who}-2"), ""),
            get(&format!("/{who}-3"), close),
        ];
        let got = converse(gateway.address, &steps.each_ref().map(String::as_str)).await;
        assert_eq!(got.matches("HTTP/1.1 200").count(), 3, "{got}");
    }
    converse(gateway.address, &[&get("/after", close)]).await;
    let of = |line: &str| backend.connections(line);
    assert_eq!(of("/a-").len(), 3);
    assert!(of("/a-").iter().all(|connection| *connection == of("/a-")[0]), "one client, one login");
    assert!(of("/b-").iter().all(|connection| *connection == of("/b-")[0]));
    let mut all = [of("/before"), of("/a-1"), of("/b-1")].concat();
    all.dedup();
    assert_eq!(all.len(), 3, "nobody shares a connection with a login: {all:?}");
    assert_eq!(of("/before"), of("/after"), "the others share theirs");
    gateway.process.line("NTLM or Negotiate").await;
}

#[tokio::test]
async fn a_head_answered_without_a_length_ends_its_connection() {
    let backend = ByHand::start(None, |head| match head.starts_with("HEAD") {
        true => "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n".to_owned(),
        false => FINE.to_owned(),
    })
    .await;
    let gateway = over(backend.address, "").await;
    for _ in 0..100 {
        let head = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
        let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let got = exchange(gateway.address, format!("{head}{post}").as_bytes()).await;
        assert_eq!(got.matches("HTTP/1.1 200").count(), 2, "{got}");
    }
}

#[tokio::test]
async fn backend_that_negotiates_http1_is_inspected() {
    let authority = Authority::new();
    let broken = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n\r\n\r\n";
    let answer = move |head: &str| if head.contains("/broken") { broken } else { FINE }.to_owned();
    let backend = ByHand::start(Some(authority.issue("web.test")), answer).await;
    let origin = Origin::start_tls(&authority.issue("web.test")).await;
    let upstream = format!(
        "protocol = \"auto\"\ntls = true\nsni = \"web.test\"\nca_file = \"{}\"",
        authority.certificate_file().display()
    );
    let gateway = over(backend.address, &upstream).await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/").await.status, 200, "the first request is sent once, as all others");
    }
    assert_eq!(backend.connections("GET / ").len(), 3);
    let got =
        exchange(gateway.address, b"GET /broken HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(got.contains("http_protocol_error"), "half a body is not a whole one: {got}");
    let both = Gateway::start_over(
        &[backend.address, origin.address()],
        Setup { tables: &format!("{ONCE}[upstream]\n{upstream}\n"), ..Setup::default() },
    )
    .await;
    for _ in 0..10 {
        assert_eq!(both.get("/").await.status, 200);
    }
    assert!(origin.received().iter().all(|request| request.version == http::Version::HTTP_2));
}

#[tokio::test]
async fn a_certificate_may_be_for_an_address() {
    let authority = Authority::new();
    let ca = format!("ca_file = \"{}\"", authority.certificate_file().display());
    for protocol in ["http1", "http2", "auto"] {
        for (name, status) in [("127.0.0.1", 200), ("127.0.0.2", 502), ("web.test", 502)] {
            let origin = Origin::start_tls(&authority.issue(name)).await;
            let keys = format!("tls = true\nsni = \"127.0.0.1\"\nprotocol = \"{protocol}\"\n{ca}");
            let gateway = over(origin.address(), &keys).await;
            let got = gateway.get("/").await;
            assert_eq!(got.status, status, "{protocol}, for {name}: {}", got.text());
            if status == 502 {
                assert!(
                    got.header("proxy-status").contains("error=tls_certificate_error"),
                    "{protocol}, for {name}"
                );
                let said = gateway.process.line("certificate is refused").await;
                assert!(said.contains("IP address mismatch") && said.contains(name), "{said}");
                assert_eq!(origin.received().len(), 0, "nothing is sent to it");
            }
        }
    }
}

#[tokio::test]
async fn refused_certificate_is_logged_once_with_its_reason() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let ca = |authority: &Authority| format!("ca_file = \"{}\"", authority.certificate_file().display());
    for (identity, ca, reason) in [
        (authority.issue_expired("web.test"), ca(&authority), "certificate has expired"),
        (authority.issue("other.test"), ca(&authority), "hostname mismatch"),
        (authority.issue("web.test"), ca(&stranger), "certificate signature failure"),
    ] {
        let origin = Origin::start_tls(&identity).await;
        let keys = format!("tls = true\nsni = \"web.test\"\n{ca}");
        let gateway = over(origin.address(), &keys).await;
        for _ in 0..3 {
            assert_eq!(gateway.get("/").await.status, 502);
        }
        let said = gateway.process.line("certificate is refused").await;
        assert!(said.to_ascii_lowercase().contains(reason), "{said}");
        assert_eq!(gateway.process.output().matches("certificate is refused").count(), 1, "once is enough");

        let tables =
            format!("[health_check]\ninterval_secs = 1\nunhealthy_threshold = 1\n[upstream]\n{keys}\n");
        let probing = Gateway::start(&[&origin], Setup { tables: &tables, ..Setup::default() }).await;
        let said = probing.process.line("backend is unhealthy").await;
        assert!(said.to_ascii_lowercase().contains(reason), "{said}");
    }
}

#[tokio::test]
async fn the_system_watches_connections_to_backends() {
    let origin = Origin::start().await;
    let gateway = over(origin.address(), "").await;
    assert_eq!(gateway.get("/").await.status, 200);
    let peer = format!("0100007F:{:04X}", origin.address().port());
    // A socket's line has its local address, peer, state, queues, and active timer. Timer 2 is keep-alive.
    let timers = || {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let sockets = sockets.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        let open = sockets.filter(|socket| socket[2] == peer && socket[3] == "01");
        open.map(|socket| socket[5].starts_with("02:")).collect::<Vec<_>>()
    };
    eventually!(timers() == [true], "{:?}", timers());
}
