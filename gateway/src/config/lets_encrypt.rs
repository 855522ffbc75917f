//! `[lets_encrypt]`: automatic certificates from an ACME server.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::is_default;

/// `[lets_encrypt]`: the ACME server (RFC 8555) that issues the certificates of virtual hosts with `acme = true`. An
/// operator who writes this table agrees to the server's terms of service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LetsEncrypt {
    /// Email address for messages of the server about certificates; empty: no messages.
    #[serde(skip_serializing_if = "is_default")]
    pub email: String,
    /// True if the certificates come from Let's Encrypt's staging server. Browsers do not trust them, and mistakes
    /// have no consequences.
    pub staging: bool,
    /// Directory for the account and the certificates.
    pub cache_dir: String,
    /// Directory URL of another ACME server (https); empty: Let's Encrypt.
    #[serde(skip_serializing_if = "is_default")]
    pub directory_url: String,
    /// File with the root certificates for that server; empty: the system's roots.
    #[serde(skip_serializing_if = "is_default")]
    pub ca_file: String,
    /// Challenge that proves to the server that a name leads to this gateway.
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

/// Challenge that proves to an ACME server that a name leads to this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ChallengeKind {
    /// Response over plain HTTP on port 80 (RFC 8555 8.3).
    #[serde(rename = "http-01")]
    Http01,
    /// TLS handshake on port 443 (RFC 8737).
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
