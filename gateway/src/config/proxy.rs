//! `[proxy]`: the listeners, the settings for every connection, and the process itself.

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
    /// Plain HTTP listeners.
    pub listen_addr_http: OneOrMany<SocketAddr>,
    /// HTTPS listeners, for HTTP/1.1 and (by ALPN) HTTP/2. Empty: no TLS.
    #[serde(skip_serializing_if = "is_default")]
    pub listen_addr: OneOrMany<SocketAddr>,
    /// True if a virtual host without a certificate uses a self-signed one over HTTPS, which is made at startup.
    pub self_signed: bool,
    /// Port to which `http_to_https` redirects clients; 0: the port of `listen_addr`, or else 443.
    #[serde(skip_serializing_if = "is_default")]
    pub https_port: u16,
    /// True if the plain listeners accept HTTP/2 from clients with prior knowledge (h2c, RFC 9113 3.3).
    #[serde(skip_serializing_if = "is_default")]
    pub http2_cleartext: bool,
    /// True if every connection must begin with a PROXY protocol header (version 1 or 2) from one of
    /// `trusted_proxies`; any other connection is closed.
    #[serde(skip_serializing_if = "is_default")]
    pub proxy_protocol: bool,
    /// Networks of proxies that may name the original client, by `trusted_field` and PROXY headers.
    #[serde(skip_serializing_if = "is_default")]
    pub trusted_proxies: Vec<Cidr>,
    /// Field in which these proxies name the client; the other field is ignored.
    #[serde(skip_serializing_if = "is_default")]
    pub trusted_field: TrustedField,
    /// Listener for the management API and its page.
    pub management_api_addr: SocketAddr,
    /// True if the management API is served.
    pub management_api: bool,
    /// Environment variable with the key that signs cookies. If it is not set, each start makes a new key, and older
    /// cookies become invalid.
    pub cookie_key_env: String,
    /// Maximum number of open client connections; further ones are closed at once.
    pub max_connections: NonZeroUsize,
    /// Maximum number of open connections from one address (IPv6: from one /64); 0: no separate limit.
    #[serde(skip_serializing_if = "is_default")]
    pub max_connections_per_ip: u32,
    /// Maximum number of requests on one connection, which is then closed; 0: no limit.
    pub max_requests_per_connection: u32,
    /// Maximum number of open HTTP/2 streams on all client connections together. Further streams are refused, and
    /// clients may send them again.
    pub max_http2_streams: NonZeroU32,
    /// Number of clients that rate limits distinguish, over all windows; each takes 17 bytes.
    pub rate_limit_clients: NonZeroUsize,
    /// Time limit from a request's last byte to the response's first byte.
    pub request_timeout_secs: Secs,
    /// Time limit for the head of a request, from its first byte.
    pub header_timeout_secs: Secs,
    /// Maximum idle time of a client connection.
    pub keepalive_timeout_secs: Secs,
    /// Maximum time for which a client may accept no data while the gateway sends.
    pub send_timeout_secs: Secs,
    /// Minimum rate at which a client must accept data, in bytes per second: that many bytes allow one more second of
    /// waiting. 0: any number of bytes resets the waiting time.
    pub min_send_bytes_per_sec: u32,
    /// Maximum size of a backend's response head, in bytes, including its status line; a larger one is answered with
    /// 502.
    pub max_response_header_bytes: NonZeroU32,
    /// Maximum number of header fields in a backend's response; more are answered with 502.
    pub max_response_header_fields: NonZeroU32,
    /// Time that requests in flight get to finish when the gateway stops.
    pub shutdown_timeout_secs: Secs,
    /// URL of the page about problems, to which error responses link; empty: the gateway's own page, on every host.
    #[serde(skip_serializing_if = "is_default")]
    pub problems_url: String,
    /// DNS servers that resolve the backends' names; empty: the system's servers.
    #[serde(skip_serializing_if = "is_default")]
    pub nameservers: Vec<SocketAddr>,
    /// Number of worker threads; 0: one per core.
    pub threads: usize,
    /// File that holds the process id while the gateway serves; empty: no file.
    pub pid_file: String,
    /// Unix socket over which a new process takes the listeners over from the running one; empty: the default path.
    pub upgrade_sock: String,
    /// User that the process becomes after its ports are bound; empty: the user that started it.
    pub user: String,
    /// Group that the process gets after its ports are bound; empty: the group of `user`.
    pub group: String,
}

/// Field in which proxies name the client. Only one of the two fields is trusted: a proxy that adds to one field
/// passes the other field on as the client wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TrustedField {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto` beside it.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
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
