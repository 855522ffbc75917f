//! Validation of the policy tables, which can be set at the top level, in virtual hosts and in routes.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use http::Uri;

use super::Faults;
use super::access::access;
use super::auth::auth;
use super::rate_limit::rate_limit;
use super::responses::{beside, compression, cors, headers};
use crate::config::Address;
use crate::config::fields::is_cookie_name;
use crate::config::policies::{FaultInjection, Limits, SecurityHeaders};
use crate::config::schema::{Backend, Config};
use crate::config::tables::policy_tables;
use crate::config::upstream::{
    Balancing, CircuitBreaker, HealthCheck, ProbeKind, Retry, Upstream, UpstreamProtocol,
};

/// Maximum for `retry.attempts`: attempts of one request.
pub const MAX_ATTEMPTS: u32 = 16;
/// Maximum for `upstream.keepalive_pool_size`: idle connections to backends.
const MAX_POOL_SIZE: usize = 1_000_000;
/// Maximum size of a request head that Pingora reads, in bytes, and maximum number of header fields in it.
const MAX_HEADER_BYTES: u32 = 1024 * 1024;
const MAX_HEADER_FIELDS: u32 = 256;
/// Maximum for `min_send_bytes_per_sec` and `min_body_bytes_per_sec`. Clients on mobile networks are often slower.
pub(super) const MAX_RATE: u32 = 1024 * 1024;
/// Maximum length of a request target that routing can normalise, in bytes.
const MAX_URI_BYTES: u32 = 65_000;
/// Maximum for `circuit_breaker.window_secs`. A circuit breaker only remembers the requests of the last minute.
const MAX_WINDOW_SECS: u64 = 60;
/// Maximum delay that a route can cause on purpose, in milliseconds: ten minutes.
const MAX_DELAY_MS: u32 = 600_000;

/// Checks each policy table with the function that has the same name as the table's key.
macro_rules! check {
    (
        (($at:expr, $tables:expr, $faults:expr))
        [$($key:ident: $table:ident, $about:literal;)*]
        [$($optional:ident: $optional_table:ident, $optional_about:literal;)*]
    ) => {
        $($tables.$key.iter().for_each(|table| $key($at, table, $faults));)*
        $($tables.$optional.iter().for_each(|table| $optional($at, table, $faults));)*
    };
}

/// Adds every fault of the policy tables at all levels.
pub(super) fn policies(config: &Config, faults: &mut Faults) {
    for (at, tables) in config.levels() {
        policy_tables!(check(&at, &tables, faults));
        beside(&at, &tables, faults);
    }
    for (i, host) in config.virtual_hosts.iter().enumerate() {
        for (j, route) in host.routes.iter().enumerate() {
            fault(&format!("virtual_hosts/{i}/routes/{j}/"), route.fault, faults);
        }
    }
}

/// Adds no faults, because every value of `[security_headers]` is valid. The macro `check` needs the function.
fn security_headers(_: &str, _: &SecurityHeaders, _: &mut Faults) {}

fn health_check(at: &str, check: &HealthCheck, faults: &mut Faults) {
    if !check.host.is_empty() && !is_authority(&check.host) {
        let detail =
            format!("{:?} is not a valid host; expected something like \"app.example.com\"", check.host);
        faults.add(format!("{at}health_check/host"), detail);
    }
    let Some(path) = &check.path else { return };
    let at = format!("{at}health_check/path");
    if matches!(check.kind, Some(ProbeKind::Tcp | ProbeKind::Grpc)) {
        faults.add(at, "`path` has no effect with this `kind`; remove one of the two");
    } else if !path.starts_with('/') || path.contains('#') || path.parse::<Uri>().is_err() {
        // Pingora would refuse such a path for the probe request.
        faults.add(at, format!("{path:?} is not a valid path; expected something like \"/health\""));
    }
}

fn is_authority(host: &str) -> bool {
    host.parse::<http::uri::Authority>().is_ok_and(|authority| !authority.as_str().contains('@'))
}

fn balancing(at: &str, balancing: &Balancing, faults: &mut Faults) {
    let name = &balancing.sticky_cookie;
    if !name.is_empty() && !is_cookie_name(name) {
        faults
            .add(format!("{at}balancing/sticky_cookie"), format!("{name:?} cannot be the name of a cookie"));
    }
}

