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
    expect!(found(&["/api"], "/api"), Some("/api"), "of /api, the route of /api");
    expect!(found(&["/api"], "/api/users"), Some("/api"), "of /api, the route of /api/users");
    expect!(found(&["/api"], "/apix"), None, "of /api, the route of /apix, which is another word");
    expect!(found(&["/api"], "/"), None, "of /api, the route of /");
    expect!(found(&["/"], "/anything"), Some("/"), "of /, the route of /anything");
    expect!(found(&["/static/"], "/static/logo"), Some("/static/"), "of /static/, the route of /static/logo");
}

#[test]
fn the_longest_prefix_wins_in_any_order() {
    for prefixes in [["/", "/api", "/api/v2"], ["/api/v2", "/api", "/"], ["/api", "/", "/api/v2"]] {
        let what = prefixes.join(" ");
        expect!(found(&prefixes, "/api/v2/users"), Some("/api/v2"), "of {what}, the route of /api/v2/users");
        expect!(found(&prefixes, "/api/v20"), Some("/api"), "of {what}, the route of /api/v20");
        expect!(found(&prefixes, "/apiary"), Some("/"), "of {what}, the route of /apiary");
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
    expect!(answer.header("x-origin"), api.label(), "who answers /anything/users");
    let answer = client.get(proxy.url("/anything?page=2")).await;
    expect!(answer.status, 200, "GET /anything?page=2: the query is no part of the path");
    let answer = client.get(proxy.url("/status/204")).await;
    expect!(answer.header("x-origin"), site.label(), "who answers /status/204");
    expect!(client.get(proxy.url("/nowhere")).await.status, 404, "GET /nowhere, for which there is no route");
}
