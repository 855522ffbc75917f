//! The management API, on axum: the page of the book on changing the gateway lists what it answers, and
//! `GET /api/v1/openapi.json` says it to programs.
//!
//! A file is about one kind of thing. Every write goes through [`Api::write`]: it is a change of the
//! configuration's JSON, and becomes what runs as an edit of the file does.

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

use async_trait::async_trait;
use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use serde::Serialize;
use serde_json::Value;
use tracing::{error, info};

use super::serve::{Door, serve};
use crate::config::Config;
use crate::live::{Applied, Change, Persistence, Rollouts, Snapshot, Store};
use crate::telemetry::{Metrics, Timelines};
use crate::tls::acme::Statuses;

pub use access::{Access, AccessError};
use body::Caller;
use edit::Edited;
use problem::Problem;

/// The most that a request may bring along.
const MAX_BODY_BYTES: usize = 1 << 20;

/// The page, which is one file, so that it works without the internet.
const PAGE: &str = include_str!("../page.html");

/// What the API answers from.
pub struct Api {
    /// What runs, and how it changes.
    pub store: Arc<Store>,
    /// The rollouts that are under way.
    pub rollouts: Arc<Rollouts>,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// Recent requests.
    pub timelines: Arc<Timelines>,
    /// How certificates by ACME are.
    pub acme_statuses: Arc<Statuses>,
    /// Who may ask.
    pub access: Access,
}

/// A handler's answer: what it answers, or what is wrong.
type Answer = Result<Response, Problem>;

impl Api {
    /// An answer to a read: with the tag of what it was read from.
    fn read(&self, snapshot: &Snapshot, answer: impl IntoResponse) -> Response {
        ([(header::ETAG, quoted(&self.store.etag(snapshot)))], answer).into_response()
    }

    /// An answer to a write of one thing: what it is now and, where it is new, where it is.
    fn written(&self, written: &Written, kind: &str, name: &str, body: impl Serialize) -> Response {
        let status = if written.created { StatusCode::CREATED } else { StatusCode::OK };
        let mut response = self.read(&written.applied.snapshot, (status, axum::Json(body)));
        if written.created {
            let location = format!("/api/v1/{kind}/{}", utf8_percent_encode(name, NON_ALPHANUMERIC));
            // Encoded, it is ASCII.
            if let Ok(location) = HeaderValue::from_str(&location) {
                response.headers_mut().insert(header::LOCATION, location);
            }
        }
        response
    }

    /// Changes the configuration as `edit` changes its JSON.
    async fn write(
        self: &Arc<Self>,
        caller: Caller,
        edit: impl FnOnce(&Config, &mut Value) -> Result<Edited, Problem> + Send + 'static,
    ) -> Result<Written, Problem> {
        let api = self.clone();
        // Names are resolved and a disk is written: other requests shall not wait for that.
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

/// What a write has come to.
struct Written {
    applied: Applied,
    /// Whether something is there now that was not before.
    created: bool,
}

/// Does what may take its time where nobody waits for it.
async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("a defect: {error}"))),
    }
}

/// A strong entity tag (RFC 9110 8.8.3).
fn quoted(etag: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{etag}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

impl Caller {
    /// What it asks for.
    fn change(&self) -> Change<'_> {
        Change {
            by: &self.who,
            expected: self.if_match.as_deref(),
            dry_run: self.options.dry_run,
            keeping: Persistence::Required,
        }
    }

    fn log(&self, applied: &Applied) {
        let (old, new) = (applied.before, applied.snapshot.revision);
        info!(who = self.who, what = self.what, old, new, "written by the management API");
    }
}

/// Serves the API, in a runtime of its own, so that a slow client of it slows no traffic.
pub struct ApiServer {
    /// Taken when the service starts.
    door: Mutex<Option<Door>>,
    api: Arc<Api>,
}

impl ApiServer {
    /// A server on a listener that is bound already.
    pub fn new(door: Door, api: Api) -> Self {
        ApiServer { door: Mutex::new(Some(door)), api: Arc::new(api) }
    }
}

#[async_trait]
impl BackgroundService for ApiServer {
    /// Runs to the end of the process: a gateway that stops can still be asked.
    async fn start(&self, _shutdown: ShutdownWatch) {
        let Some(door) = self.door.lock().take() else { return };
        if let Err(error) = serve(door, app(self.api.clone())).await {
            error!(%error, "the management API has failed");
        }
    }
}

/// Everything that is answered.
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

/// Lets in whoever may ask.
async fn admit(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let is_page = request.uri().path() == "/";
    match api.access.admits(request.uri().path(), request.headers()) {
        Ok(()) => match query::check(&request) {
            Ok(()) => described(next.run(request).await),
            Err(problem) => problem.into_response(),
        },
        // Whoever looks with a browser is asked for the token there.
        Err(problem) if is_page && problem.status == StatusCode::UNAUTHORIZED => {
            let mut response = page(StatusCode::UNAUTHORIZED);
            response.headers_mut().insert(header::WWW_AUTHENTICATE, access::CHALLENGE);
            response
        }
        Err(problem) => problem.into_response(),
    }
}

/// What axum answers by itself has no body: here is one.
fn described(response: Response) -> Response {
    let status = response.status();
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let bare = content_type.is_none_or(|value| value.as_bytes().starts_with(b"text/plain"));
    let detail = match status {
        StatusCode::NOT_FOUND if bare => {
            "there is nothing here; GET /api/v1/openapi.json lists what there is"
        }
        StatusCode::BAD_REQUEST if bare => "the path is not UTF-8, percent-encoded",
        StatusCode::METHOD_NOT_ALLOWED if bare => "this method means nothing here; Allow lists those that do",
        _ => return response,
    };
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    let (problem, body) = Problem::new(status, detail).into_response().into_parts();
    parts.headers.extend(problem.headers);
    Response::from_parts(parts, body)
}

fn page(status: StatusCode) -> Response {
    // Nothing from elsewhere, nothing that was written into it.
    const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                          connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                          frame-ancestors 'none'";
    let fields = [(header::CONTENT_SECURITY_POLICY, POLICY), (header::CACHE_CONTROL, "no-store")];
    (status, fields, Html(PAGE)).into_response()
}

/// Counts what is asked, by the path's description.
async fn measure(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let response = next.run(request).await;
    let path = matched.as_deref().unwrap_or("other");
    api.metrics.api_request(&method, path, response.status().as_u16(), began.elapsed().as_secs_f64());
    response
}
