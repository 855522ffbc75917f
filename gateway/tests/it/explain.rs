use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use testkit::{Client, Origin, Process, Response};

use crate::support::{ConfigFile, GATEWAY, Gateway};

const CONFIG: &str = r#"
[rate_limit]
requests = 10
[[virtual_hosts]]
domain = "app.example.com"
aliases = ["*.shop.example.com"]
enabled_backends_tag = "site"
    [[virtual_hosts.routes]]
    path_prefix = "/api"
    enabled_backends_tag = "api"
    strip_prefix = true
    [virtual_hosts.routes.retry]
    attempts = 1
    [[virtual_hosts.routes]]
    path_prefix = "/api"
    methods = ["POST"]
    [[virtual_hosts.routes]]
    path = "/beta"
    header_match = { "X-Beta" = "1" }
    [[virtual_hosts.routes]]
    path_prefix = "/old"
    redirect = "https://new.example.com/"
    [virtual_hosts.retry]
    attempts = 2
[[backends]]
id = "site-1"
address = "127.0.0.1:3001"
tags = ["site"]
[[backends]]
id = "api-1"
address = "127.0.0.1:3002"
tags = ["api"]
[[backends]]
id = "api-2"
address = "127.0.0.1:3003"
tags = ["api"]
"#;

async fn explain(arguments: &[&str]) -> (Option<i32>, String) {
    let file = ConfigFile::new(CONFIG);
    let path = file.path().display().to_string();
    Process::run(GATEWAY, &[&["explain", "-c", &path], arguments].concat(), &[]).await
}

async fn json(arguments: &[&str]) -> Value {
    let (code, said) = explain(&[arguments, &["--output", "json"]].concat()).await;
    assert_eq!(code, Some(0), "{said}");
    serde_json::from_str(&said).unwrap()
}

#[tokio::test]
async fn a_person_reads_what_would_become_of_a_request() {
    let (code, said) = explain(&["GET", "http://app.example.com/api/users?page=2"]).await;
    let expected = "GET app.example.com /api/users
  virtual host  app.example.com
  route         yes /api: the longest match
  route         no  /api POST: the method is another one
  route         no  /old: the path is another one
  route         no  = /beta x-beta=1: the path is another one
  rate limit    depends on earlier requests: at most 10 in 60 s by client_ip (default); otherwise 429
  path          /users
  pool          api
  backend       api-1 127.0.0.1:3002 usable
  backend       api-2 127.0.0.1:3003 usable
  algorithm     round_robin
  next          api-1";
    // A new policy must not change this test, so the line of the policies is compared in parts.
    let (policies, others): (Vec<_>, Vec<_>) = said.lines().partition(|line| line.starts_with("  policies"));
    assert_eq!((code, others.join("\n").as_str()), (Some(0), expected));
    assert!(policies[0].contains("limits (default), access (default)"), "{policies:?}");
    assert!(policies[0].contains("rate_limit (top), auth (default)"), "{policies:?}");
    assert!(policies[0].contains("retry (route), circuit_breaker (default)"), "{policies:?}");
}

#[tokio::test]
async fn a_program_reads_the_same_as_json() {
    let answer = json(&["POST", "http://a.shop.example.com/%61pi//x"]).await;
    assert_eq!(answer["virtual_host"], "app.example.com");
    assert_eq!(answer["path"], "/api/x");
    assert_eq!(answer["route"]["name"], "/api POST");
    assert_eq!(answer["route"]["next"], "site-1");
    let limit = serde_json::json!([{
        "name": "default", "requests": 10, "window_secs": 60, "key": "client_ip", "store": "local",
    }]);
    assert_eq!(answer["route"]["rate_limits"], limit);
    let policies = answer["route"]["policies"].as_array().unwrap();
    assert!(policies.contains(&json!({"name": "retry", "from": "virtual_host"})), "{policies:?}");
    let outdone = answer["rules"].as_array().unwrap().iter().find(|rule| rule["name"] == "/api").unwrap();
    assert_eq!(outdone["why"], "it matches, and another one matches more");
}

#[tokio::test]
async fn header_fields_count() {
    let without = json(&["GET", "http://app.example.com/beta"]).await;
    assert_eq!(without["route"]["name"], "/");
    assert_eq!(without["rules"][3]["why"], "the field x-beta is missing or has another value");
    let with = json(&["GET", "http://app.example.com/beta", "-H", "X-Beta: 1"]).await;
    assert_eq!(with["route"]["name"], "= /beta x-beta=1");
    let another_host = json(&["GET", "http://127.0.0.1/beta", "-H", "Host: app.example.com"]).await;
    assert_eq!(another_host["virtual_host"], "app.example.com");
}

