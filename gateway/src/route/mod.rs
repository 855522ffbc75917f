//! Choice of a request's route. First, the host of the request selects the virtual host ([`HostTable`]). Then its path,
//! method and header fields select a rule of that virtual host ([`RuleTable`]).

mod hosts;
#[cfg(test)]
mod readers;
mod rules;

use std::sync::Arc;

pub use hosts::HostTable;
use http::Method;
use http::header::HOST;
use pingora::http::RequestHeader;
pub use rules::{Asked, Outcome, PathRule, Rule, RuleTable};

use crate::config::{BadPath, InvalidHost, Paths, read_path};
use crate::reply::{Problem, Reply, Verdict};

/// Returns the host of a request, as the client wrote it. A host in the target (HTTP/2, and the absolute form)
/// overrides the `Host` field (RFC 9112 3.2.2). Returns `None` for HTTP/1.0 without a host.
///
/// # Errors
/// Returns a text for the client if the host is missing, repeated or invalid.
pub fn authority(request: &RequestHeader) -> Result<Option<&str>, &'static str> {
    if let Some(authority) = request.uri.authority() {
        return Ok(Some(authority.as_str()));
    }
    let mut hosts = request.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().map(Some).map_err(|_| "the Host field is not a valid host name"),
        (Some(_), Some(_)) => Err("there are several Host fields"),
        (None, _) if request.version <= http::Version::HTTP_10 => Ok(absolute_form(request)),
        (None, _) => Err("there is no Host field, which HTTP/1.1 requires"),
    }
}

/// Returns the host of a target in absolute form, which Pingora keeps as the client sent it (RFC 9112 3.2.2).
fn absolute_form(request: &RequestHeader) -> Option<&str> {
    let target = std::str::from_utf8(request.raw_path()).ok()?;
    let (_, rest) = target.split_once("://").filter(|_| !target.starts_with('/'))?;
    rest.split(['/', '?', '#']).next()
}

/// Result of routing a request.
#[derive(Debug)]
pub struct RouteMatch<'t, T> {
    /// Target of the best matching rule; without a matching rule, the target of the virtual host.
    pub target: &'t T,
    /// Path for matching and path for the backend; `None` if both are the path that the client wrote.
    pub paths: Option<Box<Paths>>,
}

/// Finds the target of a request, or returns a reply if there is none. `server_name` is the host in the TLS handshake.
pub fn find<'t, T>(
    hosts: &'t HostTable<Arc<RuleTable<T>>>,
    request: &RequestHeader,
    server_name: Option<&str>,
) -> Verdict<RouteMatch<'t, T>> {
    match virtual_host(hosts, request) {
        Verdict::Continue(rules) if is_misdirected(hosts, request, rules, server_name) => {
            let detail = "the TLS connection was made for another virtual host";
            Verdict::Reply(Reply::new(Problem::Misdirected, detail))
        }
        Verdict::Continue(rules) => match within(rules, request) {
            Ok(found) => Verdict::Continue(found),
            Err(bad) => Verdict::Reply(Reply::new(Problem::BadRequest, bad.to_string())),
        },
        Verdict::Reply(reply) => Verdict::Reply(reply),
    }
}

/// Returns true if the TLS handshake was for another virtual host than the request (RFC 9110 15.5.20). A virtual host
/// may require something in the handshake, for example a client certificate. A client must not bypass that requirement
/// with a handshake for another virtual host.
fn is_misdirected<T>(
    hosts: &HostTable<Arc<RuleTable<T>>>,
    request: &RequestHeader,
    rules: &Arc<RuleTable<T>>,
    server_name: Option<&str>,
) -> bool {
    // If the client has named no host in the handshake, it has received the default certificate and nothing more.
    let Some(server_name) = server_name else { return false };
    if authority(request).is_ok_and(|host| host == Some(server_name)) {
        return false;
    }
    !matches!(hosts.find(Some(server_name)), Ok(Some(named)) if Arc::ptr_eq(named, rules))
}

