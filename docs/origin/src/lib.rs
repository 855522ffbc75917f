//! The local upstream of every lesson: a small web server whose responses name the instance that sent them,
//! and which can be slow, large, broken or unhealthy on request.
//!
//! [`app`] builds one labelled instance as an axum [`Router`]. [`serve`] runs it on a listener over HTTP/1.1
//! and HTTP/2 with prior knowledge (h2c). The binary runs several instances, one for each port. Tests and the
//! gateway's demo run them in-process.
//!
//! | path | response |
//! |---|---|
//! | `/` | the name of the instance |
//! | `/anything`, `/anything/…` | the request as JSON: method, path, query, headers, body |
//! | `/status/{code}` | an empty response with this status |
//! | `/delay/{ms}` | 200 after this number of milliseconds |
//! | `/bytes/{n}` | `n` bytes with a Content-Length |
//! | `/stream/{n}?interval_ms=0` | `n` chunks of one line each, with this interval between them |
//! | `/events?interval_ms=1000` | endless server-sent events |
//! | `/ws` | a WebSocket that echoes every message |
//! | `/health` | 200, or 503 after `POST /health/down` until `POST /health/up` |

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{ConnectInfo, Path, Query, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use bytes::Bytes;
use futures::{Stream, stream};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::time::sleep;

/// Header field in which every response names its instance.
pub const ORIGIN_HEADER: HeaderName = HeaderName::from_static("x-origin");

/// Maximum size of a response to `/bytes/{n}`, and of a request body that `/anything` reads: 64 MiB.
const MAX_BYTES: usize = 64 << 20;

/// State of an instance.
struct Instance {
    label: String,
    healthy: AtomicBool,
}

/// Builds an instance with the label `label`. The label should have only ASCII letters and digits; a label
/// that is not a valid field value is left out of the header.
pub fn app(label: &str) -> Router {
    let instance = Arc::new(Instance { label: label.to_owned(), healthy: AtomicBool::new(true) });
    Router::new()
        .route("/", any(hello))
        .route("/anything", any(echo))
        .route("/anything/{*path}", any(echo))
        .route("/status/{code}", any(status))
        .route("/delay/{ms}", any(delay))
        .route("/bytes/{n}", any(bytes))
        .route("/stream/{n}", any(stream_chunks))
        .route("/events", get(events))
        .route("/ws", any(websocket))
        .route("/health", get(health))
        .route("/health/{state}", post(set_health))
        .layer(middleware::from_fn_with_state(instance.clone(), name_origin))
        .with_state(instance)
}

/// Builds an instance that prints one line for each request on standard output, as an access log.
pub fn app_with_log(label: &str) -> Router {
    let label: Arc<str> = label.into();
    app(&label).layer(middleware::from_fn(move |request: Request, next: Next| {
        log_request(label.clone(), request, next)
    }))
}

/// Serves `app` on `listener` until the task is dropped.
///
/// # Errors
/// Returns an error if the listener fails permanently.
pub async fn serve(listener: TcpListener, app: Router) -> std::io::Result<()> {
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).await
}

async fn name_origin(State(instance): State<Arc<Instance>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if let Ok(label) = HeaderValue::from_str(&instance.label) {
        headers.insert(ORIGIN_HEADER, label);
    }
    // Most servers send this field; with it, a lesson has a field to remove.
    headers.insert(header::SERVER, HeaderValue::from_static("origin"));
    response
}

#[expect(clippy::print_stdout, reason = "the line is for the person who runs the origin")]
async fn log_request(label: Arc<str>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let client = request.extensions().get::<ConnectInfo<SocketAddr>>().cloned();
    let client = client.map_or_else(|| "-".to_owned(), |ConnectInfo(address)| address.to_string());
    let line = format!("{} {} {:?}", request.method(), request.uri(), request.version());
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let ms = started.elapsed().as_secs_f64() * 1000.0;
    println!("{label}  {client}  \"{line}\"  {status}  {ms:.1}ms");
    response
}

async fn hello(State(instance): State<Arc<Instance>>) -> String {
    format!("hello from origin {}\n", instance.label)
}

