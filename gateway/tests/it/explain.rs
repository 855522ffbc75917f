use serde_json::Value;
use testkit::Process;

use crate::support::{ConfigFile, GATEWAY};

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
  policies      health_check (default), balancing (default), upstream (default), retry (route), \
                  circuit_breaker (default), access (default), auth (default), rate_limit (top), headers (default), security_headers (default)
  path          /users
  pool          api
  backend       api-1 127.0.0.1:3002 usable
  backend       api-2 127.0.0.1:3003 usable
  algorithm     round_robin
  next          api-1";
    assert_eq!((code, said.as_str()), (Some(0), expected));
}

#[tokio::test]
async fn a_program_reads_the_same_as_json() {
    let answer = json(&["POST", "http://a.shop.example.com/%61pi//x"]).await;
    assert_eq!(answer["virtual_host"], "app.example.com");
    assert_eq!(answer["path"], "/api/x");
    assert_eq!(answer["route"]["name"], "/api POST");
    assert_eq!(answer["route"]["next"], "site-1");
    assert_eq!(answer["route"]["policies"][3], serde_json::json!({"name": "retry", "from": "virtual_host"}));
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
async fn what_the_gateway_answers_itself_is_said() {
    let unknown = json(&["GET", "http://elsewhere/"]).await;
    assert_eq!((&unknown["answered"], &unknown["virtual_host"]), (&404.into(), &Value::Null));
    let moved = json(&["GET", "http://app.example.com/old/x"]).await;
    assert_eq!(
        (&moved["answered"], &moved["route"]["redirect"]),
        (&308.into(), &"https://new.example.com/".into())
    );
}

#[tokio::test]
async fn what_cannot_be_asked_is_an_error() {
    let (code, said) = explain(&["GET", "/api"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("'/api': there is no host; expected http://host/path"), "{said}");
    for wrong in
        [&["G E T", "http://a/"][..], &["GET"], &["GET", "http://a/", "-H", "X-Beta"], &["GET", "h t"]]
    {
        let (code, said) = explain(wrong).await;
        assert_eq!(code, Some(2), "{wrong:?}: {said}");
    }
}
