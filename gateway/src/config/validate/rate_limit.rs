//! Validation of the windows of rate limits, at every level.

use std::collections::{HashMap, HashSet};

use super::Faults;
use crate::config::auth::{Auth, AuthKind};
use crate::config::counter_store::{CounterStore, RedisPlace};
use crate::config::rate_limit::{RateLimit, RateLimitKey, RateLimits};
use crate::config::schema::Config;

/// Maximum for `requests`: the counters of the rate limiter have 24 bits.
pub const MAX_RATE_LIMIT: u32 = (1 << 24) - 1;
/// Maximum number of windows in one `rate_limit` policy.
pub const MAX_RATE_LIMITS: usize = 8;
/// Maximum for `proxy.rate_limit_clients`: at 17 bytes each, the clients need 272 MiB.
const MAX_CLIENTS: usize = 1 << 24;
/// Maximum for `store_timeout_ms`: the time that a request waits for the store.
const MAX_STORE_TIMEOUT_MS: u128 = 5_000;

/// Adds a fault if `proxy.rate_limit_clients` is too large.
pub(super) fn clients(config: &Config, faults: &mut Faults) {
    if config.proxy.rate_limit_clients.get() > MAX_CLIENTS {
        let detail = format!("at most {MAX_CLIENTS} clients can be told apart");
        faults.add("proxy/rate_limit_clients", detail);
    }
}

/// Adds every fault of the windows in `limits`; `at` is the path of their level.
pub(super) fn rate_limit(at: &str, limits: &RateLimits, faults: &mut Faults) {
    if limits.0.len() > MAX_RATE_LIMITS {
        faults
            .add(format!("{at}rate_limit"), format!("at most {MAX_RATE_LIMITS} windows can apply together"));
    }
    let mut names = HashSet::new();
    let shared = limits.0.iter().find(|window| window.store != CounterStore::Local);
    for (i, (name, window)) in limits.named().enumerate() {
        let path = |key: &str| format!("{at}rate_limit/{}", limits.path(i, key));
        if window.requests.get() > MAX_RATE_LIMIT {
            faults.add(path("requests"), format!("at most {MAX_RATE_LIMIT} requests are counted"));
        }
        if !is_name(&name) {
            let detail = "not a valid name of a window; expected at most 32 letters, digits, '-', '_' or '.'";
            faults.add(path("name"), detail);
        } else if !names.insert(name.clone()) {
            faults.add(path("name"), format!("'{name}' is defined twice"));
        }
        store(&path, window, faults);
        let is_here = window.store == CounterStore::Local;
        if !is_here && shared.is_some_and(|shared| !is_same_store(shared, window)) {
            // A request sends one query to one store, and is counted in all windows or in none.
            faults.add(path("store"), "windows that apply together must share one store, or be local");
        }
    }
}

/// Adds a fault for each window that counts the same requests as another one. Adds a fault, too, if the key of a
/// window is a claim that no client has on the routes of the window.
pub(super) fn idle(config: &Config, faults: &mut Faults) {
    let mut tables: Vec<_> = config.rate_limit.iter().map(|table| (String::new(), table)).collect();
    // For each path with a `rate_limit` table: the `auth` tables of the hosts and routes that use the table.
    let mut known: HashMap<String, Vec<&Auth>> = HashMap::new();
    for (i, host) in config.virtual_hosts.iter().enumerate() {
        let at_host = format!("virtual_hosts/{i}/");
        tables.extend(host.rate_limit.iter().map(|table| (at_host.clone(), table)));
        let of_host = host.rate_limit.as_ref().map_or("", |_| at_host.as_str());
        let auth = host.auth.as_ref().or(config.auth.as_ref());
        known.entry(of_host.to_owned()).or_default().extend(auth);
        for (j, route) in host.routes.iter().enumerate() {
            let at_route = format!("{at_host}routes/{j}/");
            tables.extend(route.rate_limit.iter().map(|table| (at_route.clone(), table)));
            let of_route = route.rate_limit.as_ref().map_or(of_host.to_owned(), |_| at_route);
            known.entry(of_route).or_default().extend(route.auth.as_ref().or(auth));
        }
    }
    for (at, table) in tables.iter().filter(|(_, table)| table.0.len() <= MAX_RATE_LIMITS) {
        same_windows(at, table, faults);
    }
    for (at, table) in &tables {
        let known = known.get(at).map_or(&[][..], Vec::as_slice);
        for (i, window) in table.0.iter().enumerate() {
            if let Some(detail) = unclaimed(&window.key, known) {
                faults.add(format!("{at}rate_limit/{}", table.path(i, "key")), detail);
            }
        }
    }
}

