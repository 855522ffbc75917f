//! Routing rules of a virtual host, which test path, method and header fields. Of the rules that match, the one that
//! matches the longest part of the path wins. Of equally long matches, an exact path wins over a prefix, and a prefix
//! over a pattern. If rules are still equal, the one with more conditions wins.

use std::cmp::Reverse;
use std::collections::HashMap;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use regex::Regex;

/// Parts of a request that rules compare.
pub struct Asked<'r> {
    /// Method of the request.
    pub method: &'r Method,
    /// Normalized path of the request.
    pub path: &'r str,
    /// Header fields of the request.
    pub headers: &'r HeaderMap,
}

/// Condition on the path of a request.
#[derive(Clone, Debug)]
pub enum PathRule {
    /// The path is exactly this one.
    Exact(String),
    /// The path is this one or is below it: `/api` matches `/api/users`, but not `/apix`.
    Prefix(String),
    /// The pattern matches any part of the path.
    Regex(Regex),
}

/// Rule that selects `target` for each request that meets all its conditions.
pub struct Rule<T> {
    /// Condition on the path.
    pub path: PathRule,
    /// Methods that match; an empty list matches any method. GET also matches HEAD requests.
    pub methods: Vec<Method>,
    /// Header fields that the request must have, with these values.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Target of the requests that match the rule.
    pub target: T,
}

/// Outcome of one rule for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The rule matches best, so its target is used.
    Taken,
    /// The rule matches, but another rule matches better.
    Outdone,
    /// The path does not match.
    Path,
    /// The method does not match.
    Method,
    /// This header field is missing or has another value.
    Header(HeaderName),
}

impl<T> Rule<T> {
    /// Returns true if the request's method and header fields match the rule.
    fn admits(&self, asked: &Asked<'_>) -> bool {
        self.has_method(asked) && self.missing_header(asked).is_none()
    }

    /// Returns true if the method matches. A rule for GET also matches HEAD, because HEAD is GET without the content
    /// (RFC 9110 9.3.2). A rule for HEAD does not match GET.
    fn has_method(&self, asked: &Asked<'_>) -> bool {
        let is_named = |method: &Method| self.methods.contains(method);
        self.methods.is_empty()
            || is_named(asked.method)
            || *asked.method == Method::HEAD && is_named(&Method::GET)
    }

    /// Returns the first header field of the rule that the request does not match; `None` if it matches all of them. If
    /// the request has a field several times, one matching value is enough.
    fn missing_header(&self, asked: &Asked<'_>) -> Option<&HeaderName> {
        let has = |name: &HeaderName, value: &HeaderValue| {
            asked.headers.get_all(name).iter().any(|found| found == value)
        };
        self.headers.iter().find(|(name, value)| !has(name, value)).map(|(name, _)| name)
    }

    fn has_path(&self, path: &str) -> bool {
        match &self.path {
            PathRule::Exact(exact) => path == exact,
            PathRule::Prefix(prefix) => prefixes(path, prefix.len()).any(|found| found == prefix),
            PathRule::Regex(regex) => regex.is_match(path),
        }
    }

    fn conditions(&self) -> usize {
        self.headers.len() + usize::from(!self.methods.is_empty())
    }
}

/// Rules of a virtual host, with a target for requests that match no rule. A lookup costs one hash for each segment of
/// the path, up to the length of the longest prefix, and one search for each pattern.
pub struct RuleTable<T> {
    exact: HashMap<String, Vec<Rule<T>>>,
    prefix: HashMap<String, Vec<Rule<T>>>,
    longest_prefix: usize,
    regex: Vec<Rule<T>>,
    otherwise: T,
}

impl<T> RuleTable<T> {
    /// Creates a table of `rules`, which must be in the order of the configuration.
    pub fn new(mut rules: Vec<Rule<T>>, otherwise: T) -> Self {
        // The sort is stable, so equal rules stay in the order of the configuration.
        rules.sort_by_key(|rule| Reverse(rule.conditions()));
        let mut table = RuleTable {
            exact: HashMap::new(),
            prefix: HashMap::new(),
            longest_prefix: 0,
            regex: Vec::new(),
            otherwise,
        };
        for rule in rules {
            match &rule.path {
                PathRule::Exact(path) => table.exact.entry(path.clone()).or_default().push(rule),
                PathRule::Prefix(path) => {
                    table.longest_prefix = table.longest_prefix.max(path.len());
                    table.prefix.entry(path.clone()).or_default().push(rule);
                }
                PathRule::Regex(_) => table.regex.push(rule),
            }
        }
        table
    }

