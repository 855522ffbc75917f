//! `[access]` and `[auth]`: the networks from which clients may send requests, and the credentials of requests.

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
    /// Networks whose clients are allowed; empty: every network.
    pub allow: Vec<Cidr>,
    /// Networks whose clients get 403, even if `allow` contains them.
    pub deny: Vec<Cidr>,
}

/// `[auth]`, a policy: the credentials that a request needs. Each `kind` uses some of the keys; a key that only other
/// kinds use is refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Method by which requests are authenticated.
    pub kind: AuthKind,
    /// Realm in the response to a request without valid credentials; browsers may show it to users.
    pub realm: String,
    /// True if the credentials are forwarded to the backend, which could then misuse them. False: they are removed.
    #[serde(skip_serializing_if = "is_default")]
    pub pass_credentials: bool,
    /// Request field in which the gateway tells the backend the user's name (`basic`, `api_key`); absent: none. If the
    /// client sends this field, the gateway removes it.
    #[serde(skip_serializing_if = "is_default")]
    pub user_header: Option<FieldName>,
    /// `basic`: the file of users, with a line `name:hash` for each user. The hash is bcrypt or argon2.
    #[serde(skip_serializing_if = "is_default")]
    pub users_file: String,
    /// `api_key`: the request field in which clients send the key; absent: `X-Api-Key`.
    #[serde(skip_serializing_if = "is_default")]
    pub header: Option<FieldName>,
    /// `api_key`: the file of keys, with a line `name:sha256` for each key: its SHA-256, in hexadecimal digits.
    #[serde(skip_serializing_if = "is_default")]
    pub keys_file: String,
    /// `jwt`: the URL of the issuer's public keys (RFC 7517 5); https is required, except on this machine.
    #[serde(skip_serializing_if = "is_default")]
    pub jwks_url: String,
    /// `jwt`: the interval at which the keys are fetched; absent: 300. An unknown key id causes an earlier fetch.
    #[serde(skip_serializing_if = "is_default")]
    pub jwks_refresh_secs: Option<Secs>,
    /// `jwt`: the file with public keys or certificates (PEM), in place of `jwks_url`.
    #[serde(skip_serializing_if = "is_default")]
    pub public_key_file: String,
    /// `jwt`: the environment variable with the secret that signs tokens, in place of public keys.
    #[serde(skip_serializing_if = "is_default")]
    pub secret_env: String,
    /// `jwt`: the file with the secret that signs tokens, in place of public keys.
    #[serde(skip_serializing_if = "is_default")]
    pub secret_file: String,
    /// `jwt`: the accepted signature algorithms; empty: every algorithm for which the keys are suitable.
    #[serde(skip_serializing_if = "is_default")]
    pub algorithms: Vec<JwtAlgorithm>,
    /// `jwt`: the accepted issuers (`iss`); empty: any issuer, if the signature is valid.
    #[serde(skip_serializing_if = "is_default")]
    pub issuer: OneOrMany<String>,
    /// `jwt`: the accepted audiences (`aud`); empty: a token with an audience is refused.
    #[serde(skip_serializing_if = "is_default")]
    pub audience: OneOrMany<String>,
    /// `jwt`: the tolerated difference between the clocks of issuer and gateway, in seconds; absent: 30.
    #[serde(skip_serializing_if = "is_default")]
    pub leeway_secs: Option<u16>,
    /// `jwt`: the claims that the gateway tells the backend, each with its request field. If the client sends such a
    /// field, the gateway removes it.
    #[serde(skip_serializing_if = "is_default")]
    pub forward_claims: BTreeMap<String, FieldName>,
    /// `jwt`: the claims that a token must have, each with its allowed value or values. The claim `scope` is a list of
    /// words, and one of its words must be allowed.
    #[serde(skip_serializing_if = "is_default")]
    pub require: BTreeMap<String, OneOrMany<String>>,
    /// `forward`: the URL of the auth server, which decides if a request may pass. Cookies that the auth server sets
    /// are sent to the client.
    #[serde(skip_serializing_if = "is_default")]
    pub url: String,
    /// `forward`: the fields of the auth server's response that are copied to the request for the backend, each at
    /// most once. If the client sends such a field, the gateway removes it.
    #[serde(skip_serializing_if = "is_default")]
    pub response_headers: Vec<FieldName>,
    /// `forward`: the maximum time for the auth server's response, in milliseconds; absent: 1000.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout_ms: Option<Millis>,
    /// For `jwt` and `forward`: file of root certificates (PEM), which verify the server if its URL is https. Empty: the
    /// system's root certificates.
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
    /// Returns the request field with the credentials, which the gateway removes before it forwards the request.
    /// Returns `None` if there is nothing to remove.
    pub fn proof(&self) -> Option<HeaderName> {
        let field = match self.kind {
            AuthKind::Basic | AuthKind::Jwt => Some(header::AUTHORIZATION),
            AuthKind::ApiKey => Some(self.key_header()),
            AuthKind::None | AuthKind::Forward => None,
        };
        field.filter(|_| !self.pass_credentials)
    }

    /// Returns the request field in which clients send the key of `api_key`.
    pub fn key_header(&self) -> HeaderName {
        self.header.as_ref().map_or(HeaderName::from_static("x-api-key"), |name| name.0.clone())
    }

    /// Returns the request fields in which the gateway tells the backend about the user.
    pub fn identity_headers(&self) -> impl Iterator<Item = &HeaderName> {
        let names = self.forward_claims.values().chain(&self.response_headers).chain(&self.user_header);
        names.map(|name| &name.0)
    }

    /// Returns the path of every file that the table can name; the path is empty if the file is not used.
    pub fn files(&self) -> [&String; 5] {
        [&self.users_file, &self.keys_file, &self.public_key_file, &self.secret_file, &self.ca_file]
    }
}

/// Method by which requests are authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthKind {
    /// No authentication, even if the table of an outer level requires it.
    None,
    /// User name and password (RFC 7617).
    Basic,
    /// JSON Web Token (RFC 7519), sent as a bearer token (RFC 6750).
    Jwt,
    /// API key in a request field.
    ApiKey,
    /// Request to an auth server, which decides if the client's request may pass.
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

/// Algorithm that signs tokens (RFC 7518 3.1, RFC 8037 3.1). Unsigned tokens (`none`) are not supported.
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
    /// Returns true if tokens are signed and verified with the same secret.
    pub fn is_symmetric(self) -> bool {
        matches!(self, JwtAlgorithm::HS256 | JwtAlgorithm::HS384 | JwtAlgorithm::HS512)
    }
}
