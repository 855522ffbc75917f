//! Requests and responses on the other side of the gateway: fields, lengths, trailers, authorities.

use bytes::Bytes;
use http::{Method, Request, Version};
use hyper_util::rt::TokioIo;
use testkit::tls::Authority;
use testkit::{Origin, eventually, exchange};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{connect_tls, start, start_tls};
use crate::frames::{DATA, END_HEADERS, END_STREAM, Frame, HEADERS, PROTOCOL_ERROR, RST_STREAM, Wire, block};
use crate::grpc::client::Calls;
use crate::grpc::service::Echo;
use crate::h2_peers::{Backend, Does, connect, connect_over, send};
use crate::websocket::{over, raw};

fn get(path: &str) -> http::request::Builder {
    Request::get(format!("http://web.test{path}"))
}

#[tokio::test]
async fn http2_is_agreed_on_in_tls_or_known_before() {
    let (authority, origin) = (Authority::new(), Origin::start().await);
    let identity = authority.issue("web.test");
    let (gateway, https) = start_tls(origin.address(), &identity, "").await;
    let tls = connect_tls(https, &authority, b"\x02h2\x08http/1.1").await;
    assert_eq!(tls.ssl().selected_alpn_protocol(), Some(&b"h2"[..]));
    let request = Request::post("https://web.test/anything").body(()).unwrap();
    let answer = send(&connect_over(tls).await, request, "over TLS").await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(String::from_utf8_lossy(&answer.body).contains("over TLS"), "{answer:?}");
    let tls = connect_tls(https, &authority, b"\x08http/1.1").await;
    assert_eq!(tls.ssl().selected_alpn_protocol(), Some(&b"http/1.1"[..]));

    let client = connect(gateway.address).await;
    let answers = futures::future::join_all(
        (0..50).map(|i| send(&client, get(&format!("/anything/{i}")).body(()).unwrap(), "")),
    );
    assert!(answers.await.iter().all(|answer| answer.as_ref().unwrap().status == 200));
    let old = exchange(gateway.address, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.1 200"), "the same listener speaks HTTP/1: {old}");
}

#[tokio::test]
async fn calls_of_grpc_go_over_tls_too() {
    let (authority, echo) = (Authority::new(), Echo::start().await);
    let identity = authority.issue("web.test");
    let (_gateway, https) = start_tls(echo.address, &identity, "[upstream]\nprotocol = \"http2\"\n").await;
    let authority = std::sync::Arc::new(authority);
    let connector = tower::service_fn(move |_: http::Uri| {
        let authority = authority.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(connect_tls(https, &authority, b"\x02h2").await)) }
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://web.test");
    let endpoint = endpoint.origin("https://web.test".parse().unwrap());
    let mut calls = Calls::new(endpoint.connect_with_connector(connector).await.unwrap());
    assert_eq!(calls.say("hello").await.unwrap(), "you said hello");
    assert_eq!(calls.say("fail 5").await.unwrap_err().code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn trailers_of_a_response_arrive() {
    let backend = Backend::start(Does::Trailers).await;
    let tables = "[health_check]\nenabled = false\n[upstream]\nprotocol = \"http2\"\n";
    let setup = crate::support::Setup { proxy: super::CLEARTEXT, tables };
    let gateway = crate::support::Gateway::start_over(&[backend.address], setup).await;
    let answer = send(&connect(gateway.address).await, get("/").body(()).unwrap(), "").await.unwrap();
    assert_eq!((answer.last_field("x-checksum"), &answer.body[..]), ("abc", &b"hello"[..]), "{answer:?}");
}

/// Returns the frames of a POST with a body and trailers.
fn post_with_trailers(stream: u32, trailers: &[(&str, &str)]) -> [Frame; 3] {
    let head = [(":method", "POST"), (":scheme", "http"), (":authority", "web.test"), (":path", "/anything")];
    [
        Frame::head(stream, &head, false),
        Frame::new(DATA, 0, stream, *b"hello"),
        Frame::head(stream, trailers, true),
    ]
}

#[tokio::test]
async fn request_trailers_are_dropped_and_invalid_ones_refused() {
    let origin = Origin::start().await;
    for protocol in ["http1", "http2"] {
        let gateway = start(&origin, &format!("[upstream]\nprotocol = \"{protocol}\"\n")).await;
        origin.forget();
        let mut wire = Wire::connect(gateway.address).await;
        assert!(wire.send(&post_with_trailers(1, &[("x-checksum", "abc")])).await);
        assert_eq!(wire.status(1).await, 200, "{protocol}");
        wire.find(Frame::is_end).await.unwrap();
        let received = origin.received();
        assert_eq!((received.len(), &received[0].body[..]), (1, &b"hello"[..]), "{protocol}");
        assert_eq!(received[0].uri.path(), "/anything");
        assert!(!received[0].headers.contains_key("x-checksum"));

        origin.forget();
        for (stream, trailers) in
            [(3, [(":path", "/admin"), ("x-sum", "a")]), (5, [("x\"y", "b"), ("x-sum", "a")])]
        {
            assert!(wire.send(&post_with_trailers(stream, &trailers)).await);
            let answer = wire.find(|frame| frame.stream == stream).await.unwrap();
            assert_eq!(
                (answer.kind, answer.reason()),
                (RST_STREAM, PROTOCOL_ERROR),
                "{protocol}: {trailers:?}"
            );
        }
        eventually!(gateway.metric("proxy_requests_active").await == 0.0);
        assert!(
            origin
                .received()
                .iter()
                .all(|request| request.uri.path() == "/anything" && request.body.is_empty())
        );
        assert!(wire.send(&[Frame::head(7, &crate::frames::get("web.test"), true)]).await);
        assert_eq!(wire.status(7).await, 200, "the connection goes on");
    }
}

#[tokio::test]
async fn a_malformed_request_ends_its_stream_and_no_other() {
    let origin = Origin::start().await;
    let gateway = start(&origin, "").await;
    let mut wire = Wire::connect(gateway.address).await;
    origin.behave(testkit::Behaviour::Stall);
    assert!(wire.send(&[Frame::head(1, &crate::frames::get("web.test"), true)]).await);
    eventually!(gateway.metric("proxy_backend_requests_active").await == 1.0);
    let mut stream = 1;
    let fields = [
        ("X-A", "b"),
        ("x a", "b"),
        ("x\"y", "b"),
        ("", "b"),
        ("x", "a\nb"),
        ("x", "a\0b"),
        (":foo", "b"),
        (":status", "200"),
    ];
    for field in fields {
        stream += 2;
        let head = [&crate::frames::get("web.test")[..], &[field]].concat();
        assert!(wire.send(&[Frame::head(stream, &head, true)]).await);
        let answer = wire.find(|frame| frame.stream != 0).await.unwrap();
        assert_eq!((answer.stream, answer.kind), (stream, RST_STREAM), "{field:?}");
        assert_eq!(answer.reason(), PROTOCOL_ERROR, "{field:?}");
    }
    let counted = gateway.metric("proxy_limits_exceeded_total{limit=\"http2_malformed\"}").await;
    assert_eq!(counted, fields.len() as f64);
    assert_eq!(origin.received().len(), 1);
    origin.behave(testkit::Behaviour::Answer);
    assert!(wire.send(&[Frame::head(stream + 2, &crate::frames::get("web.test"), true)]).await);
    assert_eq!(wire.status(stream + 2).await, 200, "the connection goes on");
}

#[tokio::test]
async fn many_cookies_are_one_field_over_either_version() {
    let origin = Origin::start().await;
    let gateway = start(&origin, "").await;
    let cookies: Vec<String> = (0..150).map(|i| format!("_ga_{i:03}=GS1.1.{i:09}")).collect();
    let request = cookies.iter().fold(get("/"), |request, cookie| request.header("cookie", cookie));
    let answer = send(&connect(gateway.address).await, request.body(()).unwrap(), "").await.unwrap();
    assert_eq!(answer.status, 200);
    let head =
        format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nCookie: {}\r\n\r\n", cookies.join("; "));
    assert!(exchange(gateway.address, head.as_bytes()).await.starts_with("HTTP/1.1 200 "));
    let received: Vec<_> =
        origin.received().iter().map(|request| request.headers["cookie"].clone()).collect();
    assert_eq!(received, [cookies.join("; "), cookies.join("; ")]);
}

#[tokio::test]
async fn backend_timeout_applies_after_request_trailers() {
    let origin = Origin::start().await;
    for protocol in ["http1", "http2"] {
        let tables =
            format!("[upstream]\nprotocol = \"{protocol}\"\nread_timeout_secs = 1\n[retry]\nattempts = 1\n");
        let gateway = start(&origin, &tables).await;
        origin.behave(testkit::Behaviour::Stall);
        let mut wire = Wire::connect(gateway.address).await;
        assert!(wire.send(&post_with_trailers(1, &[("x-checksum", "abc")])).await);
        assert!(wire.find(|frame| frame.kind == HEADERS).await.is_some());
        let logged = gateway.process.line("http_response_timeout").await;
        assert!(logged.contains(" 504 "), "{protocol}: {logged}");
    }
}

#[tokio::test]
async fn pseudo_headers_in_trailers_of_a_response_are_dropped() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut wire = Wire::accept(listener.accept().await.unwrap().0).await;
        let request = wire.find(|frame| frame.kind == HEADERS).await.unwrap();
        let answer = [
            Frame::new(HEADERS, END_HEADERS, request.stream, block(&[(":status", "200")])),
            Frame::new(DATA, 0, request.stream, *b"hello"),
            Frame::head(request.stream, &[(":status", "404"), ("x-checksum", "abc")], true),
        ];
        assert!(wire.send(&answer).await);
        let _ = wire.ended().await;
    });
    let tables = "[health_check]\nenabled = false\n[upstream]\nprotocol = \"http2\"\n";
    let setup = crate::support::Setup { proxy: super::CLEARTEXT, tables };
    let gateway = crate::support::Gateway::start_over(&[backend], setup).await;
    let answer = send(&connect(gateway.address).await, get("/").body(()).unwrap(), "").await.unwrap();
    assert_eq!(answer.status, 200);
    let trailers = answer.trailers.unwrap();
    assert_eq!((trailers.len(), &trailers["x-checksum"]), (1, &"abc".parse().unwrap()));
}

