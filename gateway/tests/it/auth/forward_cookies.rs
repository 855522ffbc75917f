//! Cookies of an auth server (forward authentication). The client gets them exactly once, for every outcome of
//! its request. The backend does not get them, and no shared cache may store them.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::IntoResponse;
use parking_lot::Mutex;
use testkit::{Behaviour, Origin, dead_address, eventually};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::{field, status};
use crate::support::{Gateway, Setup};
use crate::websocket::raw;

/// Renews every session, as an auth server does shortly before a session ends: `sid=NAME` becomes
/// `sid=NAME-new`. A session called `lasting` needs no renewal. The cookie of a session called `huge` is too
/// large to be passed on.
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

/// Records the fields of each request, and answers with a page that every cache may store.
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

/// Starts a gateway over `backends` that asks the auth server above, with additional tables.
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

/// Returns the cookies that a response sets, in order.
fn cookies(answer: &str) -> Vec<&str> {
    let head = answer.split("\r\n\r\n").next().unwrap_or_default();
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")).map(|(_, value)| value).collect()
}

const OF_ALICE: [&str; 2] = ["sid=alice-new; Path=/; HttpOnly", "sid_2=more; Path=/"];

#[tokio::test]
async fn renewed_session_reaches_client_but_no_backend_or_cache() {
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

    // Without a renewal, the response stays unchanged.
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
async fn session_is_renewed_for_every_outcome_of_the_request() {
    let origin = Origin::start().await;
    let moved = "[[virtual_hosts]]\ndomain = \"a.test\"\nenabled_backends_tag = \"all\"\n\
         [[virtual_hosts.routes]]\npath_prefix = \"/moved\"\nredirect = \"https://b.test/\"\n\
         [[virtual_hosts.routes]]\npath_prefix = \"/anything/once\"\n\
         [virtual_hosts.routes.rate_limit]\nrequests = 1\nkey = \"jwt:sub\"\n";
    let gateway = start(&[origin.address()], moved).await;
    // The request limit by claim is checked after the auth server has answered. The subject is the first of
    // response_headers.
    for (path, expected) in
        [("/anything/once", 200), ("/anything/once", 429), ("/moved", 308), ("/status/404", 404)]
    {
        let answer = ask(&gateway, path, "alice").await;
        assert_eq!((status(&answer), cookies(&answer)), (expected, OF_ALICE.to_vec()), "{path}: {answer}");
        if matches!(expected, 429 | 308) {
            assert_eq!(field(&answer, "cache-control"), "no-store", "{answer}");
        }
    }
    let gateway = start(&[dead_address()], "").await;
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
async fn oversized_session_cookie_denies_access() {
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
async fn websocket_and_http2_stream_renew_the_session() {
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
