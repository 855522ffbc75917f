//! # Metrics
//!
//! Every value of a label is a time series of its own, which the proxy and Prometheus keep in memory for good.
//! A label that clients choose the values of, such as the path, is therefore a hole: a few lines of shell fill
//! the memory. So a label names a *class*, and classes are few.
//!
//! **Your task**: write the three labels. Methods: GET, HEAD, POST, PUT, DELETE as they are, `other` for every
//! other word. Routes: `api` for paths that begin with `/api/`, `static` for `/static/`, `other` for the rest.
//! Statuses: `2xx`, `3xx`, `4xx`, `5xx`, and `other`.

use std::net::SocketAddr;

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use pingora::http::ResponseHeader;
use pingora::prelude::*;
use prometheus::{IntCounterVec, Opts, Registry, TextEncoder};

/// Forwards every request to one upstream and counts it. `/metrics` is answered here.
pub struct Measured {
    upstream: SocketAddr,
    registry: Registry,
    requests: IntCounterVec,
}

impl Measured {
    /// A proxy with metrics of its own.
    ///
    /// # Errors
    /// Where a metric cannot be registered, which these can.
    pub fn new(upstream: SocketAddr) -> prometheus::Result<Measured> {
        let what = Opts::new("proxy_requests_total", "Requests, by what they were and how they ended");
        let requests = IntCounterVec::new(what, &["method", "route", "status"])?;
        let registry = Registry::new();
        registry.register(Box::new(requests.clone()))?;
        Ok(Measured { upstream, registry, requests })
    }
}

/// The label for a method: itself, or `other`.
fn method_label(method: &Method) -> &str {
    // TODO: a few methods, and `other`.
    method.as_str()
}

/// The label for a path: the part of the site that it belongs to.
fn route_label(path: &str) -> &str {
    // TODO: `api`, `static` or `other`.
    path
}

/// The label for a status: its class.
fn status_label(status: u16) -> String {
    // TODO: `2xx` to `5xx`, or `other`.
    status.to_string()
}

#[async_trait]
impl ProxyHttp for Measured {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn request_filter(&self, session: &mut Session, _ctx: &mut ()) -> Result<bool> {
        if session.req_header().uri.path() != "/metrics" {
            return Ok(false);
        }
        let text = TextEncoder::new().encode_to_string(&self.registry.gather());
        let text = text.or_err(InternalError, "metrics as text")?;
        let mut response = ResponseHeader::build(200, None)?;
        response.insert_header("Content-Type", "text/plain; version=0.0.4")?;
        response.insert_header("Content-Length", text.len().to_string())?;
        session.write_response_header(Box::new(response), false).await?;
        session.write_response_body(Some(Bytes::from(text)), true).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, _ctx: &mut ()) {
        let request = session.req_header();
        if request.uri.path() == "/metrics" {
            return;
        }
        let status = status_label(session.response_written().map_or(0, |response| response.status.as_u16()));
        let labels = [method_label(&request.method), route_label(request.uri.path()), &status];
        self.requests.with_label_values(&labels).inc();
    }
}