#[tokio::test]
async fn request_with_ambiguous_length_is_refused() {
    let origin = Origin::start().await;
    let gateway = start(&origin, "").await;
    let post = |lengths: &[&'static str]| {
        let mut fields = vec![(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
        fields.extend(lengths.iter().map(|length| ("content-length", *length)));
        [Frame::head(1, &fields, false), Frame::new(DATA, END_STREAM, 1, *b"hello")]
    };
    let mut wire = Wire::connect(gateway.address).await;
    assert!(wire.send(&post(&["5", "5"])).await);
    assert_eq!(wire.status(1).await, 400);
    for lengths in [&["5", "6"][..], &["5, 5"], &["5x"], &["6"], &["4"]] {
        let mut wire = Wire::connect(gateway.address).await;
        assert!(wire.send(&post(lengths)).await);
        let answer = wire.find(|frame| frame.stream == 1).await.unwrap();
        assert_eq!((answer.kind, answer.reason()), (RST_STREAM, PROTOCOL_ERROR), "{lengths:?}");
    }
    for length in ["5\r\nContent-Length: 5", "5, 5", "5\r\nContent-Length: 6", "+5", "5x", "0x5", ""] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\nhello");
        let request = request + "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        let answer = exchange(gateway.address, request.as_bytes()).await;
        let answers = answer.matches("HTTP/1.1 ").count();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400") && answers == 1,
            "{length:?}: {answer}"
        );
    }
    assert!(origin.received().iter().all(|request| request.body.is_empty()), "{:?}", origin.received());
    assert_eq!(origin.count("/smuggled"), 0);
}