#[tokio::test]
async fn explain_reports_local_replies() {
    let unknown = json(&["GET", "http://elsewhere/"]).await;
    assert_eq!((&unknown["answered"], &unknown["virtual_host"]), (&404.into(), &Value::Null));
    let explained = json(&["GET", "http://elsewhere/.well-known/gateway/problems"]).await;
    assert_eq!(explained["answered"], 200);
    let ambiguous = json(&["GET", "http://app.example.com/api%2f..%2fold"]).await;
    assert_eq!(ambiguous["answered"], 400);
    assert_eq!(ambiguous["refused"], "the path contains a dot segment that only some servers recognise");
    let moved = json(&["GET", "http://app.example.com/old/x"]).await;
    assert_eq!(
        (&moved["answered"], &moved["route"]["redirect"]),
        (&308.into(), &"https://new.example.com/".into())
    );
}

const GUARDED: &str = r#"
[proxy]
listen_addr_http = "127.0.0.1:0"
trusted_proxies = ["127.0.0.1"]
[cors]
allow_origins = ["https://app.example.com"]
allow_methods = ["PUT"]
[[rate_limit]]
key = "jwt:sub"
[[rate_limit]]
name = "each"
[auth]
kind = "jwt"
secret_env = "EXPLAIN_SECRET"
[access]
deny = ["192.0.2.0/24"]
[[virtual_hosts]]
domain = "*"
enabled_backends_tag = "a"
    [[virtual_hosts.routes]]
    path_prefix = "/put"
    methods = ["PUT"]
    fault = { abort_status = 500, abort_percent = 1 }
    [[virtual_hosts.routes]]
    path_prefix = "/old"
    redirect = "/new"
    [[virtual_hosts.routes]]
    path_prefix = "/small"
    [virtual_hosts.routes.limits]
    max_uri_bytes = 8
    max_request_body_bytes = 5
[[virtual_hosts]]
domain = "secure.example"
enabled_backends_tag = "a"
http_to_https = true
[[backends]]
id = "one"
address = "127.0.0.1:3001"
tags = ["a"]
"#;

async fn guarded(arguments: &[&str]) -> String {
    let file = ConfigFile::new(GUARDED);
    let path = file.path().display().to_string();
    let variables = [("EXPLAIN_SECRET", "0123456789abcdef0123456789abcdef")];
    let (code, said) =
        Process::run(GATEWAY, &[&["explain", "-c", &path], arguments].concat(), &variables).await;
    assert_eq!(code, Some(0), "{said}");
    said
}

/// Returns the lines that follow the first line of the policies.
fn tail(said: &str) -> Vec<&str> {
    let lines = said.lines().skip_while(|line| !line.starts_with("  policies"));
    lines.skip(1).map(str::trim_start).collect()
}

#[tokio::test]
async fn a_preflight_is_answered_by_the_route_that_it_is_about() {
    let origin = ["-H", "Origin: https://app.example.com"];
    let asks = |method| [origin[0], origin[1], "-H", method];
    let preflight = [&["OPTIONS", "http://a/put"][..], &asks("Access-Control-Request-Method: PUT")].concat();
    let said = guarded(&preflight).await;
    assert!(said.contains("route         yes /put PUT: the longest match"), "{said}");
    let expected = [
        "access        depends on the client's address: [access] must allow it; otherwise 403",
        "preflight     a page asks permission to send PUT: [cors] answers",
        "answered      with 204",
    ];
    assert_eq!(tail(&said), expected, "no rate limit, no login, no backend");

    let said =
        guarded(&[&["OPTIONS", "http://a/x"][..], &asks("Access-Control-Request-Method: DELETE")].concat())
            .await;
    let refused = "refused       pages of other origins may not use the method DELETE: answered with 403";
    assert_eq!(tail(&said).last(), Some(&refused), "{said}");
    let said = guarded(&[&["OPTIONS", "http://a/put"][..], &origin].concat()).await;
    assert!(said.contains("route         no  /put PUT: the method") && said.contains("next  "), "{said}");
    let json: Value =
        serde_json::from_str(&guarded(&[&preflight[..], &["--output", "json"]].concat()).await).unwrap();
    assert_eq!((&json["preflight"], &json["answered"]), (&"PUT".into(), &204.into()));
}

