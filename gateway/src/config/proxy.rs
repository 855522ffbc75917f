//! `[proxy]`: the listeners, the settings for every client connection, and the settings of the process.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::network::Cidr;
use super::values::{OneOrMany, Secs, is_default};

/// `[proxy]`: listeners, connection limits, timeouts and process settings.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Proxy {
    /// Addresses of the plain HTTP listeners.
    pub listen_addr_http: OneOrMany<SocketAddr>,
    /// Addresses of the HTTPS listeners, which serve HTTP/1.1 and (by ALPN) HTTP/2. Empty: no TLS.
    #[serde(skip_serializing_if = "is_default")]
    pub listen_addr: OneOrMany<SocketAddr>,
    /// True if the gateway makes a self-signed certificate at startup for each virtual host without a certificate.
    pub self_signed: bool,
    /// Port to which `http_to_https` redirects clients; 0: the port of `listen_addr`, or 443 if that is empty.
    #[serde(skip_serializing_if = "is_default")]
    pub https_port: u16,
    /// True if the plain HTTP listeners also accept HTTP/2 from clients with prior knowledge (h2c, RFC 9113 3.3).
    #[serde(skip_serializing_if = "is_default")]
    pub http2_cleartext: bool,
    /// True if every client connection must begin with a PROXY protocol header (version 1 or 2) from one of
    /// `trusted_proxies`. Any other connection is closed.
    #[serde(skip_serializing_if = "is_default")]
    pub proxy_protocol: bool,
    /// Networks of the proxies in front of the gateway whose `trusted_field` and PROXY headers are believed.
    #[serde(skip_serializing_if = "is_default")]
    pub trusted_proxies: Vec<Cidr>,
    /// Request field in which `trusted_proxies` report the client's address; the gateway ignores the other such field.
    #[serde(skip_serializing_if = "is_default")]
    pub trusted_field: TrustedField,
    /// Address of the listener for the management API and its page.
    pub management_api_addr: SocketAddr,
    /// True if the management API is served; false: its listener is not opened.
    pub management_api: bool,
    /// Environment variable with the key that signs cookies. If the variable is not set, the gateway makes a new key
    /// at each start. Cookies from before the start then become invalid.
    pub cookie_key_env: String,
    /// Maximum number of open client connections; the gateway closes further connections at once.
    pub max_connections: NonZeroUsize,
    /// Maximum number of open connections from one client address (IPv6: from one /64); 0: no such limit.
    #[serde(skip_serializing_if = "is_default")]
    pub max_connections_per_ip: u32,
    /// Maximum number of requests on one client connection, after which the gateway closes it; 0: no limit.
    pub max_requests_per_connection: u32,
    /// Maximum number of open HTTP/2 streams on all client connections together. The gateway refuses further streams;
    /// clients may send their requests again.
    pub max_http2_streams: NonZeroU32,
    /// Maximum number of clients that rate limits distinguish, counted for each window; each takes 17 bytes.
    pub rate_limit_clients: NonZeroUsize,
    /// Maximum time from the last byte of a request to the first byte of its response.
    pub request_timeout_secs: Secs,
    /// Maximum time from the first byte of a request head to its last byte.
    pub header_timeout_secs: Secs,
    /// Maximum idle time of a client connection: before its first request, and between two requests.
    pub keepalive_timeout_secs: Secs,
    /// Maximum time for which a client may accept no data while the gateway sends.
    pub send_timeout_secs: Secs,
    /// Minimum rate at which a client must accept a response, in bytes per second. Accepting this number of bytes
    /// gives the client one more second. 0: any accepted byte restarts `send_timeout_secs`.
    pub min_send_bytes_per_sec: u32,
    /// Maximum size of a backend's response head, in bytes, including the status line. If the head is larger, the
    /// client gets 502.
    pub max_response_header_bytes: NonZeroU32,
    /// Maximum number of header fields in a backend's response. If there are more, the client gets 502.
    pub max_response_header_fields: NonZeroU32,
    /// Grace period: time in which requests in flight may finish after the gateway has begun to stop.
    pub shutdown_timeout_secs: Secs,
    /// URL of the page that explains errors, for links in error responses; empty: the gateway's own page.
    #[serde(skip_serializing_if = "is_default")]
    pub problems_url: String,
    /// DNS servers that resolve the host names of backends; empty: the DNS servers of the system.
    #[serde(skip_serializing_if = "is_default")]
    pub nameservers: Vec<SocketAddr>,
    /// Number of worker threads; 0: one thread per CPU core.
    pub threads: usize,
    /// File with the gateway's process id. The file only exists while the gateway serves. Empty: no file.
    pub pid_file: String,
    /// Unix socket through which the running process passes its listeners to a new process; empty: the default path.
    pub upgrade_sock: String,
    /// User to which the process changes after it has bound its ports; empty: the user that started it.
    pub user: String,
    /// Group to which the process changes after it has bound its ports; empty: the group of `user`.
    pub group: String,
}

/// Request field in which proxies report the client's address. Only one of the two fields is trusted, because a proxy
/// that writes one field forwards the other field unchanged from the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TrustedField {
    /// `X-Forwarded-For` for the address, and `X-Forwarded-Proto` for the scheme.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239), for the address and the scheme.
    Forwarded,
}

impl Default for Proxy {
    fn default() -> Self {
        Proxy {
            listen_addr_http: OneOrMany(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))]),
            listen_addr: OneOrMany::default(),
            self_signed: true,
            https_port: 0,
            http2_cleartext: false,
            proxy_protocol: false,
            trusted_proxies: Vec::new(),
            trusted_field: TrustedField::default(),
            management_api_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
            management_api: true,
            cookie_key_env: "GATEWAY_COOKIE_KEY".to_owned(),
            max_connections: NonZeroUsize::MIN.saturating_add(9_999),
            max_connections_per_ip: 0,
            max_requests_per_connection: 10_000,
            max_http2_streams: NonZeroU32::MIN.saturating_add(9_999),
            rate_limit_clients: NonZeroUsize::MIN.saturating_add(262_143),
            request_timeout_secs: Secs::new(30),
            header_timeout_secs: Secs::new(10),
            keepalive_timeout_secs: Secs::new(60),
            send_timeout_secs: Secs::new(60),
            min_send_bytes_per_sec: 256,
            max_response_header_bytes: NonZeroU32::MIN.saturating_add(65_535),
            max_response_header_fields: NonZeroU32::MIN.saturating_add(199),
            shutdown_timeout_secs: Secs::new(30),
            problems_url: String::new(),
            nameservers: Vec::new(),
            threads: 0,
            pid_file: String::new(),
            upgrade_sock: String::new(),
            user: String::new(),
            group: String::new(),
        }
    }
}
