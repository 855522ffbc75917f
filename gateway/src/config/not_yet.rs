//! What the schema names and this version does not do yet. Such a key is refused with these words rather
//! than ignored; it leaves the lists with the change that builds it.

/// Whether the key at `path` is one of them. Tables that may also stand in a virtual host or a route count there
/// too.
pub(super) fn key(path: &[String]) -> bool {
    let path = path.join(".");
    let inside =
        ["virtual_hosts.routes.", "virtual_hosts."].iter().find_map(|table| path.strip_prefix(table));
    KEYS.contains(&&*path) || inside.is_some_and(|path| KEYS.contains(&path))
}

const KEYS: &[&str] = &["proxy.server_timing", "tracing"];
