//! Tests that a client cannot bypass a route with a path that a backend reads differently than the rules do. Each kind
//! of server is a model of a few lines. The tests compare the path that a server reads with the route that was chosen.

use fastrand::Rng;
use http::{Method, Uri};
use pingora::http::RequestHeader;

use super::{PathRule, Rule, RuleTable, within};

/// Model of a server: a description, and the function that reads a path as the server does.
type Reader = (&'static str, fn(&str) -> Vec<u8>);

const READERS: [Reader; 15] = [
    ("as it is: Node", |path| path.into()),
    ("slashes merged", |path| merged(path.as_bytes())),
    ("RFC 3986", |path| resolved(path.as_bytes())),
    ("slashes merged, dots resolved: nginx before it decodes", |path| resolved(&merged(path.as_bytes()))),
    ("decoded: S3", |path| decoded(path.as_bytes())),
    ("decoded, then cleaned: Go, nginx", |path| cleaned(&decoded(path.as_bytes()))),
    ("cleaned, then decoded", |path| decoded(&cleaned(path.as_bytes()))),
    ("parameters away, decoded, cleaned: Tomcat", |path| cleaned(&decoded(&stripped(path.as_bytes())))),
    ("decoded, parameters away, cleaned", |path| cleaned(&stripped(&decoded(path.as_bytes())))),
    ("backslashes turned, decoded, cleaned: IIS", |path| cleaned(&turned(&decoded(path.as_bytes())))),
    ("decoded twice, up to a query, cleaned", |path| {
        let twice = decoded(&decoded(path.as_bytes()));
        cleaned(&turned(twice.split(|byte| *byte == b'?').next().unwrap()))
    }),
    ("decoded, parsed as a URL, cleaned: programs for Node", |path| {
        cleaned(&parsed(&decoded(path.as_bytes())))
    }),
    ("decoded twice, parsed as a URL, cleaned", |path| cleaned(&parsed(&decoded(&decoded(path.as_bytes()))))),
    ("decoded, sent on in a line, cleaned", |path| cleaned(&line(&decoded(path.as_bytes())))),
    ("decoded, trimmed, cleaned", |path| {
        let path = decoded(path.as_bytes());
        let end = path.iter().rposition(|byte| !byte.is_ascii_control()).map_or(0, |last| last + 1);
        cleaned(&path[..end])
    }),
];

/// Returns the path that a parser of the URL standard would read.
fn parsed(path: &[u8]) -> Vec<u8> {
    let mut path: Vec<u8> = path.into();
    path.retain(|byte| !matches!(byte, b'\t' | b'\r' | b'\n'));
    turned(path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap())
}

fn line(path: &[u8]) -> Vec<u8> {
    path.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap().into()
}

fn decoded(path: &[u8]) -> Vec<u8> {
    percent_encoding::percent_decode(path).collect()
}

fn merged(path: &[u8]) -> Vec<u8> {
    let mut merged: Vec<u8> = path.into();
    merged.dedup_by(|next, before| *next == b'/' && *before == b'/');
    merged
}

fn turned(path: &[u8]) -> Vec<u8> {
    path.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect()
}

fn stripped(path: &[u8]) -> Vec<u8> {
    let segments = path.split(|byte| *byte == b'/');
    let segments: Vec<&[u8]> =
        segments.map(|segment| segment.split(|byte| *byte == b';').next().unwrap()).collect();
    segments.join(&b'/')
}

fn resolved(path: &[u8]) -> Vec<u8> {
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in path.split(|byte| *byte == b'/').skip(1) {
        match segment {
            b"." => {}
            b".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    [b"/", segments.join(&b'/').as_slice()].concat()
}

fn cleaned(path: &[u8]) -> Vec<u8> {
    resolved(&merged(path))
}

fn is_below(path: &[u8], prefix: &str) -> bool {
    path.strip_prefix(prefix.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// Routes `path` by `rules`. If the request is forwarded, checks the path that each server reads, and returns true.
fn goes_up(rules: &RuleTable<&'static str>, path: &str, is_right: impl Fn(&str, &[u8]) -> bool) -> bool {
    let Ok(uri) = path.parse::<Uri>() else { return false };
    let mut request = RequestHeader::build("GET", b"/", None).unwrap();
    request.set_uri(uri);
    let Ok(found) = within(rules, &request) else { return false };
    let sent = found.paths.as_ref().map_or(request.uri.path(), |paths| &paths.sent);
    for (reader, read) in READERS {
        let seen = read(sent);
        let shown = String::from_utf8_lossy(&seen);
        assert!(
            is_right(found.target, &seen),
            "{path:?} took {:?} and went up as {sent:?}, where a server ({reader}) sees {shown:?}",
            found.target
        );
    }
    true
}

fn rules(paths: &[PathRule]) -> RuleTable<&'static str> {
    let rule = |path: &PathRule| Rule {
        path: path.clone(),
        methods: vec![Method::GET],
        headers: Vec::new(),
        target: "rule",
    };
    RuleTable::new(paths.iter().map(rule).collect(), "host")
}

/// Returns random paths, made of parts that some servers read in a special way.
fn paths(seed: u64, names: &'static [&'static str]) -> impl Iterator<Item = String> {
    const PARTS: [&str; 41] = [
        "%0d", "%0a", "%0D%0A", "%09", "%1f", "%250a", "%7f", "/", "/", "/", "/", "//", "..", "..", ".",
        "/../", "/./", ";", ";a=b", "..;", "%2f", "%2F", "%5c", "\\", "%2e", "%2E%2e", "%252f", "%252e",
        "%255c", "%3b", "%3f", "%23", "%20", "%40", "%61", "%c3%a9", "%c0%af", "%25", "%00", "x", "é",
    ];
    let mut random = Rng::with_seed(seed);
    let mut path = move || {
        let parts = random.usize(1..9);
        let mut part = || if random.u8(..3) == 0 { random.choice(names) } else { random.choice(&PARTS) };
        let path: String = (0..parts).filter_map(|_| part().copied()).collect();
        format!("/{path}")
    };
    std::iter::from_fn(move || Some(path()))
}

#[test]
fn no_server_sees_another_path_than_the_route_was_chosen_for() {
    let rules = rules(&[PathRule::Prefix("/admin".to_owned())]);
    let names = &["admin", "%61dmin", "public", "adm"];
    let is_right = |target: &str, seen: &[u8]| (target == "rule") == is_below(seen, "/admin");
    let passed = paths(7, names).take(12_000).filter(|path| goes_up(&rules, path, is_right)).count();
    assert!((1_000..11_000).contains(&passed), "{passed} of 12000 went up: what was tried?");
}

#[test]
fn no_server_bypasses_an_exact_rule_or_a_pattern() {
    let exact = rules(&[PathRule::Exact("/admin".to_owned())]);
    let pattern = rules(&[PathRule::Regex(regex::Regex::new("^/admin(/|$)").unwrap())]);
    let names = &["admin", "%61dmin", "public", "adm"];
    let below = |target: &str, seen: &[u8]| (target == "rule") == is_below(seen, "/admin");
    let exactly = |target: &str, seen: &[u8]| (target == "rule") == (seen == b"/admin");
    for path in paths(8, names).take(6_000) {
        goes_up(&exact, &path, exactly);
        goes_up(&pattern, &path, below);
    }
}

#[test]
fn rule_with_encodable_characters_is_not_bypassed() {
    let rules = rules(&[PathRule::Prefix("/@me/x".to_owned())]);
    let is_right = |target: &str, seen: &[u8]| (target == "rule") == is_below(seen, "/@me/x");
    // A server that does not decode paths does not serve this spelling, so it has no rule to bypass.
    let names = &["@me", "%40me", "/x", "%78"];
    for path in paths(9, names).take(6_000) {
        goes_up(&rules, &path, |target, seen| {
            is_right(target, seen) || target == "rule" && is_below(&decoded(seen), "/@me/x")
        });
    }
}

#[test]
fn encoded_data_is_forwarded_unchanged() {
    let rules = rules(&[PathRule::Prefix("/bucket".to_owned())]);
    for path in [
        "/bucket//key",
        "/bucket/a%2fb%2Fc",
        "/bucket/a%5cb",
        "/bucket/50%25/x",
        "/bucket/a;version=1",
        "/bucket/a%3Bb",
        "/bucket/caf%e9",
        "/bucket/%40a%20b",
        "/bucket/a%0d%0ab",
        "/bucket/%0A",
        "/other/a%09b",
        "/other//a%2fb",
    ] {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.set_uri(path.parse().unwrap());
        let found = within(&rules, &request).unwrap();
        let sent = found.paths.as_ref().map_or(path, |paths| &paths.sent);
        assert_eq!((sent, *found.target), (path, if path.starts_with("/b") { "rule" } else { "host" }));
    }
}
