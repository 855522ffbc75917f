//! Metrics: requests are counted under labels that stay few, for any requests that clients send.

use std::net::SocketAddr;

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use pingora::http::ResponseHeader;
use pingora::prelude::*;
use prometheus::{IntCounterVec, Opts, Registry, TextEncoder};

use crate::peer::peer;

/// Proxy that forwards every request to one upstream and counts it.
pub struct Measured {
    upstream: SocketAddr,
    registry: Registry,
    requests: IntCounterVec,
}

impl Measured {
    /// Returns a proxy with a separate registry of metrics.
    ///
    /// # Errors
    /// Returns an error if a metric cannot be registered. These metrics can always be registered.
    pub fn new(upstream: SocketAddr) -> prometheus::Result<Measured> {
        let what = Opts::new("proxy_requests_total", "Requests by method, route and status class");
        let requests = IntCounterVec::new(what, &["method", "route", "status"])?;
        let registry = Registry::new();
        registry.register(Box::new(requests.clone()))?;
        Ok(Measured { upstream, registry, requests })
    }

    /// Returns the page with the metrics.
    pub fn page(&self) -> MetricsPage {
        MetricsPage { registry: self.registry.clone() }
    }
}

/// Returns the label for a method: the method itself, or `other`.
fn method_label(method: &Method) -> &str {
    match method.as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE") => known,
        _ => "other",
    }
}

/// Returns the label for a path: the part of the site that it belongs to.
fn route_label(path: &str) -> &str {
    match path {
        _ if path.starts_with("/api/") => "api",
        _ if path.starts_with("/static/") => "static",
        _ => "other",
    }
}

/// Returns the label for a status: its class.
fn status_label(status: u16) -> String {
    match status / 100 {
        class @ 2..=5 => format!("{class}xx"),
        _ => "other".to_owned(),
    }
}

#[async_trait]
impl ProxyHttp for Measured {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(peer(self.upstream))
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, _ctx: &mut ()) {
        let request = session.req_header();
        let status = status_label(session.response_written().map_or(0, |response| response.status.as_u16()));
        let labels = [method_label(&request.method), route_label(request.uri.path()), &status];
        self.requests.with_label_values(&labels).inc();
    }
}

/// Page with the metrics. It is served on another address than the proxy, because metrics are not for clients:
/// they tell how much traffic a site has, and when it fails.
pub struct MetricsPage {
    registry: Registry,
}

#[async_trait]
impl ProxyHttp for MetricsPage {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn request_filter(&self, session: &mut Session, _ctx: &mut ()) -> Result<bool> {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather());
        let text = text.or_err(InternalError, "metrics as text")?;
        let mut response = ResponseHeader::build(200, None)?;
        response.insert_header("Content-Type", "text/plain; version=0.0.4")?;
        response.insert_header("Content-Length", text.len().to_string())?;
        session.write_response_header(Box::new(response), false).await?;
        session.write_response_body(Some(Bytes::from(text)), true).await?;
        Ok(true)
    }

    /// Returns an error: `request_filter` answers every request, so there is no upstream.
    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Error::e_explain(HTTPStatus(404), "the page of metrics has no upstream")
    }
}
