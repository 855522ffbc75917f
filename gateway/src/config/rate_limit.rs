//! `[rate_limit]`, a policy: the number of requests that a client may send in a time window. One table is one window,
//! and several `[[rate_limit]]` tables are several windows. A request must be within the limit of every window.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::counter_store::CounterStore;
use super::fields::{FieldName, is_cookie_name};
use super::values::{Millis, Secs, is_default};

/// Time window with a maximum number of requests for each client.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    /// Name of the window in `RateLimit` fields and metrics. Empty: "default"; if there are several windows,
    /// "default-" and the number of the window.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// Maximum number of requests that a client may send in the window.
    pub requests: NonZeroU32,
    /// Length of the window. The window of a client begins with the client's first request.
    pub window_secs: Secs,
    /// Property of a request by which clients are distinguished.
    pub key: RateLimitKey,
    /// Choice between separate counters for each route and common counters for all routes.
    pub scope: RateLimitScope,
    /// Store of the window's counters.
    #[serde(skip_serializing_if = "is_default")]
    pub store: CounterStore,
    /// Redis user that the gateway uses; empty: Redis' default user.
    #[serde(skip_serializing_if = "is_default")]
    pub store_user: String,
    /// Environment variable with the password of the Redis user; empty: no password.
    #[serde(skip_serializing_if = "is_default")]
    pub store_password_env: String,
    /// Root certificates (PEM) for a `rediss://` store; empty: the system's root certificates.
    #[serde(skip_serializing_if = "is_default")]
    pub store_ca_file: String,
    /// Maximum time that a request waits for the store. After a timeout, this process counts the requests itself until
    /// the store answers again.
    #[serde(skip_serializing_if = "is_store_timeout")]
    pub store_timeout_ms: Millis,
}

const STORE_TIMEOUT: Millis = Millis::new(50);

fn is_store_timeout(timeout: &Millis) -> bool {
    *timeout == STORE_TIMEOUT
}

impl Default for RateLimit {
    fn default() -> Self {
        RateLimit {
            name: String::new(),
            requests: NonZeroU32::MIN.saturating_add(99),
            window_secs: Secs::new(60),
            key: RateLimitKey::ClientIp,
            scope: RateLimitScope::Route,
            store: CounterStore::Local,
            store_user: String::new(),
            store_password_env: String::new(),
            store_ca_file: String::new(),
            store_timeout_ms: STORE_TIMEOUT,
        }
    }
}

/// Time windows of a `[rate_limit]` policy. An empty list lifts the limits of the outer level.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimits(pub Vec<RateLimit>);

impl Default for RateLimits {
    fn default() -> Self {
        RateLimits(vec![RateLimit::default()])
    }
}

impl RateLimits {
    /// Returns each window with its name; a window without a configured name gets a default name.
    pub fn named(&self) -> impl Iterator<Item = (Cow<'_, str>, &RateLimit)> {
        let is_one = self.0.len() == 1;
        self.0.iter().enumerate().map(move |(i, window)| {
            let name = match (&*window.name, is_one) {
                ("", true) => Cow::from("default"),
                ("", false) => Cow::from(format!("default-{}", i + 1)),
                (name, _) => Cow::from(name),
            };
            (name, window)
        })
    }

    /// Returns the path of `key` in the window with index `window`; the path is relative to `rate_limit`.
    pub fn path(&self, window: usize, key: &str) -> String {
        if self.0.len() == 1 { key.to_owned() } else { format!("{window}/{key}") }
    }
}

impl<'de> Deserialize<'de> for RateLimits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RangeVisitor;

        impl<'de> de::Visitor<'de> for RangeVisitor {
            type Value = Vec<RateLimit>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table, or an array of tables")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                RateLimit::deserialize(MapAccessDeserializer::new(map)).map(|window| vec![window])
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut windows = Vec::new();
                while let Some(window) = items.next_element()? {
                    windows.push(window);
                }
                Ok(windows)
            }
        }

        deserializer.deserialize_any(RangeVisitor).map(RateLimits)
    }
}

/// Writes a single window as a table, not as an array, because most operators write it so.
impl Serialize for RateLimits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl JsonSchema for RateLimits {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "RateLimits".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (one, many) =
            (generator.subschema_for::<RateLimit>(), generator.subschema_for::<Vec<RateLimit>>());
        json_schema!({ "anyOf": [one, many] })
    }
}

/// Property that distinguishes clients. Without that field, cookie or claim, the client's address is used.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum RateLimitKey {
    /// Address of the client; of an IPv6 address, only the first 64 bits, because a provider assigns a /64.
    ClientIp,
    /// Value of the request field with this name.
    Header(FieldName),
    /// Value of the cookie with this name.
    Cookie(String),
    /// Claim of the authenticated client; without a token, only `sub` (the user's name) exists.
    Claim(String),
}

impl TryFrom<String> for RateLimitKey {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "client_ip" => Ok(RateLimitKey::ClientIp),
            Some(("header", name)) if name.eq_ignore_ascii_case("host") => {
                Err(format!("'{text}' is not a valid key: the host does not identify a client"))
            }
            Some(("header", name)) => FieldName::try_from(name.to_owned()).map(RateLimitKey::Header),
            Some(("cookie", name)) if is_cookie_name(name) => Ok(RateLimitKey::Cookie(name.to_owned())),
            Some(("cookie", name)) => Err(format!("'{name}' cannot be the name of a cookie")),
            Some(("jwt", claim)) if !claim.is_empty() => Ok(RateLimitKey::Claim(claim.to_owned())),
            _ => Err(format!(
                "'{text}' is not a valid key; expected client_ip, header:NAME, cookie:NAME or jwt:CLAIM"
            )),
        }
    }
}

impl fmt::Display for RateLimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RateLimitKey::ClientIp => f.write_str("client_ip"),
            RateLimitKey::Header(name) => write!(f, "header:{}", name.0),
            RateLimitKey::Cookie(name) => write!(f, "cookie:{name}"),
            RateLimitKey::Claim(name) => write!(f, "jwt:{name}"),
        }
    }
}

impl Serialize for RateLimitKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Choice between separate counters for each route and common counters for all routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RateLimitScope {
    /// Separate counters for each route: one counter per client and route.
    Route,
    /// Common counters for all routes to which the table applies: one counter per client.
    Global,
}