async fn echo(State(instance): State<Arc<Instance>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = match axum::body::to_bytes(body, MAX_BYTES).await {
        Ok(body) => body,
        Err(error) => {
            return (StatusCode::BAD_REQUEST, format!("cannot read the request's body: {error}\n"))
                .into_response();
        }
    };
    let mut headers = Map::new();
    for name in head.headers.keys() {
        let values: Vec<String> = head.headers.get_all(name).iter().map(text).collect();
        let value = match <[String; 1]>::try_from(values) {
            Ok([one]) => Value::String(one),
            Err(several) => several.into(),
        };
        headers.insert(name.to_string(), value);
    }
    let echo = json!({
        "origin": instance.label,
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query().unwrap_or_default(),
        "version": format!("{:?}", head.version),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    // The JSON is indented, because mostly people read it.
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (content_type, format!("{echo:#}\n")).into_response()
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

async fn status(Path(code): Path<u16>) -> Response {
    match StatusCode::from_u16(code) {
        // Responses with 1xx are interim, and a handler cannot return one.
        Ok(code) if !code.is_informational() => code.into_response(),
        _ => (StatusCode::BAD_REQUEST, format!("{code} is not a final status; expected 200 to 999\n"))
            .into_response(),
    }
}

async fn delay(Path(ms): Path<u64>, State(instance): State<Arc<Instance>>) -> String {
    sleep(Duration::from_millis(ms)).await;
    format!("hello from origin {} after {ms} ms\n", instance.label)
}

async fn bytes(Path(n): Path<usize>) -> Response {
    if n > MAX_BYTES {
        return (StatusCode::BAD_REQUEST, format!("{n} bytes are too many; at most {MAX_BYTES}\n"))
            .into_response();
    }
    let content_type = [(header::CONTENT_TYPE, "application/octet-stream")];
    (content_type, vec![b'x'; n]).into_response()
}

#[derive(Deserialize)]
struct Pace {
    interval_ms: Option<u64>,
}

async fn stream_chunks(Path(n): Path<u64>, Query(pace): Query<Pace>) -> Body {
    let interval = Duration::from_millis(pace.interval_ms.unwrap_or(0));
    Body::from_stream(ticks(1..=n, interval, |i| Ok::<_, Infallible>(Bytes::from(format!("chunk {i}\n")))))
}

async fn events(Query(pace): Query<Pace>) -> impl IntoResponse {
    let interval = Duration::from_millis(pace.interval_ms.unwrap_or(1000));
    Sse::new(ticks(1..=u64::MAX, interval, |i| {
        Ok::<_, Infallible>(Event::default().id(i.to_string()).data(format!("event {i}")))
    }))
}

/// Returns a stream of the items of `range`, `interval` apart; the first comes at once.
fn ticks<T>(
    range: std::ops::RangeInclusive<u64>,
    interval: Duration,
    item: impl Fn(u64) -> T + Clone,
) -> impl Stream<Item = T> {
    let first = *range.start();
    stream::unfold(range, move |mut range| {
        let item = item.clone();
        async move {
            let i = range.next()?;
            if i != first && !interval.is_zero() {
                sleep(interval).await;
            }
            Some((item(i), range))
        }
    })
}

async fn websocket(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|mut socket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            let echo = matches!(message, Message::Text(_) | Message::Binary(_));
            if echo && socket.send(message).await.is_err() {
                break;
            }
        }
    })
}

async fn health(State(instance): State<Arc<Instance>>) -> (StatusCode, &'static str) {
    if instance.healthy.load(Ordering::Relaxed) {
        (StatusCode::OK, "up\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "down\n")
    }
}

async fn set_health(
    Path(state): Path<String>,
    State(instance): State<Arc<Instance>>,
) -> (StatusCode, &'static str) {
    let (healthy, answer) = match state.as_str() {
        "up" => (true, "now up\n"),
        "down" => (false, "now down\n"),
        _ => return (StatusCode::NOT_FOUND, "POST /health/up or /health/down\n"),
    };
    instance.healthy.store(healthy, Ordering::Relaxed);
    (StatusCode::OK, answer)
}
