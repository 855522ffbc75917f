use std::time::Duration;

use testkit::{Origin, eventually};

use crate::support::{Gateway, Setup};

/// Health checks every second, each of which changes the state.
const QUICK_CHECKS: &str = "[health_check]\npath = \"/health\"\ninterval_secs = 1\ntimeout_secs = 1\n\
                            unhealthy_threshold = 1\nhealthy_threshold = 1\n";

#[tokio::test]
async fn requests_take_turns_over_pooled_connections() {
    let (a, b, c) = (Origin::start().await, Origin::start().await, Origin::start().await);
    let gateway = Gateway::start(&[&a, &b, &c], Setup::default()).await;
    for _ in 0..30 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert_eq!([a.count("/"), b.count("/"), c.count("/")], [10, 10, 10]);
    for i in 0..3 {
        let opened =
            gateway.metric(&format!("proxy_backend_connections_total{{backend=\"origin-{i}\"}}")).await;
        assert_eq!(opened, 1.0, "one after the other, the requests share a connection");
    }
}

#[tokio::test]
async fn a_backend_that_fails_its_probes_gets_nothing_until_it_passes() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let gateway = Gateway::start(&[&a, &b], Setup { tables: QUICK_CHECKS, ..Setup::default() }).await;
    testkit::Client::new().post(format!("http://{}/health/down", a.address()), "").await;
    let status = "health_check_status{backend=\"origin-0\"}";
    eventually!(gateway.metric(status).await == 0.0);
    gateway.process.line("backend is unhealthy").await;
    a.forget();
    for _ in 0..10 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert_eq!((a.count("/"), b.count("/")), (0, 10));

    testkit::Client::new().post(format!("http://{}/health/up", a.address()), "").await;
    eventually!(gateway.metric(status).await == 1.0);
    for _ in 0..10 {
        gateway.get("/").await;
    }
    assert_eq!(a.count("/"), 5);
}

#[tokio::test]
async fn tcp_checks_need_no_path_and_thresholds_count() {
    let mut a = Origin::start().await;
    let tables = "[health_check]\ninterval_secs = 1\nunhealthy_threshold = 2\nhealthy_threshold = 2\n";
    let gateway = Gateway::start(&[&a], Setup { tables, ..Setup::default() }).await;
    let probes = |result: &'static str| {
        let gateway = &gateway;
        async move {
            gateway
                .metric(&format!("health_check_probes_total{{backend=\"origin-0\",result=\"{result}\"}}"))
                .await
        }
    };
    eventually!(probes("passed").await >= 1.0);
    assert_eq!(a.received().len(), 0, "a TCP probe sends nothing");
    a.die().await;
    let status = "health_check_status{backend=\"origin-0\"}";
    let deadline = Duration::from_secs(10);
    eventually!(within deadline, gateway.metric(status).await == 0.0);
    assert!(probes("failed").await >= 2.0);
    let passed = probes("passed").await;
    a.revive();
    eventually!(within deadline, gateway.metric(status).await == 1.0);
    assert!(probes("passed").await >= passed + 2.0);
}

#[tokio::test]
async fn virtual_hosts_have_their_own_backends() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let tables = format!(
        "[[virtual_hosts]]\ndomain = \"B.example\"\nenabled_backends_tag = \"b\"\n\
         [[backends]]\nid = \"b\"\naddress = \"{}\"\ntags = [\"b\"]\n",
        b.address()
    );
    let gateway = Gateway::start(&[&a], Setup { tables: &tables, ..Setup::default() }).await;
    for host in ["b.example", "B.EXAMPLE.:80", "other.example"] {
        let request =
            http::Request::get(gateway.url("/")).header("Host", host).body(bytes::Bytes::new()).unwrap();
        let expected = if host == "other.example" { &a } else { &b };
        let answer = testkit::Client::new().send(request).await;
        assert_eq!(answer.header("x-origin"), expected.label(), "{host}");
    }
}

/// Starts a gateway over three backends with these weights and one algorithm, without health checks.
async fn weighted(origins: &[&Origin], weights: &[u32], balancing: &str) -> Gateway {
    let mut config = crate::support::config(
        &[],
        Setup {
            tables: &format!("[health_check]\nenabled = false\n[balancing]\n{balancing}\n"),
            ..Setup::default()
        },
    );
    for (i, (origin, weight)) in origins.iter().zip(weights).enumerate() {
        config += &format!(
            "[[backends]]\nid = \"origin-{i}\"\naddress = \"{}\"\ntags = [\"all\"]\nweight = {weight}\n",
            origin.address()
        );
    }
    Gateway::start_with_config(&config).await
}