    /// Returns the target of the rule that matches a request best, or else the target for requests that match no rule.
    pub fn find(&self, asked: &Asked<'_>) -> &T {
        if let Some(rule) = self.exact.get(asked.path).and_then(|rules| admitted(rules, asked)) {
            return &rule.target;
        }
        let by_prefix = prefixes(asked.path, self.longest_prefix)
            .find_map(|prefix| Some((prefix.len(), admitted(self.prefix.get(prefix)?, asked)?)));
        match (by_prefix, self.by_regex(asked)) {
            (Some((prefix, _)), Some((part, rule))) if part > prefix => &rule.target,
            (Some((_, rule)), _) | (None, Some((_, rule))) => &rule.target,
            (None, None) => &self.otherwise,
        }
    }

    /// Returns the target of requests that match no rule.
    pub fn otherwise(&self) -> &T {
        &self.otherwise
    }

    /// Returns the outcome of each rule for a request. [`RuleTable::find`] chooses the best rule, and this function
    /// finds the reasons against the others.
    pub fn explain(&self, asked: &Asked<'_>) -> Vec<(&T, Outcome)> {
        let taken = self.find(asked);
        let maps = self.exact.values().chain(self.prefix.values()).flatten();
        let rules = maps.chain(&self.regex);
        let outcome = |rule: &Rule<T>| {
            if std::ptr::eq(&rule.target, taken) {
                Outcome::Taken
            } else if !rule.has_path(asked.path) {
                Outcome::Path
            } else if !rule.has_method(asked) {
                Outcome::Method
            } else {
                rule.missing_header(asked).map_or(Outcome::Outdone, |name| Outcome::Header(name.clone()))
            }
        };
        rules.map(|rule| (&rule.target, outcome(rule))).collect()
    }

    /// Returns the rule whose pattern matches the longest part of the path, and the length of that part. Of equal
    /// lengths, the first pattern wins.
    fn by_regex(&self, asked: &Asked<'_>) -> Option<(usize, &Rule<T>)> {
        let matching = self.regex.iter().filter_map(|rule| match &rule.path {
            PathRule::Regex(regex) if rule.admits(asked) => Some((regex.find(asked.path)?.len(), rule)),
            _ => None,
        });
        // For equal lengths, `max_by_key` would return the last one.
        matching.reduce(|best, next| if next.0 > best.0 { next } else { best })
    }
}

/// Returns the first rule whose method and header fields match the request.
fn admitted<'t, T>(rules: &'t [Rule<T>], asked: &Asked<'_>) -> Option<&'t Rule<T>> {
    rules.iter().find(|rule| rule.admits(asked))
}

