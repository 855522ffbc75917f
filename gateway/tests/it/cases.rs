use serde_json::json;
use testkit::{Behaviour, Origin, Process, Signal, dead_address};

use crate::support::{ConfigFile, GATEWAY, Gateway, two_tags};

const CASES: &str = r#"
[[virtual_hosts.routes]]
path_prefix = "/api"
strip_prefix = true
enabled_backends_tag = "b"
[[virtual_hosts.routes]]
path = "/beta"
header_match = { "X-Beta" = "1" }
[[virtual_hosts.routes]]
path = "/old"
redirect = "/new"
[[virtual_hosts.routes]]
path_regex = "^/blog/([0-9]+)/(.*)$"
redirect = "/$1_old/$2?$query"
redirect_status = 302
[[tests]]
request = "GET http://shop.example/api/x"
expect = { virtual_host = "shop.example", route = "/api", tag = "b", path = "/x" }
[[tests]]
request = "GET http://shop.example/beta"
headers = { "X-Beta" = "1" }
expect = { route = "= /beta x-beta=1", tag = "a" }
[[tests]]
request = "GET http://shop.example/old"
expect = { redirect = "/new", status = 308 }
[[tests]]
request = "GET http://other.example/"
expect = { status = 404 }
[[tests]]
request = "GET http://shop.example/blog/42/a?b"
expect = { redirect = "/42_old/a?b", status = 302 }
"#;

fn text() -> String {
    two_tags(dead_address(), dead_address(), CASES)
}

async fn check(text: &str, more: &[&str]) -> (Option<i32>, String) {
    let file = ConfigFile::new(text);
    let path = file.path().display().to_string();
    let (code, said) = Process::run(GATEWAY, &[&["check", "-c", &path], more].concat(), &[]).await;
    (code, said.replace(&path, "file"))
}

#[tokio::test]
async fn passing_tests_are_ok_and_failing_ones_named_with_line() {
    assert_eq!(check(&text(), &[]).await, (Some(0), "ok".to_owned()));
    let broken = text().replace("path_prefix = \"/api\"", "path_prefix = \"/app\"");
    let (code, said) = check(&broken, &[]).await;
    let line = broken.lines().position(|line| line.contains("/api/x")).unwrap();
    let expected = format!(
        "file:{line}:1: the test of GET http://shop.example/api/x fails: \
         route is \"/\", expected \"/api\"; tag is \"a\", expected \"b\"; path is \"/api/x\", expected \"/x\""
    );
    assert_eq!((code, said), (Some(1), expected));
    let nowhere =
        text().replace("/old\"\nexpect", "/moved\"\nexpect").replace("other.example", "shop.example");
    let (_, said) = check(&nowhere, &[]).await;
    assert!(said.contains("redirect is none, expected \"/new\"; status is none, expected \"308\""), "{said}");
    assert!(said.contains("status is none, expected \"404\""), "{said}");
}

#[tokio::test]
async fn each_tag_of_a_split_satisfies_a_test() {
    let shared = text().replace("# the shop", "\nsplit = [{ tag = \"b\", percent = 50 }]");
    assert_eq!(check(&shared, &[]).await.0, Some(0));
    assert_eq!(check(&shared.replace("tag = \"a\" }", "tag = \"b\" }"), &[]).await.0, Some(0));
}

#[tokio::test]
async fn a_case_without_sense_is_refused() {
    for (case, says) in [
        ("request = \"GET /x\"\nexpect = { tag = \"a\" }", "'GET /x' is not a valid request"),
        ("request = \"http://a/\"\nexpect = { tag = \"a\" }", "'http://a/' is not a valid request"),
        ("expect = { tag = \"a\" }", "a test needs a `request`"),
        ("request = \"GET http://a/\"", "a test needs something to `expect`"),
        ("request = \"GET http://a/\"\nexpect = { tga = \"a\" }", "unknown key `tga` (did you mean `tag`?)"),
    ] {
        let (code, said) = check(&format!("{}[[tests]]\n{case}\n", text()), &[]).await;
        assert_eq!(code, Some(1), "{case}");
        assert!(said.contains(says), "{case}: {said}");
    }
}

#[tokio::test]
async fn change_that_breaks_a_test_is_refused_by_api_and_reload() {
    let gateway = Gateway::start_with_config(&text()).await;
    let routes = json!({"routes": [{"path_prefix": "/app", "enabled_backends_tag": "b"}]});
    let refused = gateway.api("PUT", "/domains/shop.example", Some(routes)).await;
    assert_eq!(refused.status, 422);
    let detail = refused.json()["errors"][0]["detail"].to_string();
    assert!(detail.contains("the test of GET http://shop.example/api/x fails: "), "{detail}");
    assert!(detail.contains("(at /tests/0 of the configuration)"), "{detail}");

    gateway.edit(&text().replace("path = \"/old\"", "path = \"/older\""));
    gateway.process.signal(Signal::SIGHUP);
    let line = gateway.process.line("was not applied").await;
    assert!(line.contains("the test of GET http://shop.example/old fails"), "{line}");
    assert_eq!(gateway.read("/config/history").await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn check_says_what_a_file_would_change() {
    let gateway = Gateway::start_with_config(&text()).await;
    let running = std::fs::read_to_string(gateway.file()).unwrap();
    let changed = running
        .replace("domain = \"shop.example\"", "domain = \"shop.example\"\naliases = [\"store.example\"]")
        .replace("strip_prefix = true", "strip_prefix = true\nretry = { attempts = 1 }")
        .replace("id = \"web-a\"", "id = \"web-1\"");
    let url = format!("http://{}", gateway.management);
    let (code, said) = check(&changed, &["--against", &url]).await;
    assert_eq!(code, Some(0), "{said}");
    let expected = [
        "+ virtual host shop.example aliases = [\"store.example\"]",
        "+ virtual host shop.example route /api retry = {\"attempts\":1,",
        "+ backend web-1 {\"id\":\"web-1\",",
        "- backend web-a",
        "ok",
    ];
    assert_eq!(said.lines().count(), expected.len(), "{said}");
    for (line, begins) in said.lines().zip(expected) {
        assert!(line.starts_with(begins), "{said}");
    }
    let file = gateway.file().display().to_string();
    assert_eq!(check(&changed, &["--against", &file]).await.1, said);
    assert_eq!(check(&running, &["--against", &url]).await.1, "no change\nok");

    let nobody = format!("http://{}", testkit::free_address());
    let (code, said) = check(&running, &["--against", &nobody]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains(&format!("--against {nobody}/api/v1/config: ")), "{said}");
    // An unrelated server that also answers with JSON.
    let other = Origin::start().await;
    other.behave(Behaviour::Chunks(&["[]"]));
    let (code, said) = check(&running, &["--against", &format!("http://{}", other.address())]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("it has no `virtual_hosts`"), "{said}");
    let (code, said) = check(&running, &["--against", "/nowhere.toml"]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("--against: /nowhere.toml: cannot read"), "{said}");
}
