//! What virtual hosts and their routes must be: named once, and each with something that can be matched.

use std::collections::{HashMap, HashSet};

use http::HeaderValue;
use http::uri::PathAndQuery;

use super::Faults;
use crate::config::routes::Route;
use crate::config::schema::{Config, VirtualHost};
use crate::config::{Domain, read_path};

/// Everything that is wrong with them, but for tags that lead nowhere.
pub(super) fn virtual_hosts(config: &Config, faults: &mut Faults) {
    if config.virtual_hosts.is_empty() {
        faults.add(
            "virtual_hosts",
            "there is no virtual host, so nothing would be served; add a [[virtual_hosts]]",
        );
    }
    let mut seen: HashMap<Domain, &str> = HashMap::new();
    for (i, host) in config.virtual_hosts.iter().enumerate() {
        let at = format!("virtual_hosts/{i}");
        if host.enabled_backends_tag.is_empty() {
            faults.add(at.as_str(), "a virtual host needs `enabled_backends_tag`: which backends serve it");
        }
        domains(host, &at, &mut seen, faults);
        let mut names = HashSet::new();
        for (j, route) in host.routes.iter().enumerate() {
            let at = format!("{at}/routes/{j}");
            self::route(route, &at, faults);
            let name = route.name();
            if !names.insert(name.clone()) {
                faults.add(at, format!("the route '{name}' is there twice; the second would never be taken"));
            }
        }
    }
}

fn domains<'c>(host: &'c VirtualHost, at: &str, seen: &mut HashMap<Domain, &'c str>, faults: &mut Faults) {
    if host.domain.is_empty() {
        faults.add(
            format!("{at}/domain"),
            "a virtual host needs a `domain`: a host name, or \"*\" for every other",
        );
    }
    let domain = (format!("{at}/domain"), &host.domain);
    let aliases = host.aliases.iter().enumerate().map(|(k, alias)| (format!("{at}/aliases/{k}"), alias));
    for (at, text) in std::iter::once(domain).filter(|(_, domain)| !domain.is_empty()).chain(aliases) {
        match text.parse::<Domain>() {
            Err(detail) => faults.add(at, detail),
            Ok(domain) => {
                if let Some(first) = seen.insert(domain, text) {
                    faults.add(at, format!("'{text}' is there twice (the first is '{first}')"));
                }
            }
        }
    }
}

fn route(route: &Route, at: &str, faults: &mut Faults) {
    let paths = [route.path.is_some(), route.path_prefix.is_some(), route.path_regex.is_some()];
    if paths.iter().filter(|is_there| **is_there).count() > 1 {
        faults.add(at, "of `path`, `path_prefix` and `path_regex` a route has one");
    }
    for (key, path) in [("path", &route.path), ("path_prefix", &route.path_prefix)] {
        let Some(path) = path else { continue };
        let detail = match read_path(path) {
            _ if !is_path(path) => {
                format!("{path:?} is no path that a request can have; expected something like \"/api\"")
            }
            Err(bad) => format!("{path:?} is never asked for: {bad}"),
            Ok(read) if read.compared != *path => {
                format!("{path:?} is never asked for: a request for it is one for {:?}", read.compared)
            }
            Ok(read) if !read.others.is_empty() => {
                format!(
                    "{path:?} is never asked for: some servers take it for {:?}",
                    read.others.join("\", \"")
                )
            }
            Ok(_) => continue,
        };
        faults.add(format!("{at}/{key}"), detail);
    }
    rewrite(route, at, faults);
    redirect(route, at, faults);
}

/// What a route lacks. Only worth asking where all of it could be read.
pub(super) fn incomplete(route: &Route, at: &str, faults: &mut Faults) {
    let has_path = route.path.is_some() || route.path_prefix.is_some() || route.path_regex.is_some();
    if !has_path && route.methods.is_empty() && route.header_match.0.is_empty() {
        let detail =
            "a route needs a condition: `path`, `path_prefix`, `path_regex`, `methods` or `header_match`";
        faults.add(at, detail);
    }
    if route.strip_prefix && route.path_prefix.is_none() {
        faults.add(format!("{at}/strip_prefix"), "there is no `path_prefix` to take off");
    }
    if !route.rewrite.is_empty() && route.path_regex.is_none() {
        faults.add(format!("{at}/rewrite"), "there is no `path_regex` whose match it would replace");
    }
}

fn rewrite(route: &Route, at: &str, faults: &mut Faults) {
    if route.rewrite.is_empty() {
        return;
    }
    // `$1` and `${name}` become parts of the path, which are valid already.
    let literal: String = route.rewrite.chars().filter(|c| !matches!(c, '$' | '{' | '}')).collect();
    if !is_path(&format!("/{literal}")) {
        faults.add(format!("{at}/rewrite"), format!("{:?} cannot be a part of a path", route.rewrite));
    }
}

fn redirect(route: &Route, at: &str, faults: &mut Faults) {
    if route.redirect.is_empty() {
        return;
    }
    let is_target = |text: &str| text.starts_with('/') || text.contains("://");
    if !is_target(&route.redirect)
        || route.redirect.contains(|c: char| c.is_whitespace())
        || HeaderValue::from_str(&route.redirect).is_err()
    {
        let detail = format!(
            "{:?} is nowhere to send clients; expected a path or a URL, as in \"https://new.example.com/\"",
            route.redirect
        );
        faults.add(format!("{at}/redirect"), detail);
    }
    for (key, is_there) in [
        ("enabled_backends_tag", !route.enabled_backends_tag.is_empty()),
        ("strip_prefix", route.strip_prefix),
        ("rewrite", !route.rewrite.is_empty()),
        ("mirror_tag", !route.mirror_tag.is_empty()),
    ] {
        if is_there {
            faults
                .add(format!("{at}/{key}"), "it has no meaning beside `redirect`: nothing goes to a backend");
        }
    }
}

/// Whether a request can have this path, without a query.
fn is_path(path: &str) -> bool {
    let parsed = PathAndQuery::try_from(path);
    path.starts_with('/') && !path.contains(['?', '#']) && parsed.is_ok_and(|parsed| parsed.path() == path)
}