/// Returns the prefixes of `path` that end at a border of segments, with and without their last slash. The longest
/// prefix comes first; none is longer than `longest`.
fn prefixes(path: &str, longest: usize) -> impl Iterator<Item = &str> {
    // No rule is longer than `longest`. So the configuration limits the work, and not the length of the client's path.
    let head = &path.as_bytes()[..path.len().min(longest + 1)];
    let slashes = (0..head.len()).rev().filter(|at| head[*at] == b'/');
    let borders = slashes.flat_map(|slash| [slash + 1, slash]).filter(|end| *end < path.len());
    let ends = std::iter::once(path.len()).chain(borders);
    ends.filter(move |end| (1..=longest).contains(end)).map(|end| &path[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(path: PathRule, target: &'static str) -> Rule<&'static str> {
        Rule { path, methods: Vec::new(), headers: Vec::new(), target }
    }

    fn prefix(path: &'static str) -> Rule<&'static str> {
        rule(PathRule::Prefix(path.to_owned()), path)
    }

    fn exact(path: &'static str, target: &'static str) -> Rule<&'static str> {
        rule(PathRule::Exact(path.to_owned()), target)
    }

    fn regex(pattern: &'static str) -> Rule<&'static str> {
        rule(PathRule::Regex(Regex::new(pattern).unwrap()), pattern)
    }

    fn found(table: &RuleTable<&'static str>, path: &str) -> &'static str {
        table.find(&Asked { method: &Method::GET, path, headers: &HeaderMap::new() })
    }

    #[test]
    fn a_prefix_ends_at_a_border_of_segments() {
        let table = RuleTable::new(vec![prefix("/api"), prefix("/static/"), prefix("/api/v2")], "host");
        for (path, target) in [
            ("/api", "/api"),
            ("/api/", "/api"),
            ("/api/users", "/api"),
            ("/apix", "host"),
            ("/api/v2", "/api/v2"),
            ("/api/v2/", "/api/v2"),
            ("/api/v20", "/api"),
            ("/static", "host"),
            ("/static/", "/static/"),
            ("/static/logo", "/static/"),
            ("/", "host"),
        ] {
            assert_eq!(found(&table, path), target, "{path}");
        }
        let whole = RuleTable::new(vec![prefix("/")], "host");
        assert_eq!((found(&whole, "/"), found(&whole, "/any/where")), ("/", "/"));
    }

    #[test]
    fn the_longest_match_wins_and_of_equals_the_most_exact() {
        let table = RuleTable::new(
            vec![
                regex("^/v[0-9]+/"),
                prefix("/v1/users"),
                exact("/v1/users", "exactly"),
                prefix("/a"),
                regex("^/a$"),
            ],
            "host",
        );
        for (path, target) in [
            ("/v1/orders", "^/v[0-9]+/"),
            ("/v1/users/7", "/v1/users"),
            ("/v1/users", "exactly"),
            ("/a", "/a"),
            ("/v/1", "host"),
        ] {
            assert_eq!(found(&table, path), target, "{path}");
        }
        let equals = RuleTable::new(vec![regex("^/a."), regex("^/.b")], "host");
        assert_eq!(found(&equals, "/ab"), "^/a.");
    }

    #[test]
    fn methods_and_header_fields_are_conditions_too() {
        let with = |methods: &[Method], headers: &[(&'static str, &'static str)], target| Rule {
            path: PathRule::Prefix("/api".to_owned()),
            methods: methods.to_vec(),
            headers: headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect(),
            target,
        };
        let table = RuleTable::new(
            vec![
                with(&[], &[], "plain"),
                with(&[Method::POST, Method::PUT], &[], "writes"),
                with(&[], &[("x-beta", "1")], "beta"),
                with(&[Method::POST], &[("x-beta", "1")], "beta writes"),
                Rule { methods: vec![Method::DELETE], ..prefix("/api/users") },
                Rule { methods: vec![Method::GET], ..prefix("/api/read") },
                Rule { methods: vec![Method::HEAD], ..prefix("/api/head") },
            ],
            "host",
        );
        let find = |method: Method, beta: &[&'static str], path| {
            let headers =
                beta.iter().map(|value| (HeaderName::from_static("x-beta"), HeaderValue::from_static(value)));
            let headers = headers.fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            });
            *table.find(&Asked { method: &method, path, headers: &headers })
        };
        assert_eq!(find(Method::GET, &[], "/api"), "plain");
        assert_eq!(find(Method::PUT, &[], "/api"), "writes");
        assert_eq!(find(Method::GET, &["1"], "/api"), "beta");
        assert_eq!(find(Method::GET, &["0", "1"], "/api"), "beta", "one of several values");
        assert_eq!(find(Method::GET, &["10"], "/api"), "plain");
        assert_eq!(find(Method::HEAD, &[], "/api/read"), "/api/read", "it is GET without the content");
        assert_eq!(find(Method::GET, &[], "/api/head"), "plain", "and not the other way round");
        assert_eq!(find(Method::POST, &["1"], "/api"), "beta writes");
        assert_eq!(find(Method::DELETE, &[], "/api/users/1"), "/api/users");
        assert_eq!(
            find(Method::GET, &[], "/api/users/1"),
            "plain",
            "a longer rule for another method is none"
        );
    }

    #[test]
    fn explain_gives_a_reason_for_each_rule() {
        let post = Rule { methods: vec![Method::POST], ..prefix("/api/users") };
        let beta = Rule {
            headers: vec![(HeaderName::from_static("x-beta"), HeaderValue::from_static("1"))],
            ..rule(PathRule::Prefix("/api/".to_owned()), "beta")
        };
        let rules =
            vec![prefix("/api"), post, beta, prefix("/other"), regex("^/a"), exact("/api", "exactly")];
        let table = RuleTable::new(rules, "host");
        let explain = |path| {
            let asked = Asked { method: &Method::GET, path, headers: &HeaderMap::new() };
            let mut outcomes = table.explain(&asked);
            outcomes.sort_by_key(|(target, _)| **target);
            outcomes.into_iter().map(|(target, outcome)| (*target, outcome)).collect::<Vec<_>>()
        };
        let header = Outcome::Header(HeaderName::from_static("x-beta"));
        assert_eq!(
            explain("/api/users/7"),
            [
                ("/api", Outcome::Taken),
                ("/api/users", Outcome::Method),
                ("/other", Outcome::Path),
                ("^/a", Outcome::Outdone),
                ("beta", header),
                ("exactly", Outcome::Path),
            ]
        );
        assert!(explain("/none").iter().all(|(_, outcome)| *outcome == Outcome::Path));
    }

    #[test]
    fn a_path_of_slashes_costs_no_more_than_the_longest_prefix() {
        let path = "/".repeat(8192);
        assert!(prefixes(&path, 10).count() <= 22);
        assert_eq!(prefixes("/a/b", 100).collect::<Vec<_>>(), ["/a/b", "/a/", "/a", "/"]);
        assert_eq!(prefixes("/a/b/", 100).collect::<Vec<_>>(), ["/a/b/", "/a/b", "/a/", "/a", "/"]);
        assert_eq!(prefixes("/a/b", 2).collect::<Vec<_>>(), ["/a", "/"]);
        assert_eq!(prefixes("/a/b", 0).count(), 0);
    }
}
