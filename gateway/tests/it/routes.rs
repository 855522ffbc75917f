use bytes::Bytes;
use http::Request;
use testkit::{Client, Origin, Response};

use crate::support::Gateway;

/// Starts a gateway with these virtual hosts over three origins with the tags `site`, `api` and `new`.
async fn start(hosts: &str) -> (Gateway, [Origin; 3]) {
    let origins = [Origin::start().await, Origin::start().await, Origin::start().await];
    let mut config = format!(
        "[proxy]\nlisten_addr_http = \"127.0.0.1:0\"\nmanagement_api_addr = \"127.0.0.1:0\"\n[metrics]\nlisten_addr = \"127.0.0.1:0\"\n{hosts}"
    );
    for (tag, origin) in ["site", "api", "new"].iter().zip(&origins) {
        let address = origin.address();
        config += &format!("[[backends]]\nid = \"{tag}-1\"\naddress = \"{address}\"\ntags = [\"{tag}\"]\n");
    }
    (Gateway::start_with_config(&config).await, origins)
}

async fn ask(gateway: &Gateway, method: &str, host: &str, path: &str, fields: &[(&str, &str)]) -> Response {
    let mut request = Request::builder().method(method).uri(gateway.url(path)).header("Host", host);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    Client::new().send(request.body(Bytes::new()).unwrap()).await
}

const HOSTS: &str = r#"
[[virtual_hosts]]
domain = "app.example.com"
aliases = ["www.example.com", "*.shop.example.com"]
enabled_backends_tag = "site"
    [[virtual_hosts.routes]]
    path_prefix = "/anything/api"
    enabled_backends_tag = "api"
    [virtual_hosts.routes.headers]
    response_set = { "X-Route" = "api" }
    [[virtual_hosts.routes]]
    path_prefix = "/anything/api"
    methods = ["POST"]
    enabled_backends_tag = "new"
    [[virtual_hosts.routes]]
    path = "/anything/api/only"
    enabled_backends_tag = "new"
    [[virtual_hosts.routes]]
    header_match = { "X-Beta" = "1" }
    enabled_backends_tag = "new"
    [[virtual_hosts.routes]]
    path_prefix = "/stripped"
    strip_prefix = true
    [[virtual_hosts.routes]]
    path_regex = "^/v([0-9]+)/"
    rewrite = "/anything/version-$1/"
    [[virtual_hosts.routes]]
    path_prefix = "/old"
    redirect = "https://new.example.com/"

[[virtual_hosts]]
domain = "*.example.com"
enabled_backends_tag = "api"
"#;

#[tokio::test]
async fn hosts_are_exact_aliases_or_wildcards_and_others_unknown() {
    let (gateway, [site, api, _]) = start(HOSTS).await;
    for (host, origin) in [
        ("app.example.com", &site),
        ("APP.Example.com.:8080", &site),
        ("www.example.com", &site),
        ("a.shop.example.com", &site),
        ("b.a.shop.example.com", &site),
        ("other.example.com", &api),
        ("shop.example.com", &api),
    ] {
        assert_eq!(ask(&gateway, "GET", host, "/", &[]).await.header("x-origin"), origin.label(), "{host}");
    }
    for host in ["example.com", "elsewhere", "127.0.0.1"] {
        let answer = ask(&gateway, "GET", host, "/", &[]).await;
        assert_eq!(answer.status, 404, "{host}");
        assert_eq!(answer.json()["type"], "urn:problem-type:gateway:unknown_host");
    }
}

#[tokio::test]
async fn routes_go_by_path_method_and_header_fields() {
    let (gateway, [site, api, new]) = start(HOSTS).await;
    let beta = [("X-Beta", "1")];
    for (method, path, fields, origin) in [
        ("GET", "/anything/api", &[][..], &api),
        ("GET", "/anything/api/users?page=2", &[], &api),
        ("GET", "/anything/apix", &[], &site),
        ("GET", "/anything", &[], &site),
        ("POST", "/anything/api/users", &[], &new),
        ("GET", "/anything/api/only", &[], &new),
        ("GET", "/anything/api/only/not", &[], &api),
        ("GET", "/anything", &beta, &new),
        ("GET", "/anything/api", &beta, &api),
        ("GET", "/anything/%61pi/users", &[], &api),
    ] {
        let answer = ask(&gateway, method, "app.example.com", path, fields).await;
        assert_eq!(answer.status, 200, "{method} {path}");
        assert_eq!(answer.header("x-origin"), origin.label(), "{method} {path} {fields:?}");
    }
}

