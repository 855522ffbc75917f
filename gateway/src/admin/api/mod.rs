//! Management API, built on axum. The book's page on changing the gateway lists the endpoints. Programs find their
//! description at `/api/v1/openapi.json`.
//!
//! Each file is about one kind of resource. Every write goes through [`Api::write`], which edits the JSON of the
//! configuration. The result takes effect in the same way as an edit of the file.

mod access;
mod backends;
mod body;
mod certificates;
mod configuration;
mod domains;
mod edit;
mod guard;
mod observe;
mod openapi;
mod problem;
mod query;
mod rollouts;

use std::sync::Arc;
use std::time::Instant;

pub use access::{AccessError, ApiAccess};
use async_trait::async_trait;
use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use body::Caller;
use edit::Edited;
use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use problem::Problem;
use serde::Serialize;
use serde_json::Value;
use tracing::{error, info};

use super::serve::{HttpListener, serve};
use crate::config::Config;
use crate::live::{Applied, Change, Persistence, Rollouts, Snapshot, Store};
use crate::telemetry::{Metrics, Timelines};
use crate::tls::acme::Statuses;

/// Maximum size of a request body.
const MAX_BODY_BYTES: usize = 1 << 20;

/// Web page of the API. It is a single file, so that it works without the internet.
const PAGE: &str = include_str!("../page.html");

/// State that the handlers of the API share.
pub struct Api {
    /// Store of the running configuration, through which it is changed.
    pub store: Arc<Store>,
    /// Rollouts in progress.
    pub rollouts: Arc<Rollouts>,
    /// Metrics of the gateway.
    pub metrics: Arc<Metrics>,
    /// Recent requests.
    pub timelines: Arc<Timelines>,
    /// State of each certificate from the ACME server.
    pub acme_statuses: Arc<Statuses>,
    /// Access rule for clients of the API.
    pub access: ApiAccess,
}

/// Result of a handler: a response, or the problem that is reported to the client.
type Answer = Result<Response, Problem>;

impl Api {
    /// Returns the response to a read, with the entity tag of the snapshot that was read.
    fn read(&self, snapshot: &Snapshot, answer: impl IntoResponse) -> Response {
        ([(header::ETAG, quoted(&self.store.etag(snapshot)))], answer).into_response()
    }

    /// Returns the response to a write of one element: the element's new state and, if it was added, its location.
    fn written(&self, written: &Written, kind: &str, name: &str, body: impl Serialize) -> Response {
        let status = if written.created { StatusCode::CREATED } else { StatusCode::OK };
        let mut response = self.read(&written.applied.snapshot, (status, axum::Json(body)));
        if written.created {
            let location = format!("/api/v1/{kind}/{}", utf8_percent_encode(name, NON_ALPHANUMERIC));
            // A percent-encoded name is ASCII.
            if let Ok(location) = HeaderValue::from_str(&location) {
                response.headers_mut().insert(header::LOCATION, location);
            }
        }
        response
    }

    /// Changes the configuration: `edit` changes its JSON.
    async fn write(
        self: &Arc<Self>,
        caller: Caller,
        edit: impl FnOnce(&Config, &mut Value) -> Result<Edited, Problem> + Send + 'static,
    ) -> Result<Written, Problem> {
        let api = self.clone();
        // A change resolves names and writes to the disk, and other requests must not wait for that.
        run(move || {
            let mut edited = Edited::default();
            let applied = api.store.change(caller.change(), |config, json| {
                edited = edit(config, json)?;
                Ok(())
            });
            let applied = applied.map_err(|error| Problem::of_change(error, &edited))?;
            if !caller.options.dry_run {
                caller.log(&applied);
            }
            Ok(Written { applied, created: edited.created })
        })
        .await
    }
}

/// Result of a write.
struct Written {
    applied: Applied,
    /// True if the write added a new element; false if it changed or removed one.
    created: bool,
}

/// Runs blocking work on a separate thread, so that other requests need not wait for it.
async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => {
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("a defect in the gateway: {error}")))
        }
    }
}

