//! Cookies of a server that is asked whether a request may pass: the client gets them, once, whatever becomes of its
//! request; the backend does not, and no cache keeps them for others.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::IntoResponse;
use parking_lot::Mutex;
use testkit::{Behaviour, Faulty, Origin, eventually};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::{field, status};
use crate::support::{Gateway, Setup};
use crate::websocket::raw;

/// Renews every session that it is shown, as an auth server does shortly before the end of one: `sid=NAME` becomes
/// `sid=NAME-new`. A session called `lasting` needs no renewal; one called `huge` cannot be passed on.
async fn renew(request: Request) -> impl IntoResponse {
    let cookie = request.headers().get("cookie").and_then(|cookie| cookie.to_str().ok()).unwrap_or_default();
    let name = cookie.split("sid=").nth(1).unwrap_or_default().split(';').next().unwrap_or_default();
    let answer = Response::builder().status(StatusCode::ACCEPTED).header("x-user", name);
    let answer = match name {
        "lasting" => answer,
        "huge" => answer.header("set-cookie", format!("sid={}", "h".repeat(20_000))),
        name => answer
            .header("set-cookie", format!("sid={name}-new; Path=/; HttpOnly"))
            .header("set-cookie", "sid_2=more; Path=/"),
    };
    answer.body(String::new()).unwrap()
}

/// Keeps the fields of each request, and answers as a page that every cache may keep.
async fn public(State(seen): State<Arc<Mutex<Vec<HeaderMap>>>>, request: Request) -> impl IntoResponse {
    seen.lock().push(request.headers().clone());
    Response::builder()
        .header("cache-control", "public, max-age=60, s-maxage=600")
        .header("cdn-cache-control", "max-age=600")
        .header("set-cookie", "theme=dark")
        .body("a page".to_owned())
        .unwrap()
}

async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// A gateway over `backends` that asks the server above, with more tables.
async fn start(backends: &[SocketAddr], tables: &str) -> Gateway {
    let auth = serve(Router::new().fallback(renew)).await;
    let tables = format!(
        "[health_check]\nenabled = false\n\
         [auth]\nkind = \"forward\"\nurl = \"http://{auth}/auth\"\nresponse_headers = [\"X-User\"]\n{tables}"
    );
    let setup = Setup { proxy: "http2_cleartext = true", tables: &tables };
    Gateway::start_over(backends, setup).await
}

async fn ask(gateway: &Gateway, path: &str, session: &str) -> String {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nCookie: sid={session}\r\nConnection: close\r\n\r\n");
    testkit::exchange(gateway.address, request.as_bytes()).await
}

/// The cookies that an answer sets, in their order.
fn cookies(answer: &str) -> Vec<&str> {
    let head = answer.split("\r\n\r\n").next().unwrap_or_default();
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")).map(|(_, value)| value).collect()
}

const OF_ALICE: [&str; 2] = ["sid=alice-new; Path=/; HttpOnly", "sid_2=more; Path=/"];

#[tokio::test]
async fn a_renewed_session_reaches_the_client_and_no_backend_and_no_cache() {
    let seen = Arc::default();
    let page = serve(Router::new().fallback(public).with_state(Arc::clone(&seen))).await;
    let gateway = start(&[page], "").await;
    let answer = ask(&gateway, "/", "alice").await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(cookies(&answer), [OF_ALICE[0], OF_ALICE[1], "theme=dark"]);
    assert_eq!(field(&answer, "cache-control"), "max-age=60, private");
    assert_eq!(field(&answer, "cdn-cache-control"), "");
    let received = seen.lock().pop().unwrap();
    assert_eq!(
        (&received["x-user"], &received["cookie"]),
        (&"alice".parse().unwrap(), &"sid=alice".parse().unwrap())
    );
    assert!(!received.contains_key("set-cookie"), "{received:?}");

    // A session that lasts changes nothing.
    let answer = ask(&gateway, "/", "lasting").await;
    assert_eq!(cookies(&answer), ["theme=dark"]);
    assert_eq!(field(&answer, "cache-control"), "public, max-age=60, s-maxage=600");
    assert_eq!(field(&answer, "cdn-cache-control"), "max-age=600");
}