#[tokio::test]
async fn a_routes_own_table_wins_and_it_is_counted_under_its_name() {
    let (gateway, _origins) = start(HOSTS).await;
    let answer = ask(&gateway, "GET", "app.example.com", "/anything/api", &[]).await;
    assert_eq!(answer.header("x-route"), "api");
    let answer = ask(&gateway, "GET", "app.example.com", "/anything", &[]).await;
    assert_eq!(answer.header("x-route"), "");
    let series = |route: &str| {
        format!("proxy_requests_total{{method=\"GET\",route=\"{route}\",vhost=\"app.example.com\"}}")
    };
    assert_eq!(gateway.metric(&series("/anything/api")).await, 1.0);
    assert_eq!(gateway.metric(&series("/")).await, 1.0);
}

#[tokio::test]
async fn paths_are_changed_on_the_way_up() {
    let (gateway, _origins) = start(HOSTS).await;
    for (path, seen, query) in [
        ("/stripped/anything/a?b=c", "/anything/a", "b=c"),
        ("/stripped/anything", "/anything", ""),
        ("/v12/users?page=2", "/anything/version-12/users", "page=2"),
        ("/stripped//anything/x/../y", "/anything/y", ""),
    ] {
        let answer = ask(&gateway, "GET", "app.example.com", path, &[]).await.json();
        assert_eq!((&answer["path"], &answer["query"]), (&seen.into(), &query.into()), "{path}");
    }
    let whole = ask(&gateway, "GET", "app.example.com", "/stripped", &[]).await;
    assert!(whole.text().starts_with("hello from origin"), "{whole:?}");
}

const TEMPLATES: &str = r#"
[[virtual_hosts]]
domain = "app.example.com"
enabled_backends_tag = "site"
    [[virtual_hosts.routes]]
    path_regex = "^/blog/(?<id>[0-9]+)/(.*)$"
    redirect = "https://blog.example.com/${id}_old/$2?$query"
    redirect_status = 301
    [[virtual_hosts.routes]]
    path_regex = "^/open(.*)$"
    redirect = "/$1"
    redirect_status = 302
    [[virtual_hosts.routes]]
    path_prefix = "/moved"
    redirect = "$scheme://www.$host$path?from=$host"
    [[virtual_hosts.routes]]
    path_regex = "^/f([^/]*)(/.*)?$"
    rewrite = "/anything/$1_old$2"
"#;

#[tokio::test]
async fn a_redirect_is_made_from_the_request_and_stays_on_its_host() {
    let (gateway, _) = start(TEMPLATES).await;
    for (path, status, location) in [
        ("/blog/42/a%20b?x=1&y=%0d%0aZ:1", 301, "https://blog.example.com/42_old/a%20b?x=1&y=%0d%0aZ:1"),
        ("/blog/42/a", 301, "https://blog.example.com/42_old/a"),
        ("/open//evil.example/x", 302, "/evil.example/x"),
        ("/open/evil.example", 302, "/evil.example"),
        ("/open%2Fevil.example", 302, "/%2Fevil.example"),
        ("/moved/x?y", 308, "http://www.app.example.com/moved/x?from=app.example.com"),
    ] {
        let answer = ask(&gateway, "GET", "app.example.com", path, &[]).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (status, location), "{path}");
    }
}

#[tokio::test]
async fn rewrite_with_groups_makes_the_path_and_rejects_dots() {
    let (gateway, origins) = start(TEMPLATES).await;
    let seen = |path: &'static str| {
        let gateway = &gateway;
        async move {
            let answer = ask(gateway, "GET", "app.example.com", path, &[]).await;
            let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            (answer.status.as_u16(), body["path"].as_str().unwrap_or_default().to_owned())
        }
    };
    assert_eq!(seen("/fab/x?y").await, (200, "/anything/ab_old/x".to_owned()));
    assert_eq!(seen("/f").await, (200, "/anything/_old".to_owned()));
    assert_eq!(seen("/fa/..x").await, (200, "/anything/a_old/..x".to_owned()));
    let (gateway, _) = start(&TEMPLATES.replace("/anything/$1_old$2", "/anything/$1$2")).await;
    let answer = ask(&gateway, "GET", "app.example.com", "/f../secret", &[]).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.text().contains("could resolve to another path"), "{answer:?}");
    assert!(origins.iter().all(|origin| origin.count("/secret") + origin.count("/anything/../secret") == 0));
}

#[tokio::test]
async fn a_redirect_is_308_and_bothers_no_backend() {
    let (gateway, origins) = start(HOSTS).await;
    let answer = ask(&gateway, "POST", "app.example.com", "/old/any?x=1", &[]).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (308, "https://new.example.com/"));
    assert_eq!(answer.header("x-request-id").len(), 36);
    assert!(answer.body.is_empty());
    assert!(origins.iter().all(|origin| origin.count("/old/any") == 0));
}