#[tokio::test]
async fn explain_lists_policies_in_order_of_evaluation() {
    let said = guarded(&["PUT", "http://a/put"]).await;
    let begins: Vec<&str> = tail(&said).iter().map(|line| line.split("  ").next().unwrap()).collect();
    assert_eq!(
        begins,
        [
            "access",
            "rate limit",
            "auth",
            "rate limit",
            "fault",
            "path",
            "pool",
            "backend",
            "algorithm",
            "next"
        ]
    );
    assert!(said.contains("100 in 60 s by client_ip (each)") && said.contains("by jwt:sub"), "{said}");

    let said = guarded(&["GET", "http://a/old"]).await;
    assert_eq!(tail(&said)[1..4].iter().map(|line| &line[..4]).collect::<Vec<_>>(), ["rate", "auth", "rate"]);
    assert_eq!(tail(&said).last(), Some(&"redirect      308 to /new"));
    let said = guarded(&["GET", "http://secure.example/x"]).await;
    assert_eq!(tail(&said)[1..], ["redirect      308 to https://secure.example/x"], "{said}");
}

#[tokio::test]
async fn explain_reports_refused_methods_and_sizes() {
    for (arguments, refused) in [
        (
            &["CONNECT", "http://a/"][..],
            "CONNECT is not implemented: this is not a forward proxy: answered with 501",
        ),
        (&["TRACE", "http://a/"], "TRACE is not allowed: answered with 405"),
        (&["GET", "http://a/small/too/long"], "limits.max_uri_bytes allows: answered with 414"),
        (
            &["POST", "http://a/small", "-H", "Content-Length: 6"],
            "limits.max_request_body_bytes allows: answered with 413",
        ),
        (&["GET", "http://a/", "-H", "Connection: cookie"], "that is not hop-by-hop: answered with 400"),
    ] {
        let said = guarded(arguments).await;
        let last = said.lines().last().unwrap();
        assert!(last.starts_with("  refused       ") && last.ends_with(refused), "{said}");
    }
}

