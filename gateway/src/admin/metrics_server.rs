//! Metrics listener. It serves `/metrics` and `/api/v1/metrics` for Prometheus, `/health` and `/livez` for checks
//! that the process is alive, and `/readyz` for load balancers in front of the gateway.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::Mutex;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::sync::watch;
use tracing::error;

use super::serve::{HttpListener, serve};
use crate::telemetry::{LogHandle, Metrics, keep_rates};

/// Readiness for new traffic, which `/readyz` reports.
#[derive(Clone, Default)]
pub struct Readiness {
    draining: watch::Sender<bool>,
}

impl Readiness {
    /// Marks the gateway as not ready, because the process is stopping.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Returns a receiver whose value becomes true when the process is stopping.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    fn is_ready(&self) -> bool {
        !*self.draining.borrow()
    }
}

/// Service that serves the metrics listener in a separate runtime, and updates the metrics that are rates.
pub struct MetricsServer {
    /// Listener; `None` after the service has started, or if there is none.
    door: Mutex<Option<HttpListener>>,
    shared: Shared,
    log: LogHandle,
}

#[derive(Clone)]
struct Shared {
    metrics: Arc<Metrics>,
    readiness: Readiness,
}

impl MetricsServer {
    /// Creates a server. If `door` is `None`, the server only updates the rates.
    pub fn new(
        door: Option<HttpListener>,
        metrics: Arc<Metrics>,
        readiness: Readiness,
        log: LogHandle,
    ) -> Self {
        MetricsServer { door: Mutex::new(door), shared: Shared { metrics, readiness }, log }
    }
}

#[async_trait]
impl BackgroundService for MetricsServer {
    /// Runs until the process ends, so that `/readyz` can report the drain.
    async fn start(&self, _shutdown: ShutdownWatch) {
        let door = self.door.lock().take();
        let serving = async {
            let Some(door) = door else { return std::future::pending().await };
            if let Err(error) = serve(door, app(self.shared.clone())).await {
                error!(%error, "the metrics listener has failed");
            }
        };
        tokio::join!(serving, keep_rates(&self.shared.metrics, &self.log));
    }
}

fn app(shared: Shared) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/api/v1/metrics", get(metrics))
        .route("/health", get(alive))
        .route("/livez", get(alive))
        .route("/readyz", get(ready))
        .with_state(shared)
}

async fn metrics(State(shared): State<Shared>) -> Response {
    match shared.metrics.encode() {
        Ok((text, content_type)) => ([(header::CONTENT_TYPE, content_type)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode the metrics: {error}\n"))
            .into_response(),
    }
}

async fn alive() -> &'static str {
    "OK"
}

async fn ready(State(shared): State<Shared>) -> (StatusCode, &'static str) {
    if shared.readiness.is_ready() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    }
}
