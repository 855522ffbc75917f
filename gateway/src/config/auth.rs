//! `[access]` and `[auth]`: from where a request may come, and what it must prove.

use std::collections::BTreeMap;

use http::{HeaderName, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::FieldName;
use super::network::Cidr;
use super::values::{Millis, OneOrMany, Secs, is_default};

/// `[access]`, a policy: the addresses from which clients may come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// The networks that may; none: every one.
    pub allow: Vec<Cidr>,
    /// The networks that may not, also where `allow` names them.
    pub deny: Vec<Cidr>,
}

/// `[auth]`, a policy: what a request must bear to be let through. Which keys mean something depends on the kind;
/// the others are refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// What proves who asks.
    pub kind: AuthKind,
    /// What clients are told that they need credentials for.
    pub realm: String,
    /// Whether the credentials go on to the backend, which could then use them elsewhere.
    #[serde(skip_serializing_if = "is_default")]
    pub pass_credentials: bool,
    /// The field that tells the backend who asks (`basic`, `api_key`). Nobody else's is passed on.
    #[serde(skip_serializing_if = "is_default")]
    pub user_header: Option<FieldName>,
    /// `basic`: the file with a line `name:hash` for each user, the hash bcrypt or argon2.
    #[serde(skip_serializing_if = "is_default")]
    pub users_file: String,
    /// `api_key`: the field with the key; absent: `X-Api-Key`.
    #[serde(skip_serializing_if = "is_default")]
    pub header: Option<FieldName>,
    /// `api_key`: the file with a line `name:sha256` for each key, the SHA-256 of the key in hexadecimal digits.
    #[serde(skip_serializing_if = "is_default")]
    pub keys_file: String,
    /// `jwt`: where the issuer has its public keys (RFC 7517 5); https, or http on this machine.
    #[serde(skip_serializing_if = "is_default")]
    pub jwks_url: String,
    /// `jwt`: how often they are fetched, whether or not a token bears an unknown one.
    #[serde(skip_serializing_if = "is_default")]
    pub jwks_refresh_secs: Option<Secs>,
    /// `jwt`: a file with public keys or certificates (PEM), in place of `jwks_url`.
    #[serde(skip_serializing_if = "is_default")]
    pub public_key_file: String,
    /// `jwt`: the environment variable with the secret that tokens are signed with, in place of a public key.
    #[serde(skip_serializing_if = "is_default")]
    pub secret_env: String,
    /// `jwt`: a file with that secret.
    #[serde(skip_serializing_if = "is_default")]
    pub secret_file: String,
    /// `jwt`: the algorithms that count; none: all that the keys are made for.
    #[serde(skip_serializing_if = "is_default")]
    pub algorithms: Vec<JwtAlgorithm>,
    /// `jwt`: whose tokens count (`iss`); none: anybody's who can sign.
    #[serde(skip_serializing_if = "is_default")]
    pub issuer: OneOrMany<String>,
    /// `jwt`: for whom a token must be (`aud`); none: only tokens for nobody in particular count.
    #[serde(skip_serializing_if = "is_default")]
    pub audience: OneOrMany<String>,
    /// `jwt`: how far the issuer's clock may be off; absent: 30.
    #[serde(skip_serializing_if = "is_default")]
    pub leeway_secs: Option<u16>,
    /// `jwt`: which claims backends are told, and in which fields. Nobody else's such fields are passed on.
    #[serde(skip_serializing_if = "is_default")]
    pub forward_claims: BTreeMap<String, FieldName>,
    /// `jwt`: claims that must have this value, or one of these; `scope` a word of it.
    #[serde(skip_serializing_if = "is_default")]
    pub require: BTreeMap<String, OneOrMany<String>>,
    /// `forward`: who is asked whether a request may pass. Cookies of its answer go to the client.
    #[serde(skip_serializing_if = "is_default")]
    pub url: String,
    /// `forward`: the fields of the answer that backends are told; each comes once. Nobody else's are passed on.
    #[serde(skip_serializing_if = "is_default")]
    pub response_headers: Vec<FieldName>,
    /// `forward`: how long the answer may take; absent: 1000.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout_ms: Option<Millis>,
    /// `jwt`, `forward`: the roots for an https server (PEM); empty: the system's.
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
    /// The field with what proves who asks, where that ends here and is for no backend.
    pub fn proof(&self) -> Option<HeaderName> {
        let field = match self.kind {
            AuthKind::Basic | AuthKind::Jwt => Some(header::AUTHORIZATION),
            AuthKind::ApiKey => Some(self.key_header()),
            AuthKind::None | AuthKind::Forward => None,
        };
        field.filter(|_| !self.pass_credentials)
    }

    /// The field with the key of `api_key`.
    pub fn key_header(&self) -> HeaderName {
        self.header.as_ref().map_or(HeaderName::from_static("x-api-key"), |name| name.0.clone())
    }

    /// Every field in which a backend is told who asks.
    pub fn identity_headers(&self) -> impl Iterator<Item = &HeaderName> {
        let names = self.forward_claims.values().chain(&self.response_headers).chain(&self.user_header);
        names.map(|name| &name.0)
    }

    /// Every file that it depends on.
    pub fn files(&self) -> [&String; 5] {
        [&self.users_file, &self.keys_file, &self.public_key_file, &self.secret_file, &self.ca_file]
    }
}

/// What proves who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthKind {
    /// Nothing need be proved, whatever an outer table demands.
    None,
    /// A name and a password (RFC 7617).
    Basic,
    /// A signed token (RFC 7519) as bearer token (RFC 6750).
    Jwt,
    /// A key in a header field.
    ApiKey,
    /// Another server is asked.
    Forward,
}

impl AuthKind {
    /// As it is written.
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

/// An algorithm by which tokens are signed (RFC 7518 3.1, RFC 8037 3.1). There is no `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "they are called as the RFCs call them")]
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
    /// Whether signer and verifier share a secret.
    pub fn is_symmetric(self) -> bool {
        matches!(self, JwtAlgorithm::HS256 | JwtAlgorithm::HS384 | JwtAlgorithm::HS512)
    }
}
