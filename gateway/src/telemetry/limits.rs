//! How often which limit was met. One family: whoever watches the gateway sees in one place which of its limits
//! is at work, and whether it turns away attackers or customers.

use prometheus::{IntCounter, Result};

use super::families::Families;

/// A limit that a client has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The request's target is too long.
    Uri,
    /// The request's head is too large, or has too many fields.
    Header,
    /// The request's head comes too slowly.
    HeaderTimeout,
    /// The request's body is too long.
    RequestBody,
    /// The request's body comes too slowly.
    BodyRate,
    /// The client takes its answers too slowly.
    SendRate,
    /// A connection of HTTP/2 has reset too many requests before they were answered.
    Http2Resets,
    /// A connection of HTTP/2 has broken the rules of too many streams.
    Http2Faults,
    /// A connection of HTTP/2 has sent too many frames that ask for nothing.
    Http2Frames,
    /// The head of a request over HTTP/2 is far too large, or comes in too many parts.
    Http2Head,
    /// A connection of HTTP/2 has broken a rule of the connection.
    Http2Protocol,
    /// A request over HTTP/2 is malformed, and reset.
    Http2Malformed,
    /// All connections of HTTP/2 together have too many streams open, and one more is refused.
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

    /// Its name, as a label.
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

/// A counter for each limit.
pub struct LimitMetrics([IntCounter; Limit::ALL.len()]);

impl LimitMetrics {
    pub(super) fn new(new: &Families<'_>) -> Result<Self> {
        let family =
            new.counters("proxy_limits_exceeded_total", "Requests and clients over a limit", &["limit"])?;
        Ok(LimitMetrics(Limit::ALL.map(|limit| family.with_label_values(&[limit.label()]))))
    }

    /// The counter of `limit`.
    pub fn counter(&self, limit: Limit) -> &IntCounter {
        // In the order in which they are declared.
        &self.0[limit as usize]
    }
}

#[cfg(test)]
mod tests {
    use crate::telemetry::Metrics;

    use super::*;

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
