//! `[access]` and `[auth]`: the networks from which clients may send requests, and the authentication of requests.

use std::collections::BTreeMap;

use http::{HeaderName, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::FieldName;
use super::network::Cidr;
use super::values::{Millis, OneOrMany, Secs, is_default};

/// `[access]`, a policy: the networks from which clients may send requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// Allowed networks; empty: every network.
    pub allow: Vec<Cidr>,
    /// Denied networks; they win over `allow`.
    pub deny: Vec<Cidr>,
}

/// `[auth]`, a policy: the credentials that a request needs. Each kind uses some of the keys; a key of another kind
/// is refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Method of authentication.
    pub kind: AuthKind,
    /// Realm that clients are shown when they need credentials.
    pub realm: String,
    /// True if the credentials are passed on to the backend. The backend could then use them elsewhere.
    #[serde(skip_serializing_if = "is_default")]
    pub pass_credentials: bool,
    /// Request field that tells the backend the user's name (`basic`, `api_key`). The same field from the client is
    /// removed.
    #[serde(skip_serializing_if = "is_default")]
    pub user_header: Option<FieldName>,
    /// `basic`: the file with one line `name:hash` per user; the hash is bcrypt or argon2.
    #[serde(skip_serializing_if = "is_default")]
    pub users_file: String,
    /// `api_key`: the request field with the key; absent: `X-Api-Key`.
    #[serde(skip_serializing_if = "is_default")]
    pub header: Option<FieldName>,
    /// `api_key`: the file with one line `name:sha256` per key; the second part is the key's SHA-256 in hexadecimal
    /// digits.
    #[serde(skip_serializing_if = "is_default")]
    pub keys_file: String,
    /// `jwt`: the URL of the issuer's public keys (RFC 7517 5); https, or http on this machine.
    #[serde(skip_serializing_if = "is_default")]
    pub jwks_url: String,
    /// `jwt`: the interval at which the keys are fetched, even if no token has an unknown key.
    #[serde(skip_serializing_if = "is_default")]
    pub jwks_refresh_secs: Option<Secs>,
    /// `jwt`: a file with public keys or certificates (PEM), in place of `jwks_url`.
    #[serde(skip_serializing_if = "is_default")]
    pub public_key_file: String,
    /// `jwt`: the environment variable with the secret that signs tokens, in place of a public key.
    #[serde(skip_serializing_if = "is_default")]
    pub secret_env: String,
    /// `jwt`: a file with the secret that signs tokens.
    #[serde(skip_serializing_if = "is_default")]
    pub secret_file: String,
    /// `jwt`: the accepted algorithms; empty: every algorithm that the keys can be used for.
    #[serde(skip_serializing_if = "is_default")]
    pub algorithms: Vec<JwtAlgorithm>,
    /// `jwt`: the accepted issuers (`iss`); empty: any issuer with a valid signature.
    #[serde(skip_serializing_if = "is_default")]
    pub issuer: OneOrMany<String>,
    /// `jwt`: the accepted audiences (`aud`); empty: only tokens without an audience are accepted.
    #[serde(skip_serializing_if = "is_default")]
    pub audience: OneOrMany<String>,
    /// `jwt`: the tolerated difference of the issuer's clock, in seconds; absent: 30.
    #[serde(skip_serializing_if = "is_default")]
    pub leeway_secs: Option<u16>,
    /// `jwt`: the claims that are passed to backends, and their request fields. The same fields from the client are
    /// removed.
    #[serde(skip_serializing_if = "is_default")]
    pub forward_claims: BTreeMap<String, FieldName>,
    /// `jwt`: claims that must have the given value, or one of the given values. For `scope`, one word of the claim
    /// must match.
    #[serde(skip_serializing_if = "is_default")]
    pub require: BTreeMap<String, OneOrMany<String>>,
    /// `forward`: the URL of the auth server, which decides whether a request may pass. Cookies of its response go to
    /// the client.
    #[serde(skip_serializing_if = "is_default")]
    pub url: String,
    /// `forward`: the fields of the auth server's response that are passed to backends, each at most once. The same
    /// fields from the client are removed.
    #[serde(skip_serializing_if = "is_default")]
    pub response_headers: Vec<FieldName>,
    /// `forward`: the timeout for the auth server's response; absent: 1000.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout_ms: Option<Millis>,
    /// `jwt`, `forward`: the root certificates for an https server (PEM); empty: the system's roots.
    #[serde(skip_serializing_if = "is_default")]
    pub ca_file: String,
}

impl Default for Auth {
    fn default() -> Self {
        Auth {
            kind: AuthKind::Basic,
            realm: "gateway".to_owned(),
            pass_credentials: false,
            user_header: None,
            users_file: String::new(),
            header: None,
            keys_file: String::new(),
            jwks_url: String::new(),
            jwks_refresh_secs: None,
            public_key_file: String::new(),
            secret_env: String::new(),
            secret_file: String::new(),
            algorithms: Vec::new(),
            issuer: OneOrMany::default(),
            audience: OneOrMany::default(),
            leeway_secs: None,
            forward_claims: BTreeMap::new(),
            require: BTreeMap::new(),
            url: String::new(),
            response_headers: Vec::new(),
            timeout_ms: None,
            ca_file: String::new(),
        }
    }
}

impl Auth {
    /// Returns the request field with the credentials, if the gateway must remove it before the request goes to the
    /// backend.
    pub fn proof(&self) -> Option<HeaderName> {
        let field = match self.kind {
            AuthKind::Basic | AuthKind::Jwt => Some(header::AUTHORIZATION),
            AuthKind::ApiKey => Some(self.key_header()),
            AuthKind::None | AuthKind::Forward => None,
        };
        field.filter(|_| !self.pass_credentials)
    }

    /// Returns the request field with the key of `api_key`.
    pub fn key_header(&self) -> HeaderName {
        self.header.as_ref().map_or(HeaderName::from_static("x-api-key"), |name| name.0.clone())
    }

    /// Returns every request field that tells the backend about the user.
    pub fn identity_headers(&self) -> impl Iterator<Item = &HeaderName> {
        let names = self.forward_claims.values().chain(&self.response_headers).chain(&self.user_header);
        names.map(|name| &name.0)
    }

    /// Returns every file that the table can name; the path of an unused file is empty.
    pub fn files(&self) -> [&String; 5] {
        [&self.users_file, &self.keys_file, &self.public_key_file, &self.secret_file, &self.ca_file]
    }
}

/// Method of authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthKind {
    /// No authentication, even if an outer table requires it.
    None,
    /// Name and password (RFC 7617).
    Basic,
    /// Signed token (RFC 7519), sent as a bearer token (RFC 6750).
    Jwt,
    /// Key in a header field.
    ApiKey,
    /// Decision of another server.
    Forward,
}

impl AuthKind {
    /// Returns the kind's name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            AuthKind::None => "none",
            AuthKind::Basic => "basic",
            AuthKind::Jwt => "jwt",
            AuthKind::ApiKey => "api_key",
            AuthKind::Forward => "forward",
        }
    }
}

/// Algorithm that signs tokens (RFC 7518 3.1, RFC 8037 3.1). There is no `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "the names are those of the RFCs")]
pub enum JwtAlgorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl JwtAlgorithm {
    /// Returns true if signer and verifier share a secret.
    pub fn is_symmetric(self) -> bool {
        matches!(self, JwtAlgorithm::HS256 | JwtAlgorithm::HS384 | JwtAlgorithm::HS512)
    }
}
