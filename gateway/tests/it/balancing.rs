use std::time::Duration;

use testkit::{Origin, eventually};

use crate::support::{Gateway, Setup};

/// Probes every second, and believes each one.
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