/// Maximum time before the first TCP keep-alive probe on Linux, in seconds (`TCP_KEEPIDLE`).
const MAX_KEEPALIVE_SECS: u32 = 32_767;

/// Allowed HTTP/2 flow-control windows for backends, in bytes. The minimum is one frame. The maximum is small enough
/// for a connection's window to contain the windows of all its streams (RFC 9113 6.9.1).
const WINDOW_BYTES: RangeInclusive<u32> = 16_384..=16_777_216;

fn upstream(at: &str, upstream: &Upstream, faults: &mut Faults) {
    let mut add = |key: &str, detail: &str| faults.add(format!("{at}upstream/{key}"), detail);
    if upstream.keepalive_pool_size.get() > MAX_POOL_SIZE {
        add("keepalive_pool_size", &format!("at most {MAX_POOL_SIZE} connections"));
    }
    if upstream.tcp_keepalive_secs > MAX_KEEPALIVE_SECS {
        add(
            "tcp_keepalive_secs",
            &format!("at most {MAX_KEEPALIVE_SECS} seconds, the limit of the operating system"),
        );
    }
    if !WINDOW_BYTES.contains(&upstream.h2_window_bytes.get()) {
        let (least, most) = WINDOW_BYTES.into_inner();
        add("h2_window_bytes", &format!("expected {least} to {most} bytes"));
    }
    if upstream.protocol == UpstreamProtocol::Auto && !upstream.tls {
        add(
            "protocol",
            "\"auto\" is negotiated in the TLS handshake, and TLS is off; set `tls = true`, or \
                         use http1 or http2",
        );
    }
    let tls_keys = [
        ("sni", &upstream.sni),
        ("ca_file", &upstream.ca_file),
        ("client_cert_file", &upstream.client_cert_file),
        ("client_key_file", &upstream.client_key_file),
    ];
    for (key, value) in tls_keys {
        if !upstream.tls && !value.is_empty() {
            add(key, "it has no effect without `tls = true`");
        }
    }
    let is_address = upstream.sni.parse::<std::net::IpAddr>().is_ok();
    if !upstream.sni.is_empty() && !is_address && !crate::config::values::is_host_name(&upstream.sni) {
        add("sni", &format!("{:?} is neither a host name nor an IP address", upstream.sni));
    }
    match (upstream.client_cert_file.is_empty(), upstream.client_key_file.is_empty()) {
        (false, true) => add("client_cert_file", "the certificate needs its key: `client_key_file`"),
        (true, false) => add("client_key_file", "the key needs its certificate: `client_cert_file`"),
        _ => {}
    }
}

fn retry(at: &str, retry: &Retry, faults: &mut Faults) {
    if retry.attempts.get() > MAX_ATTEMPTS {
        faults.add(format!("{at}retry/attempts"), format!("at most {MAX_ATTEMPTS} attempts for one request"));
    }
    for (i, status) in retry.on_status.iter().enumerate() {
        if !(400..=599).contains(status) {
            let detail = format!("{status} is not the status code of an error; expected 400 to 599");
            faults.add(format!("{at}retry/on_status/{i}"), detail);
        }
    }
    if retry.backoff_max_ms.duration() < retry.backoff_base_ms.duration() {
        faults.add(format!("{at}retry/backoff_max_ms"), "it is less than `backoff_base_ms`");
    }
}

fn circuit_breaker(at: &str, breaker: &CircuitBreaker, faults: &mut Faults) {
    let mut add = |key: &str, detail: &str| faults.add(format!("{at}circuit_breaker/{key}"), detail);
    if breaker.failure_percent.get() == 0 {
        add("failure_percent", "0 is out of range: expected 1 to 100 percent");
    }
    if breaker.window_secs.get() > MAX_WINDOW_SECS {
        add("window_secs", &format!("at most {MAX_WINDOW_SECS} seconds"));
    }
    if breaker.max_open_secs.get() < breaker.open_secs.get() {
        add("max_open_secs", "it is less than `open_secs`");
    }
}

