//! A compiled window: its limit, the keys of its clients, and the fields that describe the window to clients.

use std::fmt::Write;

use openssl::sha::Sha256;

use super::client::{ClientKey, RateLimitSubject};
use super::counters::{Count, Counters};
use crate::config::{CounterStore, RateLimit, RateLimitKey};
use crate::telemetry::Refusals;

/// Compiled window of a rate limit.
pub struct Window {
    /// Name of the window in header fields and metrics.
    pub name: String,
    /// Maximum number of requests of a client in the window.
    pub limit: u32,
    /// Length of the window, in milliseconds.
    pub ms: u64,
    /// Part of a request that identifies the client.
    pub key: RateLimitKey,
    /// Location of the counters: this gateway or a store.
    pub store: CounterStore,
    pub(super) refusals: Refusals,
    /// Hash of the scope, for keys in the gateway's own table. Requests of the same scope are counted together.
    scope: u64,
    /// State of a hash that has read the scope, for keys in Redis.
    shared_scope: Sha256,
}

impl Window {
    pub(super) fn new(
        name: &str,
        config: &RateLimit,
        scope: &str,
        counters: &Counters,
        refusals: Refusals,
    ) -> Self {
        // The scope includes the length, because counts of a window with another length have no meaning here.
        let scope = format!("{scope} window {name} {} {}", config.window_secs.get(), config.key);
        let mut shared_scope = Sha256::new();
        // The length of the scope comes first, so that scope and client cannot be confused.
        shared_scope.update(&scope.len().to_be_bytes());
        shared_scope.update(scope.as_bytes());
        Window {
            name: name.to_owned(),
            limit: config.requests.get(),
            ms: config.window_secs.get() * 1000,
            key: config.key.clone(),
            store: config.store.clone(),
            refusals,
            scope: counters.key(scope),
            shared_scope,
        }
    }

    /// Returns the client's key in the gateway's own table.
    pub(super) fn key(&self, subject: &RateLimitSubject<'_>, counters: &Counters) -> u64 {
        counters.key((self.scope, ClientKey::of(&self.key, subject)))
    }

    /// Returns the client's key in Redis, which is the same for all gateways. The key is a shortened hash, so
    /// that Redis does not store names of clients in clear text.
    pub(super) fn shared_key(&self, subject: &RateLimitSubject<'_>) -> String {
        let client = ClientKey::of(&self.key, subject);
        let (kind, address, name) = client.bytes();
        let mut hash = self.shared_scope.clone();
        hash.update(&[kind]);
        hash.update(&address);
        hash.update(name);
        format!("gateway:rate:{}", hex::encode(&hash.finish()[..16]))
    }

    /// Appends the limit of this window to a `RateLimit-Policy` field.
    pub(super) fn describe(&self, field: &mut String) {
        let separator = if field.is_empty() { "" } else { ", " };
        let _ = write!(field, "{separator}\"{}\";q={};w={}", self.name, self.limit, self.ms / 1000);
    }

    /// Appends the state of a client to a `RateLimit` field.
    pub(super) fn tell(&self, count: Count, field: &mut String) {
        let separator = if field.is_empty() { "" } else { ", " };
        let remaining = self.limit - count.used.min(self.limit);
        let _ = write!(field, "{separator}\"{}\";r={remaining};t={}", self.name, reset_secs(count));
    }
}

/// Returns the seconds until a client's window has passed, rounded up.
pub(super) fn reset_secs(count: Count) -> u64 {
    count.reset_ms.div_ceil(1000)
}