#[tokio::test]
async fn explain_rejects_invalid_requests() {
    let (code, said) = explain(&["GET", "/api"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("'/api': there is no host; expected http://host/path"), "{said}");
    let (code, said) = explain(&["GET", "http://a/caf\u{e9}"]).await;
    assert!(code == Some(1) && said.contains("target has no 'é'; clients percent-encode it"), "{said}");
    for wrong in
        [&["G E T", "http://a/"][..], &["GET"], &["GET", "http://a/", "-H", "X-Beta"], &["GET", "h t"]]
    {
        let (code, said) = explain(wrong).await;
        assert_eq!(code, Some(2), "{wrong:?}: {said}");
    }
}

#[tokio::test]
async fn explain_reports_auth_server_cookies() {
    let table = "[auth]\nkind = \"forward\"\nurl = \"http://127.0.0.1:9/\"\n";
    for (auth, is_said) in [(table, true), ("[auth]\nkind = \"none\"\n", false)] {
        let file = ConfigFile::new(&format!("{auth}{CONFIG}"));
        let path = file.path().display().to_string();
        let asked = ["explain", "-c", &path, "GET", "http://app.example.com/beta"];
        let (code, said) = Process::run(GATEWAY, &asked, &[]).await;
        assert_eq!(
            (code, said.contains("  auth cookies  those of the auth server")),
            (Some(0), is_said),
            "{said}"
        );
        let (_, said) = Process::run(GATEWAY, &[&asked[..], &["--output", "json"]].concat(), &[]).await;
        let answer: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(answer["route"]["auth_cookies"], is_said);
    }
}

/// Configuration in which every check can refuse a request.
const CHECKED: &str = r#"
[proxy]
listen_addr_http = "127.0.0.1:0"
management_api_addr = "127.0.0.1:0"
trusted_proxies = ["127.0.0.1"]
[metrics]
listen_addr = "127.0.0.1:0"
[health_check]
enabled = false
[limits]
max_uri_bytes = 40
max_request_body_bytes = 5
[[virtual_hosts]]
domain = "open.example"
enabled_backends_tag = "a"
    [virtual_hosts.cors]
    allow_origins = ["https://app.example.com"]
    allow_methods = ["PUT"]
    [[virtual_hosts.routes]]
    path_prefix = "/strip"
    strip_prefix = true
    [[virtual_hosts.routes]]
    path_prefix = "/old"
    redirect = "/new"
    [[virtual_hosts.routes]]
    path_prefix = "/once"
    [virtual_hosts.routes.rate_limit]
    requests = 1
    [[virtual_hosts.routes]]
    path_prefix = "/over_http2"
    [virtual_hosts.routes.upstream]
    protocol = "http2"
[[virtual_hosts]]
domain = "secure.example"
enabled_backends_tag = "a"
http_to_https = true
[[virtual_hosts]]
domain = "denied.example"
enabled_backends_tag = "a"
    [virtual_hosts.access]
    deny = ["127.0.0.0/8"]
    [[virtual_hosts.routes]]
    path_prefix = "/old"
    redirect = "/new"
[[virtual_hosts]]
domain = "private.example"
enabled_backends_tag = "a"
    [virtual_hosts.auth]
    kind = "api_key"
    keys_file = "KEYS"
    [[virtual_hosts.routes]]
    path_prefix = "/old"
    redirect = "/new"
[[backends]]
id = "one"
address = "ORIGIN"
tags = ["a"]
"#;

/// A request, and the check whose condition this client does not meet.
struct Case(&'static str, &'static str, &'static [(&'static str, &'static str)], Option<&'static str>);

const PREFLIGHT: &[(&str, &str)] =
    &[("Origin", "https://app.example.com"), ("Access-Control-Request-Method", "PUT")];
const REFUSED_PREFLIGHT: &[(&str, &str)] =
    &[("Origin", "https://app.example.com"), ("Access-Control-Request-Method", "PATCH")];
const GRPC: &[(&str, &str)] = &[("Content-Type", "application/grpc")];
const KEY: &[(&str, &str)] = &[("X-Api-Key", "an-api-key-of-the-test")];

const CASES: &[Case] = &[
    Case("GET", "open.example/plain", &[], None),
    Case("GET", "open.example/%73trip/x", &[], None),
    Case("GET", "open.example/old", &[], None),
    Case("GET", "open.example/a/b%2f..%2fc", &[], None),
    Case("GET", "open.example/longer-than-the-forty-bytes-that-limits-allows", &[], None),
    Case("TRACE", "open.example/", &[], None),
    Case("POST", "open.example/", &[("Content-Length", "6")], None),
    Case("OPTIONS", "open.example/plain", PREFLIGHT, None),
    Case("OPTIONS", "open.example/plain", REFUSED_PREFLIGHT, None),
    Case("GET", "open.example/once", &[], None),
    Case("GET", "open.example/once", &[], Some("rate_limit")),
    Case("POST", "open.example/plain", GRPC, None),
    Case("POST", "open.example/over_http2", GRPC, Some("grpc")),
    Case("GET", "secure.example/x", &[], None),
    Case("GET", "unknown.example/", &[], None),
    Case("GET", "unknown.example/.well-known/gateway/problems", &[], None),
    Case("GET", "denied.example/", &[], Some("access")),
    Case("GET", "denied.example/old", &[], Some("access")),
    Case("GET", "denied.example/longer-than-the-forty-bytes-that-limits-allows", &[], None),
    Case("GET", "private.example/", &[], Some("auth")),
    Case("GET", "private.example/old", &[], Some("auth")),
    Case("GET", "private.example/old", KEY, None),
    Case("GET", "private.example/", KEY, None),
];

/// Returns the status of a local reply. A gRPC call gets `UNIMPLEMENTED` (12) in place of 415.
fn status(answer: &Response) -> u16 {
    if answer.header("grpc-status") == "12" { 415 } else { answer.status.as_u16() }
}

#[tokio::test]
async fn explain_says_what_a_real_client_then_gets() {
    let origin = Origin::start().await;
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    let hash = openssl::sha::sha256(KEY[0].1.as_bytes()).map(|byte| format!("{byte:02x}")).concat();
    std::fs::write(&keys, format!("till:{hash}\n")).unwrap();
    let config = CHECKED.replace("KEYS", &keys.display().to_string());
    let config = config.replace("ORIGIN", &origin.address().to_string());
    let gateway = Gateway::start_with_config(&config).await;
    for Case(method, target, fields, unmet) in CASES {
        let (host, path) = target.split_at(target.find('/').unwrap());
        let headers: Value =
            fields.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
        let asked = json!({"method": method, "url": format!("http://{target}"), "headers": headers});
        let explained = gateway.api("POST", "/explain", Some(asked)).await.json();

        origin.forget();
        let body = if fields.iter().any(|(name, _)| *name == "Content-Length") { "123456" } else { "" };
        let fields = fields.iter().filter(|(name, _)| *name != "Content-Length");
        let mut request = Request::builder().method(*method).uri(gateway.url(path)).header("Host", host);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let answer = Client::new().send(request.body(Bytes::from_static(body.as_bytes())).unwrap()).await;

        let conditions = explained["route"]["depends_on"].as_array().cloned().unwrap_or_default();
        let reply = match unmet {
            Some(check) => {
                let condition = conditions.iter().find(|condition| condition["check"] == *check);
                condition.unwrap_or_else(|| panic!("{method} {target}: {explained}"))["refused_with"].clone()
            }
            None => explained["answered"].clone(),
        };
        let is_forwarded = reply.is_null();
        assert!(is_forwarded || reply == status(&answer), "{method} {target}: {answer:?}\n{explained}");
        assert_eq!(origin.received().len(), usize::from(is_forwarded), "{method} {target}");
        if is_forwarded {
            assert_eq!(explained["route"]["upstream_path"], origin.received()[0].uri.path(), "{target}");
        }
    }
}
