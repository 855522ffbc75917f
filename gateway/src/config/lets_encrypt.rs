//! `[lets_encrypt]`: automatic certificates from an ACME server.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::is_default;

/// `[lets_encrypt]`: the ACME server (RFC 8555) that issues the certificates of virtual hosts with `acme = true`. By
/// writing this table, the operator agrees to the terms of service of the server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LetsEncrypt {
    /// Email address to which the ACME server sends messages about certificates; empty: none are sent.
    #[serde(skip_serializing_if = "is_default")]
    pub email: String,
    /// True if Let's Encrypt's staging server issues the certificates. It is for trials: browsers do not trust its
    /// certificates. False: the production server issues them.
    pub staging: bool,
    /// Directory in which the gateway stores its ACME account, keys and certificates.
    pub cache_dir: String,
    /// Directory URL (https) of the ACME server; empty: Let's Encrypt.
    #[serde(skip_serializing_if = "is_default")]
    pub directory_url: String,
    /// File with root certificates (PEM) for the server at `directory_url`; empty: the system's root certificates.
    #[serde(skip_serializing_if = "is_default")]
    pub ca_file: String,
    /// Kind of challenge by which the gateway proves to the ACME server that it serves a host name.
    pub challenge: ChallengeKind,
}

impl Default for LetsEncrypt {
    fn default() -> Self {
        LetsEncrypt {
            email: String::new(),
            staging: true,
            cache_dir: "acme".to_owned(),
            directory_url: String::new(),
            ca_file: String::new(),
            challenge: ChallengeKind::Http01,
        }
    }
}

/// Kind of challenge by which the gateway proves to an ACME server that it serves a host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ChallengeKind {
    /// Response with a token, over plain HTTP on port 80 (RFC 8555 8.3).
    #[serde(rename = "http-01")]
    Http01,
    /// TLS handshake with a special certificate, on port 443 (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

impl ChallengeKind {
    /// Returns the challenge's name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            ChallengeKind::Http01 => "http-01",
            ChallengeKind::TlsAlpn01 => "tls-alpn-01",
        }
    }
}