/// Returns the header field value of a strong entity tag (RFC 9110 8.8.3).
fn quoted(etag: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{etag}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

impl Caller {
    /// Returns the change that the caller requests.
    fn change(&self) -> Change<'_> {
        Change {
            by: &self.who,
            expected: self.if_match.as_deref(),
            dry_run: self.options.dry_run,
            persistence: Persistence::Required,
        }
    }

    fn log(&self, applied: &Applied) {
        let (old, new) = (applied.before, applied.snapshot.revision);
        info!(who = self.who, what = self.what, old, new, "the management API has changed the configuration");
    }
}

/// Service that serves the API. It has a separate runtime, so that slow clients of the API do not slow down traffic.
pub struct ApiServer {
    /// Listener; `None` after the service has started.
    door: Mutex<Option<HttpListener>>,
    api: Arc<Api>,
}

impl ApiServer {
    /// Creates a server on a listener that is already bound.
    pub fn new(door: HttpListener, api: Api) -> Self {
        ApiServer { door: Mutex::new(Some(door)), api: Arc::new(api) }
    }
}

#[async_trait]
impl BackgroundService for ApiServer {
    /// Runs until the process ends, so that the API still answers while the gateway drains.
    async fn start(&self, _shutdown: ShutdownWatch) {
        let Some(door) = self.door.lock().take() else { return };
        if let Err(error) = serve(door, app(self.api.clone())).await {
            error!(%error, "the management API has failed");
        }
    }
}

/// Returns the router with all endpoints and the web page.
fn app(api: Arc<Api>) -> Router {
    let (routes, document) = openapi::routes().split_for_parts();
    let document = openapi::complete(&document);
    let openapi = move |State(api): State<Arc<Api>>| {
        let document = document.clone();
        async move { api.read(&api.store.load(), axum::Json(document)) }
    };
    routes
        .route("/", get(|| async { page(StatusCode::OK) }))
        .route("/api/v1/openapi.json", get(openapi))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(api.clone(), admit))
        .layer(middleware::from_fn_with_state(api.clone(), measure))
        .with_state(api)
}

/// Checks the client's access and the query before the handler of the request runs.
async fn admit(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let is_page = request.uri().path() == "/";
    match api.access.admits(request.uri().path(), request.headers()) {
        Ok(()) => match query::check(&request) {
            Ok(()) => described(next.run(request).await),
            Err(problem) => problem.into_response(),
        },
        // A browser without the token gets the page itself, which asks for the token.
        Err(problem) if is_page && problem.status == StatusCode::UNAUTHORIZED => {
            let mut response = page(StatusCode::UNAUTHORIZED);
            response.headers_mut().insert(header::WWW_AUTHENTICATE, problem::CHALLENGE);
            response
        }
        Err(problem) => problem.into_response(),
    }
}

/// Adds a problem body to a response that axum itself makes, because axum's body says too little.
fn described(response: Response) -> Response {
    let status = response.status();
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let bare = content_type.is_none_or(|value| value.as_bytes().starts_with(b"text/plain"));
    let detail = match status {
        StatusCode::NOT_FOUND if bare => {
            "there is nothing at this path; GET /api/v1/openapi.json lists all paths"
        }
        StatusCode::BAD_REQUEST if bare => "the path is not percent-encoded UTF-8",
        StatusCode::METHOD_NOT_ALLOWED if bare => {
            "this path does not support the method; Allow lists the \
             methods that it supports"
        }
        _ => return response,
    };
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    let (problem, body) = Problem::new(status, detail).into_response().into_parts();
    parts.headers.extend(problem.headers);
    Response::from_parts(parts, body)
}

fn page(status: StatusCode) -> Response {
    // The page loads nothing from other origins, sends nothing to them, and cannot be framed by other pages.
    const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                          connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                          frame-ancestors 'none'";
    let fields = [(header::CONTENT_SECURITY_POLICY, POLICY), (header::CACHE_CONTROL, "no-store")];
    (status, fields, Html(PAGE)).into_response()
}

/// Counts requests to the API and measures their latency, by the path template.
async fn measure(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let response = next.run(request).await;
    let path = matched.as_deref().unwrap_or("other");
    api.metrics.api_request(&method, path, response.status().as_u16(), began.elapsed().as_secs_f64());
    response
}