/// Finds the target of a request within a virtual host.
///
/// # Errors
/// Returns an error if the path is invalid, or if a backend could read it as the path of another route.
pub fn within<'t, T>(rules: &'t RuleTable<T>, request: &RequestHeader) -> Result<RouteMatch<'t, T>, BadPath> {
    let path = read_path(path(request)?)?;
    let find = |path: &str| rules.find(&asked(request, path));
    let target = find(&path.compared);
    if path.is_plain() {
        return Ok(RouteMatch { target, paths: None });
    }
    // A backend may read the path differently than the rules do. If another route matches that reading, the path is
    // refused, because the other route may have other policies.
    if path.others.iter().any(|other| !std::ptr::eq(find(other), target)) {
        return Err(BadPath::Ambiguous);
    }
    // A backend may also use the path without decoding it. If another route matches that path, the backend gets the
    // path that the rules compared.
    let is_as_sent = std::ptr::eq(find(&path.sent), target) || path.sent == "*";
    let compared = path.compared.into_owned();
    let sent = if is_as_sent { path.sent.into_owned() } else { compared.clone() };
    Ok(RouteMatch { target, paths: Some(Box::new(Paths { compared, sent })) })
}

/// Returns the parts of a request that rules compare, with `path` as the path.
pub fn asked<'r>(request: &'r RequestHeader, path: &'r str) -> Asked<'r> {
    Asked { method: &request.method, path, headers: &request.headers }
}

/// Returns the path of a request, as the client wrote it.
fn path(request: &RequestHeader) -> Result<&str, BadPath> {
    let (path, target) = (request.uri.path(), request.raw_path());
    // Pingora reads a target that is neither a path nor a URL as "/", but forwards it unchanged (RFC 9112 3.2). Pingora
    // does the same with a URL that contains a backslash.
    let has_scheme =
        |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|it| it.eq_ignore_ascii_case(scheme));
    let is_url = || (has_scheme(b"http://") || has_scheme(b"https://")) && !target.contains(&b'\\');
    let is_for_server = target == b"*" && request.method == Method::OPTIONS;
    if !(target.starts_with(b"/") || is_for_server || is_url()) {
        return Err(BadPath::NoSlash);
    }
    // If the target is not UTF-8, the path that Pingora has read differs from the path that it forwards.
    let is_lossy = !request.raw_path_is_utf8() && path.contains(char::REPLACEMENT_CHARACTER);
    if is_lossy { Err(BadPath::Overlong) } else { Ok(path) }
}

