//! Validation of virtual hosts and their routes: no name is used twice, and every route can match a request.

use std::collections::{HashMap, HashSet};

use http::uri::PathAndQuery;

use super::Faults;
use crate::config::redirect::{RedirectStatus, RedirectTarget};
use crate::config::routes::Route;
use crate::config::schema::{Config, VirtualHost};
use crate::config::template::Template;
use crate::config::{Domain, read_path};

/// Adds every fault of virtual hosts and routes, except references to unknown tags.
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
            faults.add(
                at.as_str(),
                "a virtual host needs `enabled_backends_tag`, the tag of the backends that serve it",
            );
        }
        domains(host, &at, &mut seen, faults);
        let mut names = HashSet::new();
        for (j, route) in host.routes.iter().enumerate() {
            let at = format!("{at}/routes/{j}");
            self::route(route, &at, faults);
            let name = route.name();
            if !names.insert(name.clone()) {
                faults.add(
                    at,
                    format!("the route '{name}' is defined twice; no request would reach the second one"),
                );
            }
        }
    }
}

fn domains<'c>(host: &'c VirtualHost, at: &str, seen: &mut HashMap<Domain, &'c str>, faults: &mut Faults) {
    if host.domain.is_empty() {
        faults.add(
            format!("{at}/domain"),
            "a virtual host needs a `domain`: a host name, or \"*\" for every other host",
        );
    }
    let domain = (format!("{at}/domain"), &host.domain);
    let aliases = host.aliases.iter().enumerate().map(|(k, alias)| (format!("{at}/aliases/{k}"), alias));
    for (at, text) in std::iter::once(domain).filter(|(_, domain)| !domain.is_empty()).chain(aliases) {
        match text.parse::<Domain>() {
            Err(detail) => faults.add(at, detail),
            Ok(domain) => {
                if let Some(first) = seen.insert(domain, text) {
                    faults.add(at, format!("'{text}' is defined twice (the first is '{first}')"));
                }
            }
        }
    }
}

fn route(route: &Route, at: &str, faults: &mut Faults) {
    let paths = [route.path.is_some(), route.path_prefix.is_some(), route.path_regex.is_some()];
    if paths.iter().filter(|is_there| **is_there).count() > 1 {
        faults.add(at, "a route has only one of `path`, `path_prefix` and `path_regex`; remove the others");
    }
    for (key, path) in [("path", &route.path), ("path_prefix", &route.path_prefix)] {
        let Some(path) = path else { continue };
        let detail = match read_path(path) {
            _ if !is_path(path) => {
                format!("{path:?} cannot be the path of a request; expected something like \"/api\"")
            }
            Err(bad) => format!("{path:?} matches no request: {bad}"),
            Ok(read) if read.compared != *path => {
                format!("{path:?} matches no request: the gateway reads it as {:?}", read.compared)
            }
            Ok(read) if !read.others.is_empty() => {
                format!(
                    "{path:?} matches no request: some servers read it as {:?}",
                    read.others.join("\", \"")
                )
            }
            Ok(_) => continue,
        };
        faults.add(format!("{at}/{key}"), detail);
    }
    // If `path_regex` is absent, it may only have been unreadable; `incomplete` then checks the templates.
    if route.path_regex.is_some() {
        templates(route, at, faults);
    }
    only_redirected(route, at, faults);
}

/// Adds a fault for each missing value in a route. This is only checked if the whole route could be read.
pub(super) fn incomplete(route: &Route, at: &str, faults: &mut Faults) {
    let has_path = route.path.is_some() || route.path_prefix.is_some() || route.path_regex.is_some();
    if !has_path && route.methods.is_empty() && route.header_match.0.is_empty() {
        let detail =
            "a route needs a condition: `path`, `path_prefix`, `path_regex`, `methods` or `header_match`";
        faults.add(at, detail);
    }
    if route.strip_prefix && route.path_prefix.is_none() {
        faults.add(format!("{at}/strip_prefix"), "it has no effect without `path_prefix`");
    }
    if !route.rewrite.is_empty() && route.path_regex.is_none() {
        faults.add(format!("{at}/rewrite"), "it has no effect without `path_regex`, whose match it replaces");
    } else if route.path_regex.is_none() {
        templates(route, at, faults);
    }
    if route.redirect.is_empty() && route.redirect_status != RedirectStatus::default() {
        faults.add(format!("{at}/redirect_status"), "it has no effect without `redirect`");
    }
}

/// Adds a fault for each template of the route that has an unknown name, or that makes no valid path or target.
fn templates(route: &Route, at: &str, faults: &mut Faults) {
    let pattern = route.path_regex.as_ref().map(|pattern| &pattern.0);
    if !route.rewrite.is_empty() {
        // A group matched a part of a valid path, so `x` can replace any group in this check.
        let fits = |template: &Template| {
            let path = format!("/{}", template.with("x"));
            let has_dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
            is_path(&path) && read_path(&path).is_ok() && !has_dots
        };
        match Template::parse(&route.rewrite, false, pattern) {
            Err(detail) => faults.add(format!("{at}/rewrite"), detail),
            Ok(template) if !fits(&template) => {
                faults
                    .add(format!("{at}/rewrite"), format!("{:?} cannot be a part of a path", route.rewrite));
            }
            Ok(_) => {}
        }
    }
    if !route.redirect.is_empty()
        && let Err(detail) = RedirectTarget::parse(&route.redirect, pattern)
    {
        faults.add(format!("{at}/redirect"), detail);
    }
}

fn only_redirected(route: &Route, at: &str, faults: &mut Faults) {
    if route.redirect.is_empty() {
        return;
    }
    for (key, is_there) in [
        ("enabled_backends_tag", !route.enabled_backends_tag.is_empty()),
        ("strip_prefix", route.strip_prefix),
        ("rewrite", !route.rewrite.is_empty()),
        ("mirror_tag", !route.mirror_tag.is_empty()),
    ] {
        if is_there {
            faults.add(
                format!("{at}/{key}"),
                "it has no effect beside `redirect`: no request goes to a backend",
            );
        }
    }
}

/// Returns true if a request can have `path` as its path; `path` must not contain a query.
fn is_path(path: &str) -> bool {
    let parsed = PathAndQuery::try_from(path);
    path.starts_with('/') && !path.contains(['?', '#']) && parsed.is_ok_and(|parsed| parsed.path() == path)
}