#[tokio::test]
async fn split_cookie_fields_are_joined_for_http1_backends() {
    let origin = Origin::start().await;
    for (protocol, expected) in
        [("http1", &["a=1; b=2; c=3; d=4"][..]), ("http2", &["a=1", "b=2; c=3", "d=4"])]
    {
        let gateway = start(&origin, &format!("[upstream]\nprotocol = \"{protocol}\"\n")).await;
        origin.forget();
        let crumbs = ["a=1", "b=2; c=3", "d=4"];
        let request = crumbs.iter().fold(get("/"), |request, crumb| request.header("cookie", *crumb));
        let client = connect(gateway.address).await;
        assert_eq!(send(&client, request.body(()).unwrap(), "").await.unwrap().status, 200);
        let received = origin.received();
        let cookies: Vec<_> = received[0].headers.get_all("cookie").iter().collect();
        assert_eq!(cookies, expected, "{protocol}");
    }
}

#[tokio::test]
async fn the_authority_is_handled_as_host_is() {
    let origin = Origin::start().await;
    let host = "[[virtual_hosts]]\ndomain = \"shop.test\"\nenabled_backends_tag = \"all\"\n\
                [virtual_hosts.headers]\nresponse_set = { \"X-Shop\" = \"yes\" }\n";
    let gateway = start(&origin, host).await;
    let client = connect(gateway.address).await;
    for (authority, is_shop) in [
        ("shop.test", true),
        ("SHOP.Test", true),
        ("shop.test.", true),
        ("shop.test:8443", true),
        ("other.test", false),
    ] {
        origin.forget();
        let request = Request::get(format!("http://{authority}/")).body(()).unwrap();
        let answer = send(&client, request, "").await.unwrap();
        assert_eq!(answer.headers.contains_key("x-shop"), is_shop, "{authority}: {answer:?}");
        assert_eq!(origin.received()[0].header("host"), authority);
        assert_eq!(origin.received()[0].version, Version::HTTP_11);
    }
    for (authority, hosts, status) in [
        (Some("shop.test"), &["shop.test"][..], 200),
        (Some("shop.test"), &["Shop.TEST"], 200),
        (Some("shop.test"), &["shop.test:80"], 200),
        (Some("shop.test:80"), &["shop.test"], 200),
        (Some("shop.test"), &["shop.test:81"], 400),
        (Some("shop.test"), &["other.test"], 400),
        (Some("user@shop.test"), &[], 400),
        (Some("shop/test"), &[], 400),
        (None, &["shop.test"], 200),
        (None, &["shop.test", "shop.test"], 400),
        (None, &[], 400),
    ] {
        let mut fields = vec![(":method", "GET"), (":scheme", "http"), (":path", "/")];
        fields.extend(authority.map(|authority| (":authority", authority)));
        fields.extend(hosts.iter().map(|host| ("host", *host)));
        let mut wire = Wire::connect(gateway.address).await;
        assert!(wire.send(&[Frame::head(1, &fields, true)]).await);
        let answer = wire.find(|frame| frame.stream == 1).await.unwrap();
        let found = if answer.kind == HEADERS { answer.status() } else { 400 };
        assert_eq!(found, status, "{authority:?} {hosts:?}: {answer:?}");
    }
    eventually!(gateway.metric("proxy_requests_active").await == 0.0);
}