#[tokio::test]
async fn weights_are_shares_and_never_come_in_a_row() {
    let (a, b, c) = (Origin::start().await, Origin::start().await, Origin::start().await);
    let gateway = weighted(&[&a, &b, &c], &[5, 1, 1], "algorithm = \"weighted\"").await;
    let mut heavy_in_a_row = 0;
    for _ in 0..70 {
        let answered_by = gateway.get("/").await.header("x-origin").to_owned();
        heavy_in_a_row = if answered_by == a.label() { heavy_in_a_row + 1 } else { 0 };
        assert!(heavy_in_a_row < 5, "five in a row");
    }
    assert_eq!([a.count("/"), b.count("/"), c.count("/")], [50, 10, 10]);
}

#[tokio::test]
async fn the_one_with_the_fewest_requests_is_asked() {
    for algorithm in ["least_connections", "random_two_choices"] {
        let (a, b) = (Origin::start().await, Origin::start().await);
        let gateway = weighted(&[&a, &b], &[3, 1], &format!("algorithm = \"{algorithm}\"")).await;
        a.behave(testkit::Behaviour::Stall);
        b.behave(testkit::Behaviour::Stall);
        let url = gateway.url("/stalled");
        let stalled: Vec<_> = (0..40)
            .map(|_| {
                let url = url.clone();
                tokio::spawn(async move { testkit::Client::new().status(url).await })
            })
            .collect();
        eventually!(a.count("/stalled") + b.count("/stalled") == 40, "{algorithm}");
        // The backend with three times the weight gets three times the requests in flight. With two random
        // choices, a quarter of the choices is left to chance.
        let heavy = a.count("/stalled");
        let expected = if algorithm == "least_connections" { 28..=32 } else { 24..=34 };
        assert!(expected.contains(&heavy), "{algorithm}: {heavy} of 40");
        stalled.iter().for_each(|task| task.abort());
    }
}

#[tokio::test]
async fn the_same_key_gets_the_same_backend() {
    let origins = [Origin::start().await, Origin::start().await, Origin::start().await];
    let [a, b, c] = &origins;
    let balancing = "algorithm = \"consistent_hash\"\nhash_key = \"header:X-User\"";
    let gateway = weighted(&[a, b, c], &[1, 1, 1], balancing).await;
    let ask = async |user: &str| {
        let request = http::Request::get(gateway.url("/")).header("X-User", user);
        testkit::Client::new()
            .send(request.body(bytes::Bytes::new()).unwrap())
            .await
            .header("x-origin")
            .to_owned()
    };
    let mut owners = std::collections::HashSet::new();
    for user in 0..20 {
        let owner = ask(&user.to_string()).await;
        assert_eq!(ask(&user.to_string()).await, owner);
        owners.insert(owner);
    }
    assert!(owners.len() > 1, "twenty users, one backend");
    let without: Vec<String> = [gateway.get("/").await, gateway.get("/").await]
        .iter()
        .map(|answer| answer.header("x-origin").to_owned())
        .collect();
    assert_eq!(without[0], without[1], "without the field it is the client's address");
}

#[tokio::test]
async fn a_cookie_keeps_a_client_with_its_backend_until_that_is_gone() {
    let (mut a, mut b) = (Origin::start().await, Origin::start().await);
    let gateway = weighted(&[&a, &b], &[1, 1], "sticky_cookie = \"at\"").await;
    let first = gateway.get("/").await;
    let set = first.header("set-cookie").to_owned();
    assert!(set.starts_with("at=") && set.contains("HttpOnly"), "{set}");
    assert!(!set.contains("origin-"), "it says nothing about the backends");
    let cookie = set.split(';').next().unwrap().to_owned();
    let ask = async |cookie: &str| {
        let request = http::Request::get(gateway.url("/")).header("Cookie", cookie);
        testkit::Client::new().send(request.body(bytes::Bytes::new()).unwrap()).await
    };
    for _ in 0..6 {
        let again = ask(&cookie).await;
        assert_eq!(again.header("x-origin"), first.header("x-origin"));
        assert_eq!(again.header("set-cookie"), "", "it has one already");
    }
    let forged = ask(&cookie.replace("at=", "at=0")).await;
    assert_ne!(forged.header("set-cookie"), "", "what was not signed counts as none");
    let (gone, other) = if first.header("x-origin") == a.label() { (&mut a, &b) } else { (&mut b, &a) };
    gone.die().await;
    let elsewhere = ask(&cookie).await;
    assert_eq!((elsewhere.status.as_u16(), elsewhere.header("x-origin")), (200, other.label().as_str()));
    assert!(elsewhere.header("set-cookie").starts_with("at="), "it is told where it is now");
}

