//! Spellings of a path, a host or a method that could bypass a route with `[auth]`, although the origin reads
//! them as that route.

use http::Request;

use super::{Scene, bearer, status};
use crate::h2_peers::{connect, send};

/// Targets that at least one kind of server reads as `/admin` or a path below it.
const TARGETS: &[&str] = &[
    "/admin",
    "/admin/",
    "/admin?",
    "/admin#x",
    "/admin/../admin",
    "//admin",
    "///admin//",
    "/./admin",
    "/././admin/.",
    "/x/../admin",
    "/x/y/../../admin",
    "/../admin",
    "/%61dmin",
    "/%61%64%6d%69%6e",
    "/%61DMIN/../%61dmin",
    "/admi%6E",
    "/x/%2e%2e/admin",
    "/x/%2E./admin",
    "/%2e/admin",
    "/%2e%2e/admin",
    "/admin/x",
    "/admin%2fx",
    "/x%2f..%2fadmin",
    "/x%2f../admin",
    "/x/..%2fadmin",
    "/%2fadmin",
    "/%2Fadmin",
    "/admin;x",
    "/admin;x=y/",
    "/admin/;x",
    "/;x/admin",
    "/x;/../admin",
    "/x/..;/admin",
    "/x/..;a=b/admin",
    "/%3b/../admin",
    "/admin%3bx",
    "\\admin",
    "/\\admin",
    "/x\\..\\admin",
    "/x/..\\admin",
    "/%5cadmin",
    "/x%5c..%5cadmin",
    "/admin%00",
    "/admin%20",
    "/admin%0a",
    "/admin%09",
    "/admin.",
    "/%2561dmin",
    "/x/%252e%252e/admin",
    "/admin\u{2f}",
    "http://shop.test/admin",
    "http://SHOP.test:80//admin",
    "HTTP://shop.test/x/../admin",
    "http://other.test/admin",
    "//shop.test/admin",
];

/// Returns the path as the most lenient server would read it: decoded twice, with backslashes as slashes, and
/// without parameters.
fn obliging(path: &str) -> String {
    let mut path = path.split(['?', '#']).next().unwrap_or_default().to_owned();
    for _ in 0..2 {
        path = decoded(&path);
    }
    let path = path.replace('\\', "/");
    let mut segments: Vec<String> = Vec::new();
    for segment in path.split('/') {
        let segment = segment.split(';').next().unwrap_or_default();
        let segment = segment.trim_matches(|c: char| c.is_whitespace() || c.is_control());
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment.to_ascii_lowercase()),
        }
    }
    format!("/{}", segments.join("/"))
}

fn decoded(path: &str) -> String {
    let bytes = path.as_bytes();
    let (mut whole, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let digits = path.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                whole.push(byte);
                at += 3;
            }
            None => {
                whole.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&whole).into_owned()
}

fn is_admin(path: &str) -> bool {
    let path = obliging(path);
    path == "/admin" || path.starts_with("/admin/")
}

/// Spellings that the gateway passes on. Only a backend that strips spaces misreads them. No proxy can prevent
/// this without refusing legitimate paths.
const LEFT_TO_THE_BACKEND: &[&str] = &["/admin%20"];

#[tokio::test]
async fn no_path_spelling_bypasses_the_protected_route() {
    let scene = Scene::start().await;
    let mut passed = Vec::new();
    for target in TARGETS {
        scene.origin.forget();
        let answer = scene.ask_raw(&format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n")).await;
        let received = scene.origin.received();
        let seen = received.iter().map(|request| request.uri.path().to_owned()).find(|path| is_admin(path));
        if let Some(seen) = seen {
            eprintln!("{target} has reached the origin as {seen}: {}", status(&answer));
            passed.push(*target);
        }
    }
    assert_eq!(passed, LEFT_TO_THE_BACKEND);
}

#[tokio::test]
async fn no_method_or_host_bypasses_the_protected_route() {
    let scene = Scene::start_with("http2_cleartext = true\n", "").await;
    for method in
        ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND", "get", "CONNECT"]
    {
        for host in ["shop.test", "SHOP.TEST", "shop.test.", "shop.test:80", "Shop.Test.:8080"] {
            let head = format!("{method} /admin HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n");
            let answer = scene.ask_raw(&head).await;
            assert!([400, 401, 405, 501].contains(&status(&answer)), "{method} {host}: {answer}");
        }
    }
    let old = scene.ask_raw("GET http://shop.test/admin HTTP/1.0\r\n").await;
    assert_eq!(status(&old), 401, "{old}");
    let pipelined = "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\nGET /admin HTTP/1.1\r\nHost: shop.test\r\n";
    let answer = scene.ask_raw(pipelined).await;
    assert!(answer.contains("HTTP/1.1 401"), "{answer}");
    let websocket = "GET /admin HTTP/1.1\r\nHost: shop.test\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let websocket = format!("{websocket}Connection: upgrade\r\n\r\n");
    let answer = testkit::exchange(scene.gateway.address, websocket.as_bytes());
    assert_eq!(status(&answer.await), 401);
    let client = connect(scene.gateway.address).await;
    for target in ["/admin", "//admin", "/x/../admin", "/%61dmin"] {
        let request = Request::get(format!("http://shop.test{target}")).header("host", "other.test");
        let answer = send(&client, request.body(()).unwrap(), "").await;
        assert!(answer.is_ok_and(|answer| [400, 401].contains(&answer.status.as_u16())), "{target}");
    }
    assert_eq!(scene.origin.received().iter().filter(|request| is_admin(request.uri.path())).count(), 0);
}

#[tokio::test]
async fn refused_grpc_call_gets_a_grpc_status() {
    let scene = Scene::start_with("http2_cleartext = true\n", "").await;
    let client = connect(scene.gateway.address).await;
    let token = scene.signer.good();
    for (field, expected) in [(None, "16"), (Some(bearer(&token)), "7")] {
        let mut request =
            Request::post("http://shop.test/admin/Call").header("content-type", "application/grpc");
        if let Some(field) = field {
            let value = field.trim().split_once(": ").unwrap().1.to_owned();
            request = request.header("authorization", value);
        }
        let answer = send(&client, request.header("te", "trailers").body(()).unwrap(), "").await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.last_field("grpc-status")), (200, expected), "{answer:?}");
    }
    assert_eq!(scene.origin.received().len(), 0);
}