#[tokio::test]
async fn each_client_gets_its_own_session() {
    let origin = Origin::start().await;
    let gateway = start(&[origin.address()], "").await;
    let asking = (0..40).map(|number| {
        let gateway = &gateway;
        async move {
            let name = format!("user{number}");
            let answer = ask(gateway, "/", &name).await;
            let expected = format!("sid={name}-new; Path=/; HttpOnly");
            assert_eq!(cookies(&answer), [expected.as_str(), OF_ALICE[1]], "{answer}");
        }
    });
    futures::future::join_all(asking).await;
    assert_eq!(origin.received().len(), 40);
}

#[tokio::test]
async fn the_session_is_renewed_whatever_becomes_of_the_request() {
    let origin = Origin::start().await;
    let moved = "[[virtual_hosts]]\ndomain = \"a.test\"\nenabled_backends_tag = \"all\"\n\
         [[virtual_hosts.routes]]\npath_prefix = \"/moved\"\nredirect = \"https://b.test/\"\n\
         [[virtual_hosts.routes]]\npath_prefix = \"/anything/once\"\n\
         [virtual_hosts.routes.rate_limit]\nrequests = 1\nkey = \"jwt:sub\"\n";
    let gateway = start(&[origin.address()], moved).await;
    // The limit of a claim is looked at behind the auth server; the one who is known is the first of response_headers.
    for (path, expected) in
        [("/anything/once", 200), ("/anything/once", 429), ("/moved", 308), ("/status/404", 404)]
    {
        let answer = ask(&gateway, path, "alice").await;
        assert_eq!((status(&answer), cookies(&answer)), (expected, OF_ALICE.to_vec()), "{path}: {answer}");
        if matches!(expected, 429 | 308) {
            assert_eq!(field(&answer, "cache-control"), "no-store", "{answer}");
        }
    }
    let gateway = start(&[Faulty::dead().address()], "").await;
    let answer = ask(&gateway, "/", "alice").await;
    assert_eq!((status(&answer), cookies(&answer)), (502, OF_ALICE.to_vec()), "{answer}");
}

#[tokio::test]
async fn a_retry_sets_each_cookie_once() {
    let (broken, well) = (Origin::start().await, Origin::start().await);
    broken.behave(Behaviour::Status(503));
    let gateway = start(
        &[broken.address(), well.address()],
        "[retry]\nattempts = 2\non_status = [503]\nbackoff_base_ms = 1\n[balancing]\nalgorithm = \"round_robin\"\n",
    )
    .await;
    for _ in 0..2 {
        let answer = ask(&gateway, "/", "alice").await;
        assert_eq!((status(&answer), cookies(&answer)), (200, OF_ALICE.to_vec()), "{answer}");
    }
    assert!(!broken.received().is_empty(), "one of two requests came to the broken one first");
}

#[tokio::test]
async fn cookies_that_no_client_takes_let_nobody_pass() {
    let origin = Origin::start().await;
    let gateway = start(&[origin.address()], "").await;
    let answer = ask(&gateway, "/", "huge").await;
    assert_eq!((status(&answer), cookies(&answer)), (503, Vec::new()), "{answer}");
    eventually!(
        gateway.process.output().contains("the cookies of its answer have 20004 bytes; at most 16384")
    );
    assert_eq!(origin.received().len(), 0);
}

#[tokio::test]
async fn a_websocket_and_a_stream_of_http2_renew_it_too() {
    let origin = Origin::start().await;
    let gateway = start(&[origin.address()], "").await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let handshake = raw::REQUEST.replace("Host: a\r\n", "Host: a\r\nCookie: sid=alice\r\n");
    stream.write_all(handshake.as_bytes()).await.unwrap();
    let answer = raw::head(&mut stream).await.unwrap();
    assert_eq!((status(&answer), cookies(&answer)), (101, OF_ALICE.to_vec()), "{answer}");

    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = axum::http::Request::get("http://a.test/").header("cookie", "sid=alice").body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    let response = response.await.unwrap();
    let cookies = response.headers().get_all("set-cookie").iter();
    let found: Vec<&str> = cookies.map(|cookie| cookie.to_str().unwrap()).collect();
    assert_eq!((response.status().as_u16(), found), (200, OF_ALICE.to_vec()));
    assert_eq!(response.headers()["cache-control"], "private");
}