/// Returns the virtual host of a request, or a reply if there is none.
pub fn virtual_host<'t, T>(hosts: &'t HostTable<T>, request: &RequestHeader) -> Verdict<&'t T> {
    let bad = |detail| Verdict::Reply(Reply::new(Problem::BadRequest, detail));
    let authority = match authority(request) {
        Ok(authority) => authority,
        Err(detail) => return bad(detail),
    };
    match hosts.find(authority) {
        Ok(Some(host)) => Verdict::Continue(host),
        Ok(None) => Verdict::Reply(Reply::new(Problem::UnknownHost, "no virtual host has this name")),
        Err(InvalidHost) => bad("the Host field is not a valid host name"),
    }
}

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;

    fn request(version: Version, hosts: &[&str]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.set_version(version);
        for host in hosts {
            request.append_header("Host", *host).unwrap();
        }
        request
    }

    type Table = HostTable<Arc<RuleTable<&'static str>>>;

    fn insert(table: &mut Table, domain: &str, name: &'static str) {
        let api = Rule {
            path: PathRule::Prefix("/api".to_owned()),
            methods: Vec::new(),
            headers: Vec::new(),
            target: "api",
        };
        table.insert(domain.parse().unwrap(), Arc::new(RuleTable::new(vec![api], name)));
    }

    fn table() -> Table {
        let mut table = HostTable::default();
        insert(&mut table, "Example.com", "example");
        insert(&mut table, "[::1]", "v6");
        table
    }

    /// Returns the target of a request, or the status of the reply.
    fn outcome(table: &Table, request: &RequestHeader) -> Result<&'static str, u16> {
        match find(table, request, None) {
            Verdict::Continue(found) => Ok(*found.target),
            Verdict::Reply(reply) => Err(reply.status()),
        }
    }

    #[test]
    fn host_is_found_in_any_spelling() {
        let table = table();
        for host in ["example.com", "EXAMPLE.COM.", "example.com:8080"] {
            assert_eq!(outcome(&table, &request(Version::HTTP_11, &[host])), Ok("example"), "{host}");
        }
        assert_eq!(outcome(&table, &request(Version::HTTP_11, &["[0::1]:80"])), Ok("v6"));
    }

    #[test]
    fn other_hosts_are_404_unless_there_is_a_catch_all() {
        let mut table = table();
        let other = request(Version::HTTP_11, &["other.example"]);
        let none = request(Version::HTTP_10, &[]);
        assert_eq!(outcome(&table, &other), Err(404));
        assert_eq!(outcome(&table, &none), Err(404));
        insert(&mut table, "*", "all");
        assert_eq!(outcome(&table, &other), Ok("all"));
        assert_eq!(outcome(&table, &none), Ok("all"));
    }

    #[test]
    fn missing_or_invalid_host_gets_400() {
        let mut table = table();
        insert(&mut table, "*", "all");
        for hosts in [&[][..], &[""], &["a b"], &["a", "a"], &["a/b"], &["user@example.com"]] {
            assert_eq!(outcome(&table, &request(Version::HTTP_11, hosts)), Err(400), "{hosts:?}");
        }
    }

    #[test]
    fn http_1_0_may_name_its_host_in_the_target() {
        let mut request = request(Version::HTTP_10, &[]);
        request.set_raw_path(b"http://Example.com:80/path?a=http://b").unwrap();
        assert_eq!(outcome(&table(), &request), Ok("example"));
        request.set_raw_path(b"/path?a=http://example.com/").unwrap();
        assert_eq!(outcome(&table(), &request), Err(404));
    }

    #[test]
    fn the_authority_of_the_target_wins() {
        let mut request = request(Version::HTTP_11, &["other.example"]);
        request.set_uri("http://example.com/path".parse().unwrap());
        assert_eq!(outcome(&table(), &request), Ok("example"));
    }

    #[test]
    fn a_handshake_for_another_virtual_host_is_421() {
        let mut table = table();
        insert(&mut table, "*", "all");
        let outcome = |server_name, host| match find(&table, &request(Version::HTTP_11, &[host]), server_name)
        {
            Verdict::Continue(found) => Ok(*found.target),
            Verdict::Reply(reply) => Err(reply.status()),
        };
        for (server_name, host, expected) in [
            (Some("example.com"), "example.com", Ok("example")),
            (Some("Example.COM"), "example.com:8443", Ok("example")),
            (Some("other.example"), "another.example", Ok("all")),
            (None, "example.com", Ok("example")),
            (Some("example.com"), "other.example", Err(421)),
            (Some("other.example"), "example.com", Err(421)),
            (Some("a b"), "example.com", Err(421)),
        ] {
            assert_eq!(outcome(server_name, host), expected, "{server_name:?} {host}");
        }
    }

    #[test]
    fn path_is_routed_in_any_spelling() {
        for (path, found) in [
            ("/api", "api"),
            ("/api/users?x=/other", "api"),
            ("/%61pi", "api"),
            ("/other/../api", "api"),
            ("//api", "api"),
            ("/apix", "example"),
            ("/other?/api", "example"),
        ] {
            let mut request = request(Version::HTTP_11, &["example.com"]);
            request.set_uri(path.parse().unwrap());
            assert_eq!(outcome(&table(), &request), Ok(found), "{path}");
        }
    }
}
