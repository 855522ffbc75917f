//! Settings of `[proxy]`, in the form in which requests and connections use them.

use std::time::Duration;

use crate::config::{Cidr, Proxy, TrustedField};
use crate::upstream::connection::HeadLimits;
use crate::util::min_rate::MinRate;

/// Compiled settings of `[proxy]` that requests and connections use.
pub struct ProxySettings {
    /// True if each connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// True if clients may use HTTP/2 without TLS.
    pub http2_cleartext: bool,
    /// Networks of the proxies in front of the gateway.
    pub trusted_proxies: Vec<Cidr>,
    /// Header field in which trusted proxies name the client.
    pub trusted_field: TrustedField,
    /// Maximum number of connections of a client; 0 sets no limit.
    pub max_connections_per_ip: u32,
    /// Maximum number of requests on a connection; 0 sets no limit.
    pub max_requests_per_connection: u32,
    /// Maximum number of HTTP/2 streams over all connections.
    pub max_http2_streams: u32,
    /// Maximum time for the head of a request.
    pub header_timeout: Duration,
    /// Maximum idle time of a connection.
    pub keepalive_timeout: Duration,
    /// Minimum rate at which a client must receive a response.
    pub min_send_rate: MinRate,
    /// Maximum time from the last byte of the request to the first byte of the response.
    pub request_timeout: Duration,
    /// Maximum time for requests in flight after the gateway was told to stop.
    pub grace_period: Duration,
    /// Limits of a response head.
    pub response_head: HeadLimits,
    /// URL of the page that explains problems; `None` if the gateway itself serves that page.
    pub problems_url: Option<String>,
}

impl ProxySettings {
    /// Returns true if `peer` is the address of a trusted proxy.
    pub fn trusts(&self, peer: std::net::IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(peer))
    }
}

impl From<&Proxy> for ProxySettings {
    fn from(proxy: &Proxy) -> Self {
        ProxySettings {
            proxy_protocol: proxy.proxy_protocol,
            http2_cleartext: proxy.http2_cleartext,
            trusted_proxies: proxy.trusted_proxies.clone(),
            trusted_field: proxy.trusted_field,
            max_connections_per_ip: proxy.max_connections_per_ip,
            max_requests_per_connection: proxy.max_requests_per_connection,
            max_http2_streams: proxy.max_http2_streams.get(),
            header_timeout: proxy.header_timeout_secs.duration(),
            keepalive_timeout: proxy.keepalive_timeout_secs.duration(),
            min_send_rate: MinRate {
                timeout: proxy.send_timeout_secs.duration(),
                bytes_per_sec: proxy.min_send_bytes_per_sec,
            },
            request_timeout: proxy.request_timeout_secs.duration(),
            grace_period: proxy.shutdown_timeout_secs.duration(),
            response_head: HeadLimits::from(proxy),
            problems_url: Some(&proxy.problems_url).filter(|url| !url.is_empty()).cloned(),
        }
    }
}
