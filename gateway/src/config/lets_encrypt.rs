//! `[lets_encrypt]`: where certificates come from that nobody has to fetch by hand.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::is_default;

/// `[lets_encrypt]`: the ACME server (RFC 8555) that virtual hosts with `acme = true` get their certificates from.
/// Whoever has this table agrees to that server's terms of service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LetsEncrypt {
    /// Where the server may write to about certificates; empty: nowhere.
    #[serde(skip_serializing_if = "is_default")]
    pub email: String,
    /// Whether the certificates are those of Let's Encrypt's staging server: browsers do not trust them, and
    /// mistakes cost nothing.
    pub staging: bool,
    /// The directory with the account and the certificates.
    pub cache_dir: String,
    /// The directory of another ACME server, an https URL; empty: Let's Encrypt.
    #[serde(skip_serializing_if = "is_default")]
    pub directory_url: String,
    /// A file with the roots by which that server proves who it is; empty: the system's.
    #[serde(skip_serializing_if = "is_default")]
    pub ca_file: String,
    /// How the server is shown that a name leads here.
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

/// How an ACME server is shown that a name leads here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ChallengeKind {
    /// By an answer over plain HTTP on port 80 (RFC 8555 8.3).
    #[serde(rename = "http-01")]
    Http01,
    /// By a handshake on port 443 (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

impl ChallengeKind {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            ChallengeKind::Http01 => "http-01",
            ChallengeKind::TlsAlpn01 => "tls-alpn-01",
        }
    }
}
