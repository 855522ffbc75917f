//! Keys that are planned but not supported yet. Such a key is refused with a message that says so, which helps more
//! than "unknown key". The change that implements a key removes it from the list.

/// Returns true if the key at `path` is not supported yet. Policy keys in a virtual host or a route are recognised,
/// too.
pub(super) fn key(path: &[String]) -> bool {
    let path = path.join(".");
    let inside =
        ["virtual_hosts.routes.", "virtual_hosts."].iter().find_map(|table| path.strip_prefix(table));
    KEYS.contains(&&*path) || inside.is_some_and(|path| KEYS.contains(&path))
}

const KEYS: &[&str] = &["proxy.server_timing", "tracing"];
