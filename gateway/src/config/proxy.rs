//! `[proxy]`: where the process listens, what holds for every connection, and how the process lives.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::network::Cidr;
use super::values::{OneOrMany, Secs, is_default};

/// `[proxy]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Proxy {
    /// The plain HTTP listeners.
    pub listen_addr_http: OneOrMany<SocketAddr>,
    /// The HTTPS listeners: HTTP/1.1 and, by ALPN, HTTP/2. None: no TLS.
    #[serde(skip_serializing_if = "is_default")]
    pub listen_addr: OneOrMany<SocketAddr>,
    /// Whether a virtual host without a certificate is shown over HTTPS with a self-signed one, made at the start.
    pub self_signed: bool,
    /// The port to which `http_to_https` sends clients; 0: that of `listen_addr`, or else 443.
    #[serde(skip_serializing_if = "is_default")]
    pub https_port: u16,
    /// Whether the plain listeners take HTTP/2 from clients that know it (h2c with prior knowledge, RFC 9113
    /// 3.3).
    #[serde(skip_serializing_if = "is_default")]
    pub http2_cleartext: bool,
    /// Whether every connection begins with a PROXY protocol header (version 1 or 2), from one of
    /// `trusted_proxies`; any other connection is closed.
    #[serde(skip_serializing_if = "is_default")]
    pub proxy_protocol: bool,
    /// Who may say whom it speaks for, by `trusted_field` and PROXY headers.
    #[serde(skip_serializing_if = "is_default")]
    pub trusted_proxies: Vec<Cidr>,
    /// By which field they say it; the other one is not believed.
    #[serde(skip_serializing_if = "is_default")]
    pub trusted_field: TrustedField,
    /// The listener for the management API and its page.
    pub management_api_addr: SocketAddr,
    /// Whether there is one.
    pub management_api: bool,
    /// The environment variable with the key that signs cookies. Where it is not set, the key is made anew at
    /// each start, and cookies from before count as none.
    pub cookie_key_env: String,
    /// Open client connections; more are closed at once.
    pub max_connections: NonZeroUsize,
    /// The same from one address (IPv6: from one /64); 0: no limit of its own.
    #[serde(skip_serializing_if = "is_default")]
    pub max_connections_per_ip: u32,
    /// Requests on one connection, which then ends; 0: any number.
    pub max_requests_per_connection: u32,
    /// Open HTTP/2 streams of all client connections together; more are refused, and may be sent again.
    pub max_http2_streams: NonZeroU32,
    /// How many clients rate limits tell apart, over all windows; 17 bytes each.
    pub rate_limit_clients: NonZeroUsize,
    /// From a request's last byte to the response's first byte.
    pub request_timeout_secs: Secs,
    /// How long a client may take for the head of a request, from its first byte.
    pub header_timeout_secs: Secs,
    /// How long an idle client connection stays open.
    pub keepalive_timeout_secs: Secs,
    /// How long a client may take nothing of what it is sent.
    pub send_timeout_secs: Secs,
    /// So many bytes that it takes buy another second; 0: any do.
    pub min_send_bytes_per_sec: u32,
    /// Largest head of a backend's response, in bytes, with its status line; a larger one is answered with 502.
    pub max_response_header_bytes: NonZeroU32,
    /// Largest number of header fields in a backend's response; more are answered with 502.
    pub max_response_header_fields: NonZeroU32,
    /// How long requests in flight may take when the gateway stops.
    pub shutdown_timeout_secs: Secs,
    /// Where the page about problems is that answers link to; empty: the gateway's own page, on every host.
    #[serde(skip_serializing_if = "is_default")]
    pub problems_url: String,
    /// The DNS servers that are asked for backends' names; none: those of the system.
    #[serde(skip_serializing_if = "is_default")]
    pub nameservers: Vec<SocketAddr>,
    /// Worker threads; 0 is one per core.
    pub threads: usize,
    /// The file with the process's id, as long as it serves; empty: none.
    pub pid_file: String,
    /// The Unix socket over which a process takes the listeners over from the one that runs; empty: the usual
    /// place.
    pub upgrade_sock: String,
    /// The user that the process becomes once its ports are bound; empty: the one that starts it.
    pub user: String,
    /// The same for the group; empty: the user's own.
    pub group: String,
}

/// The field in which proxies write down whom they speak for. One is believed and not both: a proxy that adds to the
/// one passes the other on as the client has written it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TrustedField {
    /// `X-Forwarded-For`, and `X-Forwarded-Proto` beside it.
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
