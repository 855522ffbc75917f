//! One window, compiled: what it counts, up to which limit, and how it is told to clients.

use std::fmt::Write;

use openssl::sha::Sha256;

use super::client::{Client, RateLimitSubject};
use super::counters::{Count, Counters};
use crate::config::{CounterStore, RateLimit, RateLimitKey};
use crate::telemetry::Refusals;

/// One of the windows that hold together.
pub struct Window {
    /// Its name in fields and metrics.
    pub name: String,
    /// Requests that a client may make in it.
    pub limit: u32,
    /// How long it is, in milliseconds.
    pub ms: u64,
    /// What makes a client.
    pub key: RateLimitKey,
    /// Where is counted.
    pub store: CounterStore,
    pub(super) refusals: Refusals,
    /// What is counted together, as the gateway's own table knows it.
    scope: u64,
    /// The same, as it goes into keys of Redis.
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
        // One of another length is another one: what was counted in that says nothing.
        let scope = format!("{scope} window {name} {} {}", config.window_secs.get(), config.key);
        let mut shared_scope = Sha256::new();
        // With its length, so that no scope can run into what follows.
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

    /// The key of whoever asks, in the gateway's own table.
    pub(super) fn key(&self, asker: &RateLimitSubject<'_>, counters: &Counters) -> u64 {
        counters.key((self.scope, Client::of(&self.key, asker)))
    }

    /// The same in Redis: part of a hash, the same for each gateway, so that what clients are called stands
    /// nowhere in the clear.
    pub(super) fn shared_key(&self, asker: &RateLimitSubject<'_>) -> String {
        let client = Client::of(&self.key, asker);
        let (kind, address, name) = client.bytes();
        let mut hash = self.shared_scope.clone();
        hash.update(&[kind]);
        hash.update(&address);
        hash.update(name);
        let mut key = "gateway:rate:".to_owned();
        for byte in hash.finish().iter().take(16) {
            let _ = write!(key, "{byte:02x}");
        }
        key
    }

    /// Adds to a `RateLimit-Policy` field what it allows.
    pub(super) fn describe(&self, field: &mut String) {
        let separator = if field.is_empty() { "" } else { ", " };
        let _ = write!(field, "{separator}\"{}\";q={};w={}", self.name, self.limit, self.ms / 1000);
    }

    /// Adds to a `RateLimit` field where a client stands.
    pub(super) fn tell(&self, count: Count, field: &mut String) {
        let separator = if field.is_empty() { "" } else { ", " };
        let remaining = self.limit - count.used.min(self.limit);
        let _ = write!(field, "{separator}\"{}\";r={remaining};t={}", self.name, reset_secs(count));
    }
}

/// Seconds until a client's window has passed, rounded up.
pub(super) fn reset_secs(count: Count) -> u64 {
    count.reset_ms.div_ceil(1000)
}