#[tokio::test]
async fn a_backup_is_used_only_where_no_other_is_usable() {
    let (mut a, backup) = (Origin::start().await, Origin::start().await);
    let config = crate::support::config(&[a.address()], Setup { tables: QUICK_CHECKS, ..Setup::default() });
    let config = format!(
        "{config}[[backends]]\nid = \"backup\"\naddress = \"{}\"\ntags = [\"all\"]\nbackup = true\n",
        backup.address()
    );
    let gateway = Gateway::start_with_config(&config).await;
    for _ in 0..10 {
        assert_eq!(gateway.get("/").await.header("x-origin"), a.label());
    }
    a.die().await;
    for _ in 0..10 {
        assert_eq!(gateway.get("/").await.header("x-origin"), backup.label());
    }
    // The circuit of the backend is open by now. A probe that fails and then passes lets the circuit try a
    // request soon.
    eventually!(gateway.metric("health_check_status{backend=\"origin-0\"}").await == 0.0);
    a.revive();
    eventually!(gateway.get("/").await.header("x-origin") == a.label(), "it is not used any longer");
}

#[tokio::test]
async fn with_too_few_healthy_ones_all_are_used() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let tables = format!("{QUICK_CHECKS}panic_threshold_percent = 60\n");
    let gateway = Gateway::start(&[&a, &b], Setup { tables: &tables, ..Setup::default() }).await;
    testkit::Client::new().post(format!("http://{}/health/down", a.address()), "").await;
    eventually!(gateway.metric("health_check_status{backend=\"origin-0\"}").await == 0.0);
    a.forget();
    for _ in 0..4 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert_eq!(a.count("/"), 2, "one of two is below 60 percent, so both are used");
}

#[tokio::test]
async fn a_backend_that_comes_back_gets_its_share_slowly() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let tables = format!("{QUICK_CHECKS}slow_start_secs = 600\n");
    let gateway = Gateway::start(&[&a, &b], Setup { tables: &tables, ..Setup::default() }).await;
    let client = testkit::Client::new();
    let status = "health_check_status{backend=\"origin-0\"}";
    client.post(format!("http://{}/health/down", a.address()), "").await;
    eventually!(gateway.metric(status).await == 0.0);
    client.post(format!("http://{}/health/up", a.address()), "").await;
    eventually!(gateway.metric(status).await == 1.0);
    a.forget();
    b.forget();
    for _ in 0..200 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert!((1..50).contains(&a.count("/")), "a tenth of its half at first, not half: {}", a.count("/"));
}

#[tokio::test]
async fn one_address_in_several_pools_is_probed_once() {
    let origin = Origin::start().await;
    let same = "[virtual_hosts.health_check]\npath = \"/health\"\ninterval_secs = 2\n";
    let tables = format!(
        "[health_check]\npath = \"/health\"\ninterval_secs = 2\n\
         [[virtual_hosts]]\ndomain = \"a\"\nenabled_backends_tag = \"a\"\n\
         [[virtual_hosts]]\ndomain = \"b\"\nenabled_backends_tag = \"b\"\n\
         [virtual_hosts.health_check]\npath = \"/anything\"\ninterval_secs = 2\n\
         [[virtual_hosts]]\ndomain = \"c\"\nenabled_backends_tag = \"a\"\n{same}\
         [[virtual_hosts]]\ndomain = \"d\"\nenabled_backends_tag = \"b\"\n{same}\
         [[virtual_hosts]]\ndomain = \"e\"\nenabled_backends_tag = \"a\"\n{same}\
         [[backends]]\nid = \"shared\"\naddress = \"{}\"\ntags = [\"a\", \"b\"]\n",
        origin.address()
    );
    let dead = Origin::dead();
    let gateway = Gateway::start(&[&dead], Setup { tables: &tables, ..Setup::default() }).await;
    eventually!(origin.count("/health") >= 2);
    let (own, other) = (origin.count("/health"), origin.count("/anything"));
    assert!(own.abs_diff(other) <= 1, "one probe for each table, not for each pool: {own} and {other}");
    let sent = gateway.metric("health_check_probes_total{backend=\"shared\",result=\"passed\"}").await;
    assert!(sent >= 3.0, "{sent}");
}
