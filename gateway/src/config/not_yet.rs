//! What the schema names and this version does not do yet. Such a key is refused with these words rather
//! than ignored; it leaves the lists with the change that builds it.

/// Whether the key at `path` is one of them. Tables that may also stand in a virtual host or a route count there
/// too.
pub(super) fn key(path: &[String]) -> bool {
    listed(path, |path| KEYS.contains(&path))
}

/// Whether `value` is one that the key at `path` will take.
pub(super) fn value(path: &[String], value: &str) -> bool {
    let will_take = |starts: &[&str]| starts.iter().any(|start| value.starts_with(start));
    listed(path, |path| VALUES.iter().any(|(key, starts)| *key == path && will_take(starts)))
}

fn listed(path: &[String], is_listed: impl Fn(&str) -> bool) -> bool {
    let path = path.join(".");
    let inside =
        ["virtual_hosts.routes.", "virtual_hosts."].iter().find_map(|table| path.strip_prefix(table));
    is_listed(&path) || inside.is_some_and(is_listed)
}

const KEYS: &[&str] = &[
    "proxy.max_connections_per_ip",
    "proxy.server_timing",
    "limits.max_request_body_bytes",
    "tracing",
    "rate_limit.store",
    "cors",
    "compression",
    "access",
    "auth",
];

/// Planned values: the key, and how they begin.
const VALUES: &[(&str, &[&str])] = &[("rate_limit.key", &["header:", "cookie:", "jwt:"])];