/// Returns the reason why no client has the claim that is the window's key; `known` are the `auth` tables in use.
/// Returns `None` if clients can have the claim, or if the key is no claim.
fn unclaimed(key: &RateLimitKey, known: &[&Auth]) -> Option<&'static str> {
    let RateLimitKey::Claim(claim) = key else { return None };
    let any = |is: fn(AuthKind) -> bool| known.iter().any(|auth| is(auth.kind));
    if !any(|kind| kind != AuthKind::None) {
        return Some(
            "no route with this limit authenticates clients, so no client has a claim; add an `auth` table",
        );
    }
    // Without a token, a client only has a name, which is the claim `sub`.
    (claim != "sub" && !any(|kind| kind == AuthKind::Jwt)).then_some(
        "no route with this limit authenticates clients with a token (`kind = \"jwt\"`), so no client has \
         this claim; the other kinds only have \"jwt:sub\"",
    )
}

fn same_windows(at: &str, table: &RateLimits, faults: &mut Faults) {
    let counts =
        |window: &RateLimit| (window.key.clone(), window.scope, window.window_secs, window.store.clone());
    for (i, window) in table.0.iter().enumerate() {
        if table.0[..i].iter().any(|other| counts(other) == counts(window)) {
            let detail = "another window counts the same requests in the same time and store, so one of the \
                          two has no effect; remove it";
            faults.add(format!("{at}rate_limit/{}", table.path(i, "window_secs")), detail);
        }
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=32).contains(&name.len()) && name.bytes().all(allowed)
}

fn is_same_store(one: &RateLimit, other: &RateLimit) -> bool {
    let store = |window: &RateLimit| {
        let RateLimit { store, store_user, store_password_env, store_ca_file, store_timeout_ms, .. } = window;
        (
            store.clone(),
            store_user.clone(),
            store_password_env.clone(),
            store_ca_file.clone(),
            *store_timeout_ms,
        )
    };
    store(one) == store(other)
}

fn store(path: &impl Fn(&str) -> String, window: &RateLimit, faults: &mut Faults) {
    let CounterStore::Redis(redis) = &window.store else {
        let keys = [
            ("store_user", &window.store_user),
            ("store_password_env", &window.store_password_env),
            ("store_ca_file", &window.store_ca_file),
        ];
        let keys = keys.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, _)| key);
        let is_timed = window.store_timeout_ms != RateLimit::default().store_timeout_ms;
        for key in keys.chain(is_timed.then_some("store_timeout_ms")) {
            faults.add(path(key), "it has no effect without a Redis `store`");
        }
        return;
    };
    if !window.store_ca_file.is_empty() && !matches!(redis.place, RedisPlace::Tls(_)) {
        faults.add(path("store_ca_file"), "it has no effect without TLS; use `store = \"rediss://…\"`");
    }
    if !window.store_user.is_empty() && window.store_password_env.is_empty() {
        faults.add(path("store_user"), "a user needs a password; set `store_password_env`");
    }
    if window.store_timeout_ms.duration().as_millis() > MAX_STORE_TIMEOUT_MS {
        let detail = format!("a request waits at most {MAX_STORE_TIMEOUT_MS} milliseconds for a store");
        faults.add(path("store_timeout_ms"), detail);
    }
}
