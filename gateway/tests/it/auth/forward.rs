//! Forward authentication: another server decides if a request may pass.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::IntoResponse;
use parking_lot::Mutex;
use testkit::tls::Authority;
use testkit::{Fault, Faulty, Origin, eventually};

use super::{field, status};
use crate::support::{Gateway, Setup};

/// An auth server that answers as the request's `Authorization` says, and records the requests that it gets.
struct Decider {
    url: String,
    asked: Asked,
}

/// Targets and header fields of the recorded requests.
type Asked = Arc<Mutex<Vec<(String, HeaderMap)>>>;

async fn decide(State(asked): State<Asked>, request: Request) -> impl IntoResponse {
    let (target, fields) = (format!("{} {}", request.method(), request.uri()), request.headers().clone());
    let wish = fields.get("authorization").and_then(|wish| wish.to_str().ok()).unwrap_or("401").to_owned();
    asked.lock().push((target, fields));
    let status: u16 = wish.parse().unwrap_or(200);
    let answer = Response::builder().status(status).header("x-user", "alice").header("x-secret", "inner");
    let answer = answer.header("x-group", "a, b");
    let answer = match wish.as_str() {
        "twice" => answer.header("x-user", "root"),
        "huge" => answer.header("x-size", "g".repeat(5_000)),
        _ => answer,
    };
    match status {
        401 => answer.header("www-authenticate", "Bearer realm=\"inner\"").header("set-cookie", "a=1"),
        302 => answer
            .header("location", "https://login.test/?back=x")
            .header("set-cookie", "b=2")
            .header("set-cookie", "c=3"),
        _ => answer,
    }
    .body("a body that nobody sees".to_owned())
    .unwrap()
}

