//! `[rate_limit]`, a policy: the number of requests that a client may send. One table is one window, and
//! `[[rate_limit]]` tables are several windows. A request must be within the limit of each window.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::counter_store::CounterStore;
use super::fields::{FieldName, is_cookie_name};
use super::values::{Millis, Secs, is_default};

/// Window of a rate limit.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    /// Name of the window in `RateLimit` fields and metrics. Empty: "default", or "default-1" and so on if there are
    /// several windows.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// Maximum number of requests of a client in a window.
    pub requests: NonZeroU32,
    /// Length of a window; it begins with the client's first request.
    pub window_secs: Secs,
    /// Identity of a client.
    pub key: RateLimitKey,
    /// Requests that are counted together.
    pub scope: RateLimitScope,
    /// Store of the counters.
    #[serde(skip_serializing_if = "is_default")]
    pub store: CounterStore,
    /// Redis user of the gateway; empty: Redis' default user.
    #[serde(skip_serializing_if = "is_default")]
    pub store_user: String,
    /// Environment variable with the Redis user's password; empty: no password.
    #[serde(skip_serializing_if = "is_default")]
    pub store_password_env: String,
    /// Root certificates (PEM) for a `rediss://` store; empty: the system's roots.
    #[serde(skip_serializing_if = "is_default")]
    pub store_ca_file: String,
    /// Maximum time that a request waits for the store. After a timeout, all requests are counted in this process
    /// until the store answers again.
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

/// Windows that apply together. An empty list lifts the limit of the outer level.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimits(pub Vec<RateLimit>);

impl Default for RateLimits {
    fn default() -> Self {
        RateLimits(vec![RateLimit::default()])
    }
}

impl RateLimits {
    /// Returns each window with its name. The names distinguish the windows in fields, metrics and counters.
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

    /// Returns the path of a window's key, relative to `rate_limit`.
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

/// Writes a single window as a table, as most operators write it.
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

/// Identity of a client. A client without the field, the cookie or the claim is identified by its address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum RateLimitKey {
    /// Address of the client; for IPv6 only its first 64 bits, because one customer gets a whole /64.
    ClientIp,
    /// Value of a header field.
    Header(FieldName),
    /// Value of a cookie.
    Cookie(String),
    /// Claim of the token that authenticated the client.
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

/// Requests that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RateLimitScope {
    /// Separate counters for each route.
    Route,
    /// Single counter for all routes to which the table applies.
    Global,
}