#[tokio::test]
async fn head_response_and_early_response_end_streams_cleanly() {
    let origin = Origin::start().await;
    let gateway = start(&origin, "[[virtual_hosts]]\ndomain = \"gone.test\"\nenabled_backends_tag = \"all\"\n[[virtual_hosts.routes]]\npath_prefix = \"/\"\nfault = { abort_status = 404, abort_percent = 100 }").await;
    let client = connect(gateway.address).await;
    let head = Request::builder().method(Method::HEAD).uri("http://web.test/").body(()).unwrap();
    let answer = send(&client, head, "").await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.body.len(), answer.reset), (200, 0, None), "{answer:?}");
    origin.behave(testkit::Behaviour::Reset);
    let head = Request::builder().method(Method::HEAD).uri("http://web.test/").body(()).unwrap();
    let answer = send(&client, head, "").await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.body.len(), answer.reset), (502, 0, None), "{answer:?}");
    for path in ["/a", "/b"] {
        let request = Request::post(format!("http://gone.test{path}")).body(()).unwrap();
        let answer = send(&client, request, Bytes::from(vec![0; 30_000])).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.reset), (404, None), "{answer:?}");
    }
}

#[tokio::test]
async fn a_body_that_ends_with_an_empty_part_ends_once() {
    /// A backend that answers as long as each request starts at the end of the previous one.
    async fn strict(mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let head = raw::head(&mut stream).await?;
            let mut body = [0; b"5\r\nhello\r\n0\r\n\r\n".len()];
            stream.read_exact(&mut body).await?;
            let is_right = head.starts_with("POST /up HTTP/1.1\r\n") && body == *b"5\r\nhello\r\n0\r\n\r\n";
            let status = if is_right { "200 OK" } else { "400 Bad Request" };
            stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await?;
        }
    }
    let gateway = over(raw::backend(strict).await, "http2_cleartext = true\n", "").await;
    let mut wire = Wire::connect(gateway.address).await;
    for stream in [1, 3, 5] {
        let fields = [(":method", "POST"), (":scheme", "http"), (":path", "/up"), (":authority", "a")];
        let head = Frame::head(stream, &fields, false);
        let (part, end) = (Frame::new(DATA, 0, stream, *b"hello"), Frame::new(DATA, END_STREAM, stream, []));
        assert!(wire.send(&[head, part, end]).await);
        assert_eq!(wire.status(stream).await, 200);
    }
}
