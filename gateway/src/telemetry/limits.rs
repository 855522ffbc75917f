//! Counters of exceeded limits. They are one family, so that the operator sees in one place which limits have an
//! effect. The operator can then judge whether the limits stop attackers or customers.

use prometheus::{IntCounter, Result};

use super::families::Families;

/// A limit that a client or its request has exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The request's target is too long.
    Uri,
    /// The request's head is too large, or has too many fields.
    Header,
    /// The request's head arrives too slowly.
    HeaderTimeout,
    /// The request's body is too long.
    RequestBody,
    /// The request's body arrives too slowly.
    BodyRate,
    /// The client reads its responses too slowly.
    SendRate,
    /// The client has reset too many requests of an HTTP/2 connection before they were answered.
    Http2Resets,
    /// The client has broken the rules of too many streams of an HTTP/2 connection.
    Http2Faults,
    /// The client has sent too many frames without effect on an HTTP/2 connection.
    Http2Frames,
    /// The head of an HTTP/2 request is far too large, or arrives in too many parts.
    Http2Head,
    /// The client has broken a rule of the HTTP/2 connection as a whole.
    Http2Protocol,
    /// An HTTP/2 request is malformed, and its stream is reset.
    Http2Malformed,
    /// Too many HTTP/2 streams are open on all connections together, so another stream is refused.
    Http2Streams,
}

impl Limit {
    const ALL: [Limit; 13] = [
        Limit::Uri,
        Limit::Header,
        Limit::HeaderTimeout,
        Limit::RequestBody,
        Limit::BodyRate,
        Limit::SendRate,
        Limit::Http2Resets,
        Limit::Http2Faults,
        Limit::Http2Frames,
        Limit::Http2Head,
        Limit::Http2Protocol,
        Limit::Http2Malformed,
        Limit::Http2Streams,
    ];

    /// Returns the label of the limit.
    fn label(self) -> &'static str {
        match self {
            Limit::Uri => "uri",
            Limit::Header => "header",
            Limit::HeaderTimeout => "header_timeout",
            Limit::RequestBody => "request_body",
            Limit::BodyRate => "body_rate",
            Limit::SendRate => "send_rate",
            Limit::Http2Resets => "http2_resets",
            Limit::Http2Faults => "http2_faults",
            Limit::Http2Frames => "http2_frames",
            Limit::Http2Head => "http2_head",
            Limit::Http2Protocol => "http2_protocol",
            Limit::Http2Malformed => "http2_malformed",
            Limit::Http2Streams => "http2_streams",
        }
    }
}

/// Counter for each limit.
pub struct LimitMetrics([IntCounter; Limit::ALL.len()]);

impl LimitMetrics {
    pub(super) fn new(new: &Families<'_>) -> Result<Self> {
        let family = new.counters(
            "proxy_limits_exceeded_total",
            "Requests and clients that exceeded a limit",
            &["limit"],
        )?;
        Ok(LimitMetrics(Limit::ALL.map(|limit| family.with_label_values(&[limit.label()]))))
    }

    /// Returns the counter of `limit`.
    pub fn counter(&self, limit: Limit) -> &IntCounter {
        // `ALL` has the limits in the order of their declaration.
        &self.0[limit as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn each_limit_has_a_series_of_its_own_from_the_start() {
        let metrics = Metrics::new().unwrap();
        for (i, limit) in Limit::ALL.into_iter().enumerate() {
            metrics.limits.counter(limit).inc_by(i as u64 + 1);
            let line = format!("proxy_limits_exceeded_total{{limit=\"{}\"}} {}", limit.label(), i + 1);
            let (text, _) = metrics.encode().unwrap();
            assert!(text.contains(&line), "{line} not in\n{text}");
        }
    }
}