fn limits(at: &str, limits: &Limits, faults: &mut Faults) {
    for (key, value, most, what) in [
        ("max_uri_bytes", limits.max_uri_bytes, MAX_URI_BYTES, "bytes"),
        ("max_header_bytes", limits.max_header_bytes, MAX_HEADER_BYTES, "bytes"),
        ("max_header_fields", limits.max_header_fields, MAX_HEADER_FIELDS, "fields"),
    ] {
        if value.get() > most {
            faults.add(format!("{at}limits/{key}"), format!("at most {most} {what}"));
        }
    }
    // If only `max_header_bytes` is set, it may be below the default of `max_uri_bytes`. That is no fault.
    let is_own = limits.max_uri_bytes != Limits::default().max_uri_bytes;
    let is_possible = limits.max_uri_bytes.get() <= MAX_URI_BYTES;
    if is_own && is_possible && limits.max_uri_bytes > limits.max_header_bytes {
        let detail = "it is larger than `max_header_bytes`, the limit of the whole head with the target";
        faults.add(format!("{at}limits/max_uri_bytes"), detail);
    }
    if limits.min_body_bytes_per_sec > MAX_RATE {
        faults
            .add(format!("{at}limits/min_body_bytes_per_sec"), format!("at most {MAX_RATE} bytes a second"));
    }
}

fn fault(at: &str, fault: FaultInjection, faults: &mut Faults) {
    let mut add = |key: &str, detail: &str| faults.add(format!("{at}fault/{key}"), detail);
    if fault.delay_ms > MAX_DELAY_MS {
        add("delay_ms", &format!("at most {MAX_DELAY_MS} milliseconds"));
    }
    if fault.delay_percent.get() > 0 && fault.delay_ms == 0 {
        add("delay_percent", "it needs `delay_ms`, the length of the delay");
    }
    let is_status = (200..=599).contains(&fault.abort_status);
    if fault.abort_status != 0 && !is_status {
        add(
            "abort_status",
            &format!("{} is not a final status code; expected 200 to 599", fault.abort_status),
        );
    } else if fault.abort_percent.get() > 0 && !is_status {
        add("abort_percent", "it needs `abort_status`, the status code of the response");
    }
}

/// Adds a fault for each backend whose certificate TLS cannot verify, because neither its address nor `sni` has a
/// name. This is only checked if all hosts and backends could be read.
pub(super) fn server_names(config: &Config, faults: &mut Faults) {
    let mut told = HashSet::new();
    let top = config.upstream.as_ref();
    for host in &config.virtual_hosts {
        let of_host = host.upstream.as_ref().or(top);
        let shares = host.split.iter().map(|share| &share.tag);
        let rollout = host.rollout.iter().map(|rollout| &rollout.to);
        let own_tags: Vec<&String> =
            std::iter::once(&host.enabled_backends_tag).chain(shares).chain(rollout).collect();
        let mut check = |upstream: Option<&Upstream>, tags: &[&String]| {
            let unnamed = upstream.is_some_and(|table| table.tls && table.verify && table.sni.is_empty());
            let backends = config.backends.iter().enumerate().filter(|_| unnamed);
            for (i, backend) in backends.filter(|(_, backend)| is_nameless(backend)) {
                if backend.tags.iter().any(|tag| tags.contains(&tag)) && told.insert(i) {
                    let id = &backend.id;
                    let detail = format!(
                        "backend '{id}' is used over TLS, and there is no name to verify its certificate \
                         against; set `sni` in [upstream], or use a host name here"
                    );
                    faults.add(format!("backends/{i}/address"), detail);
                }
            }
        };
        check(of_host, &own_tags);
        for route in &host.routes {
            let upstream = route.upstream.as_ref().or(of_host);
            let tag = [&route.enabled_backends_tag, &route.mirror_tag];
            let tags: Vec<&String> = tag.into_iter().filter(|tag| !tag.is_empty()).collect();
            let all =
                if route.enabled_backends_tag.is_empty() { [&tags[..], &own_tags].concat() } else { tags };
            check(upstream, &all);
        }
    }
}

fn is_nameless(backend: &Backend) -> bool {
    backend
        .address
        .as_ref()
        .is_some_and(|address| address.name().is_none() && !matches!(address, Address::Service(_)))
}