impl Decider {
    async fn start() -> Decider {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Asked::default();
        let app = Router::new().fallback(decide).with_state(asked.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Decider { url, asked }
    }
}

async fn start(origin: &Origin, table: &str) -> Gateway {
    let tables = format!("[health_check]\nenabled = false\n[auth]\nkind = \"forward\"\n{table}");
    Gateway::start(&[origin], Setup { tables: &tables, ..Setup::default() }).await
}

async fn ask(gateway: &Gateway, head: &str) -> String {
    testkit::exchange(gateway.address, format!("{head}Connection: close\r\n\r\n").as_bytes()).await
}

#[tokio::test]
async fn auth_server_is_asked_and_its_fields_reach_the_backend() {
    let (origin, decider) = (Origin::start().await, Decider::start().await);
    let table =
        format!("url = \"{}/check?a=b\"\nresponse_headers = [\"X-User\", \"X-Group\"]\n", decider.url);
    let gateway = start(&origin, &table).await;
    let head = "PUT /anything/x?y=z HTTP/1.1\r\nHost: shop.test:80\r\nAuthorization: 204\r\nCookie: s=1\r\n\
        X-User: root\r\nX_Group: root\r\nX-Secret: theirs\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Uri: /open\r\n\
        X-Forwarded-Method: GET\r\nContent-Length: 0\r\n";
    let answer = ask(&gateway, head).await;
    assert_eq!(status(&answer), 200, "{answer}");
    let (target, fields) = decider.asked.lock()[0].clone();
    assert_eq!(target, "GET /check?a=b");
    for (name, value) in [
        ("x-forwarded-method", "PUT"),
        ("x-forwarded-uri", "/anything/x?y=z"),
        ("x-forwarded-host", "shop.test:80"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-for", "127.0.0.1"),
        ("authorization", "204"),
        ("cookie", "s=1"),
    ] {
        let found: Vec<&str> = fields.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(found, [value], "{name}");
    }
    let received = &origin.received()[0];
    assert_eq!((received.header("x-user"), received.header("x-group")), ("alice", "a, b"));
    assert_eq!(
        (received.header("x_group"), received.header("x-secret")),
        ("", "theirs"),
        "only what is named"
    );
    assert!(!answer.contains("inner") && !answer.contains("nobody sees"), "{answer}");
    gateway.process.line("user=\"alice\"").await;
    // For every spelling of the path, the auth server and the backend must get the normalized path that was routed.
    for target in [
        "/public/../%61nything/x?y=z",
        "/public/%2e%2e/anything/x?y=z",
        "http://Shop.Test.:80/anything/x?y=z",
    ] {
        ask(&gateway, &format!("GET {target} HTTP/1.1\r\nHost: Shop.Test.:80\r\nAuthorization: 204\r\n"))
            .await;
        let (_, fields) = decider.asked.lock().pop().unwrap();
        assert_eq!(fields["x-forwarded-uri"], "/anything/x?y=z", "{target}");
        assert_eq!(fields["x-forwarded-host"], "shop.test:80", "{target}");
        assert_eq!(origin.received().last().unwrap().uri, "/anything/x?y=z", "{target}");
    }
    origin.forget();
    let several = "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: 204\r\nAuthorization: 401\r\n";
    assert_eq!(
        status(&ask(&gateway, several).await),
        400,
        "it might look at one, and the backend at another"
    );
    assert_eq!((decider.asked.lock().len(), origin.received().len()), (1, 0));
}

#[tokio::test]
async fn auth_server_refusal_reaches_the_client_not_the_origin() {
    let (origin, decider) = (Origin::start().await, Decider::start().await);
    let gateway = start(&origin, &format!("url = \"{}/\"\n", decider.url)).await;
    for (wish, expected) in [
        ("401", 401),
        ("403", 403),
        ("302", 302),
        ("404", 503),
        ("500", 503),
        ("304", 503),
        ("429", 503),
        ("301", 503),
    ] {
        let answer = ask(&gateway, &format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {wish}\r\n")).await;
        assert_eq!(status(&answer), expected, "{wish}: {answer}");
        assert!(!answer.contains("nobody sees") && !answer.contains("x-secret"), "{answer}");
        match wish {
            "401" => {
                assert_eq!(field(&answer, "www-authenticate"), "Bearer realm=\"inner\"");
                assert_eq!(field(&answer, "set-cookie"), "a=1");
            }
            "302" => {
                assert_eq!(field(&answer, "location"), "https://login.test/?back=x");
                assert!(answer.contains("b=2") && answer.contains("c=3"), "{answer}");
            }
            "403" => assert_eq!(field(&answer, "retry-after"), ""),
            _ => assert_eq!(field(&answer, "retry-after"), "2"),
        }
    }
    assert_eq!(origin.received().len(), 0);
}

#[tokio::test]
async fn response_that_cannot_be_forwarded_denies_access() {
    let (origin, decider) = (Origin::start().await, Decider::start().await);
    let table =
        |fields: &str| format!("url = \"{}/?code=s3cret\"\nresponse_headers = [{fields}]\n", decider.url);
    let gateway = start(&origin, &table("\"X-User\", \"X-Size\"")).await;
    for (wish, said) in [
        ("twice", "the field x-user of its answer occurs twice"),
        ("huge", "the field x-size of its answer has more than 4096 bytes"),
    ] {
        let answer = ask(&gateway, &format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {wish}\r\n")).await;
        assert_eq!((status(&answer), origin.received().len()), (503, 0), "{answer}");
        // The log has this line at most once a second.
        let again = async || {
            ask(&gateway, &format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {wish}\r\n")).await;
            gateway.process.output().contains(said)
        };
        eventually!(again().await);
    }
    let said = gateway.process.output();
    assert!(said.contains("/?***") && !said.contains("s3cret"), "{said}");
    // A field that is not passed on may have any value.
    let gateway = start(&origin, &table("\"X-Secret\"")).await;
    for wish in ["twice", "huge"] {
        let answer = ask(&gateway, &format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {wish}\r\n")).await;
        assert_eq!(status(&answer), 200, "{answer}");
    }
}

#[tokio::test]
async fn missing_auth_server_response_denies_access() {
    let origin = Origin::start().await;
    for fault in [
        Fault::Silence,
        Fault::Reset,
        Fault::ResetOnAccept,
        Fault::Garbage,
        Fault::LengthTooLong,
        Fault::SwitchUnasked,
    ] {
        let decider = Faulty::start(fault).await;
        let gateway =
            start(&origin, &format!("url = \"http://{}/\"\ntimeout_ms = 300\n", decider.address())).await;
        let answer = ask(&gateway, "GET / HTTP/1.1\r\nHost: a\r\n").await;
        assert_eq!(status(&answer), 503, "{fault:?}: {answer}");
    }
    let decider = Faulty::dead();
    let gateway = start(&origin, &format!("url = \"http://{}/\"\n", decider.address())).await;
    assert_eq!(status(&ask(&gateway, "GET / HTTP/1.1\r\nHost: a\r\n").await), 503);
    assert_eq!(origin.received().len(), 0);
}

#[tokio::test]
async fn auth_server_certificate_must_match_its_name() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let origin = Origin::start().await;
    for (authority, name, expected) in
        [(&ours, "localhost", 200), (&ours, "other.test", 503), (&theirs, "localhost", 503)]
    {
        let decider = Origin::start_tls(&authority.issue(name)).await;
        let table = format!(
            "url = \"https://localhost:{}/\"\nca_file = \"{}\"\n",
            decider.address().port(),
            ours.certificate_file().display()
        );
        let gateway = start(&origin, &table).await;
        let answer = ask(&gateway, "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: secret\r\n").await;
        assert_eq!(status(&answer), expected, "{name}: {answer}");
        assert_eq!(decider.received().len(), usize::from(expected == 200), "credentials go to nobody else");
    }
}

#[tokio::test]
async fn auth_server_connection_is_reused() {
    let (origin, decider) = (Origin::start().await, Faulty::start(Fault::None).await);
    let gateway = start(&origin, &format!("url = \"http://{}/\"\n", decider.address())).await;
    for _ in 0..5 {
        assert_eq!(gateway.get("/").await.status, StatusCode::OK);
    }
    assert_eq!((decider.connections(), decider.seen("GET", "/")), (1, 5));
}
