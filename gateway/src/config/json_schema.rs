//! JSON Schema of the configuration, for editors and for clients of the management API. Most types derive their
//! schema; this file defines the schemas of the small types that are written as a single value.

use std::borrow::Cow;
use std::net::SocketAddr;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use super::address::Address;
use super::cases::CaseRequest;
use super::counter_store::CounterStore;
use super::fields::{FieldName, FieldValue, Fields};
use super::network::Cidr;
use super::origin::AllowedOrigin;
use super::rate_limit::RateLimitKey;
use super::redirect::RedirectStatus;
use super::responses::{FieldOrAny, MediaTypes};
use super::routes::Pattern;
use super::schema::Config;
use super::upstream::HashKey;
use super::values::{MethodName, Millis, OneOrMany, Percent, Secs, StatusSet, Weight};

/// Returns the schema of a complete configuration (JSON Schema 2020-12).
pub fn json_schema() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    generator.into_root_schema_for::<Config>().to_value()
}

/// Implements `JsonSchema` for types that are written as a single value.
macro_rules! small_types {
    ($($type:ty => { $($schema:tt)+ })+) => {$(
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ $($schema)+ })
            }
        }
    )+};
}

small_types! {
    Secs => { "type": "integer", "minimum": 1, "maximum": 31_536_000 }
    Millis => { "type": "integer", "minimum": 1, "maximum": 31_536_000_000_u64 }
    Weight => { "type": "integer", "minimum": 1, "maximum": 1000 }
    RedirectStatus => { "type": "integer", "enum": [301, 302, 303, 307, 308] }
    Percent => { "type": "integer", "minimum": 0, "maximum": 100 }
    AllowedOrigin => {
        "type": "string",
        "examples": ["https://app.example.com", "https://*.example.com", "*"]
    }
    FieldOrAny => { "type": "string", "examples": ["Content-Type", "*"] }
    MediaTypes => { "type": "string", "examples": ["text/html", "text/*", "+json"] }
    Address => {
        "type": "string",
        "examples": ["127.0.0.1:3001", "web.internal:80", "srv:_http._tcp.web.internal", "unix:/run/app.sock"]
    }
    HashKey => { "type": "string", "pattern": "^(client_ip|uri|header:.+|cookie:.+)$" }
    RateLimitKey => { "type": "string", "pattern": "^(client_ip|header:.+|cookie:.+|jwt:.+)$" }
    CounterStore => {
        "type": "string",
        "examples": ["local", "redis://redis.internal:6379/0", "rediss://redis.internal:6379", "unix:///run/redis.sock"]
    }
    StatusSet => { "type": "string", "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?( *, *[1-5][0-9]{2}(-[1-5][0-9]{2})?)*$" }
    Pattern => { "type": "string", "format": "regex" }
    MethodName => { "type": "string", "pattern": "^[^a-z ]+$", "examples": ["GET"] }
    FieldName => { "type": "string", "examples": ["X-Request-Id"] }
    FieldValue => { "type": "string" }
    Cidr => { "type": "string", "examples": ["10.0.0.0/8", "127.0.0.1"] }
    Fields => { "type": "object", "additionalProperties": { "type": "string" } }
    CaseRequest => { "type": "string", "examples": ["GET http://app.example.com/api"] }
    OneOrMany<SocketAddr> => {
        "anyOf": [
            { "type": "string" },
            { "type": "array", "items": { "type": "string" }, "minItems": 1 }
        ],
        "examples": ["127.0.0.1:8080"]
    }
    OneOrMany<String> => {
        "anyOf": [
            { "type": "string" },
            { "type": "array", "items": { "type": "string" }, "minItems": 1 }
        ]
    }
}
