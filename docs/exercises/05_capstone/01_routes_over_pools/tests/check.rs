//! Checks that a good file becomes a gateway with routes over pools, and that a bad one gets all its faults told.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use ex0501::config::Config;
use ex0501::live::Live;
use ex0501::proxy::Gateway;
use http::Request;
use support::{PROXY, file};
use testkit::{Client, Origin, expect, serve};

/// Route from every path to the tag `all`.
const ALL: [(&str, &str); 1] = [("/", "all")];

/// Address that no test connects to.
fn nowhere() -> SocketAddr {
    ([127, 0, 0, 1], 9).into()
}

/// Returns the faults for which `text` is refused, a line each.
fn faults(text: &str) -> String {
    Config::parse(text).err().map_or_else(|| "(no fault at all)".to_owned(), |faults| faults.join("\n"))
}

#[tokio::test]
async fn requests_go_to_the_pool_of_their_route() {
    let (a, b, api) = (Origin::start().await, Origin::start().await, Origin::start().await);
    let backends = [("site", a.address()), ("api", api.address()), ("site", b.address())];
    let text = file(PROXY, "", &[("/anything", "site"), ("/anything/api", "api")], &backends);
    let config = Config::parse(&text);
    expect!(config.as_ref().err(), None::<&Vec<String>>, "the faults of a file without a fault:\n{text}");
    let proxy = serve(Gateway::new(Arc::new(Live::new(config.unwrap()))));
    let client = Client::new();
    for path in ["/anything", "/anything/apis", "/anything/x", "/anything?q"] {
        expect!(client.status(proxy.url(path)).await, Ok(200), "GET {path}");
    }
    let counts = [a.received().len(), b.received().len(), api.received().len()];
    expect!(counts, [2, 2, 0], "how many of four requests for the pool `site` each backend got");
    expect!(client.status(proxy.url("/anything/api/1")).await, Ok(200), "GET /anything/api/1");
    expect!(api.received().len(), 1, "how many requests the pool of the longest path got");
    expect!(client.status(proxy.url("/")).await, Ok(404), "GET /, for which there is no route");

    let request = Request::get(proxy.url("/anything")).header("X-Forwarded-For", "192.0.2.1");
    client.send(request.body(Default::default()).unwrap()).await;
    let seen = a.received().pop().unwrap();
    expect!(seen.header("x-forwarded-for"), "127.0.0.1", "X-Forwarded-For, which the client had forged");
}

#[test]
fn an_unknown_key_is_named_in_each_table() {
    let good = file(PROXY, "", &ALL, &[("all", nowhere())]);
    for (table, place) in [
        ("at the top", "[proxy]\n"),
        ("in [proxy]", "listen_addr_http"),
        ("in [policy]", "\n[[routes]]"),
        ("in [[routes]]", "path_prefix"),
        ("in [[backends]]", "address"),
    ] {
        let text = good.replacen(place, &format!("adress = 1\n{place}"), 1);
        expect!(faults(&text), contains "adress", "the faults of a file with an unknown key {table}:\n{text}");
    }
}

#[test]
fn a_text_that_is_not_toml_is_refused() {
    expect!(faults("[proxy"), contains "TOML", "the faults of a file in which a bracket is missing");
}

#[test]
fn each_number_must_not_be_zero() {
    for key in [
        "health_check_interval_secs",
        "retry_attempts",
        "circuit_breaker_failures",
        "circuit_breaker_open_secs",
        "rate_limit_window_secs",
    ] {
        let text = file(PROXY, &format!("{key} = 0"), &ALL, &[("all", nowhere())]);
        expect!(faults(&text), contains key, "the faults of a file with {key} = 0");
    }
    let text = file(&PROXY.replace("= 10", "= 0"), "", &ALL, &[("all", nowhere())]);
    expect!(faults(&text), contains "shutdown_timeout_secs", "the faults of a file with shutdown_timeout_secs = 0");
    let none =
        file(PROXY, "max_request_body_bytes = 0\nrate_limit_requests = 0", &ALL, &[("all", nowhere())]);
    expect!(faults(&none), "(no fault at all)", "the faults of a file that allows no bodies and no requests");
}

#[test]
fn names_that_are_used_twice_or_resolve_to_nothing_are_refused() {
    let three = [("all", nowhere()), ("all", nowhere()), ("all", nowhere())];
    let text = file(PROXY, "", &ALL, &three).replace("backend-2", "backend-0");
    expect!(faults(&text), contains "backend-0", "the faults of a file in which two backends have the same id");
    let text = file(PROXY, "", &[("/x", "all"), ("/y", "all"), ("/x", "all")], &three);
    expect!(faults(&text), contains "/x", "the faults of a file in which two routes have the same path");
    let text = file(PROXY, "", &[("/", "all"), ("/api", "apis")], &three);
    expect!(faults(&text), contains "apis", "the faults of a file in which no backend has a route's tag");
    let text = file(PROXY, "", &[("api/", "all")], &three);
    expect!(faults(&text), contains "api/", "the faults of a file in which a path does not begin with '/'");
    let text = file(&PROXY.replace("127.0.0.1:2", "127.0.0.1:1"), "", &ALL, &three);
    expect!(faults(&text), contains "addr", "the faults of a file in which two listeners have the same address");
    let idle = file(PROXY, "", &ALL, &[("all", nowhere()), ("spare", nowhere())]);
    expect!(
        faults(&idle),
        "(no fault at all)",
        "the faults of a file in which a backend waits for its route"
    );
}

#[test]
fn all_faults_are_told_at_once() {
    let text = file(
        &PROXY.replace("= 10", "= 0"),
        "retry_attempts = 0",
        &[("api", "all"), ("/", "none")],
        &[("all", nowhere()), ("all", nowhere())],
    );
    let faults = faults(&text.replace("backend-1", "backend-0"));
    for part in ["shutdown_timeout_secs", "retry_attempts", "api", "none", "backend-0"] {
        expect!(faults, contains part, "the faults of a file with five of them, among them {part}");
    }
    expect!(faults.lines().count(), 5, "how many faults a file with five of them has");
}
