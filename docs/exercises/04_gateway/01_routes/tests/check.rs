//! Checks that the longest prefix wins, that words are not cut, and that a path without a route gives 404.

use ex0401::{Route, Router};
use testkit::{Client, Origin, expect, serve};

/// Returns the prefix of the route that a router with `prefixes` finds for `path`.
fn found(prefixes: &[&'static str], path: &str) -> Option<&'static str> {
    let nowhere = ([127, 0, 0, 1], 1).into();
    let routes = prefixes.iter().map(|prefix| Route { prefix, upstream: nowhere }).collect();
    Router { routes }.find(path).map(|route| route.prefix)
}

#[test]
fn a_prefix_matches_itself_and_what_is_below() {
    expect!(found(&["/api"], "/api"), Some("/api"), "the route for /api out of [/api]");
    expect!(found(&["/api"], "/api/users"), Some("/api"), "the route for /api/users out of [/api]");
    expect!(found(&["/api"], "/apix"), None, "the route for /apix, another word, out of [/api]");
    expect!(found(&["/api"], "/"), None, "the route for / out of [/api]");
    expect!(
        found(&["/api"], "/v1/api"),
        None,
        "the route for /v1/api, which does not begin so, out of [/api]"
    );
    expect!(found(&["/api"], "/API"), None, "the route for /API, another path, out of [/api]");
    expect!(found(&["/"], "/anything"), Some("/"), "the route for /anything out of [/]");
    expect!(
        found(&["/static/"], "/static/logo"),
        Some("/static/"),
        "the route for /static/logo out of [/static/]"
    );
}

#[test]
fn the_longest_prefix_wins_in_any_order() {
    for prefixes in [["/", "/api", "/api/v2"], ["/api/v2", "/api", "/"], ["/api", "/", "/api/v2"]] {
        let what = prefixes.join(" ");
        expect!(
            found(&prefixes, "/api/v2/users"),
            Some("/api/v2"),
            "the route for /api/v2/users out of [{what}]"
        );
        expect!(found(&prefixes, "/api/v20"), Some("/api"), "the route for /api/v20 out of [{what}]");
        expect!(found(&prefixes, "/apiary"), Some("/"), "the route for /apiary out of [{what}]");
    }
}

#[tokio::test]
async fn requests_go_where_their_route_says() {
    let (site, api) = (Origin::start().await, Origin::start().await);
    let routes = vec![
        Route { prefix: "/status", upstream: site.address() },
        Route { prefix: "/anything", upstream: api.address() },
    ];
    let proxy = serve(Router { routes });
    let client = Client::new();
    let answer = client.get(proxy.url("/anything/users?page=2")).await;
    expect!(answer.status, 200, "GET /anything/users?page=2, for which there is a route");
    expect!(answer.header("x-origin"), api.label(), "which upstream answers /anything/users");
    let answer = client.get(proxy.url("/anything?page=2")).await;
    expect!(answer.status, 200, "GET /anything?page=2: the query is not part of the path");
    let answer = client.get(proxy.url("/status/204")).await;
    expect!(answer.header("x-origin"), site.label(), "which upstream answers /status/204");
    expect!(client.get(proxy.url("/nowhere")).await.status, 404, "GET /nowhere, for which there is no route");
    let asked = [site.count("/nowhere"), api.count("/nowhere")];
    expect!(asked, [0, 0], "how many requests for /nowhere each upstream got");
}
