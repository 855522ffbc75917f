//! Checks that a reload happens completely or not at all, and forgets nothing; and that the whole gateway, as a
//! process, holds what the tests of the real one demand (`gateway/tests/it`: `failover`, `circuit`, `replies`,
//! `metrics`, `reload` and `stopping`).

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../../01_routes_over_pools/tests/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ex0505::config::Config;
use ex0505::live::Live;
use ex0505::proxy::Gateway;
use ex0505::telemetry::Telemetry;
use support::{PROXY, file};
use tempfile::TempDir;
use testkit::{
    Behaviour, Client, Origin, Process, ServedProxy, Signal, eventually, expect, free_address, serve,
};

/// Route from every path to the tag `all`.
const ALL: [(&str, &str); 1] = [("/", "all")];

/// Time limit for the process to end. It is shorter than the grace period in the file.
const PATIENCE: Duration = Duration::from_secs(20);

/// Returns a file with one route over these backends.
fn over(policy: &str, backends: &[&Origin]) -> String {
    let backends: Vec<_> = backends.iter().map(|origin| ("all", origin.address())).collect();
    file(PROXY, policy, &ALL, &backends)
}

fn served(text: &str) -> (Arc<Live>, ServedProxy) {
    let live = Arc::new(Live::new(Config::parse(text).unwrap()));
    let proxy = serve(Gateway::new(live.clone(), Arc::new(Telemetry::new().unwrap())));
    (live, proxy)
}

#[tokio::test]
async fn a_reload_moves_new_requests_and_no_request_in_flight() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let (live, proxy) = served(&over("", &[&a]));
    let url = proxy.url("/delay/500");
    let in_flight = tokio::spawn(async move { Client::new().get(url).await });
    eventually!(a.count("/delay/500") == 1);
    expect!(live.reload(&over("", &[&b])), Ok(()), "a reload with a good file, in which backend-0 has moved");
    let answer = Client::new().get(proxy.url("/")).await;
    expect!(answer.header("x-origin"), b.label(), "the backend that answers after the reload");
    let answer = in_flight.await.unwrap();
    expect!(answer.header("x-origin"), a.label(), "the backend of the request that began before the reload");
}

#[tokio::test]
async fn a_file_with_faults_changes_nothing_and_tells_them() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let (live, proxy) = served(&over("", &[&a]));
    let bad = over("retry_attempts = 0\ncircuit_breaker_open_secs = 0", &[&b]);
    let faults = live.reload(&bad).err().map_or(0, |faults| faults.len());
    expect!(faults, 2, "how many faults a reload tells of a file that has two");
    expect!(live.reload("[proxy").is_err(), true, "whether a reload refuses a file that is not TOML");
    let moved = over("", &[&b]).replace("127.0.0.1:1\"", "127.0.0.1:3\"");
    expect!(live.reload(&moved).is_err(), true, "whether a reload refuses a file with another listener");
    let answer = Client::new().get(proxy.url("/")).await;
    expect!(answer.header("x-origin"), a.label(), "the backend that answers after three refused reloads");
}

#[tokio::test]
async fn a_backend_that_stays_keeps_its_health() {
    let (a, b, c) = (Origin::start().await, Origin::start().await, Origin::start().await);
    let (live, proxy) = served(&over("", &[&a, &b]));
    live.load().backends[0].is_failing.store(true, Ordering::Relaxed);
    expect!(live.reload(&over("retry_attempts = 2", &[&a, &b, &c])), Ok(()), "a reload that adds a backend");
    for _ in 0..6 {
        expect!(Client::new().status(proxy.url("/")).await, Ok(200), "GET / after the reload");
    }
    let counts = [a.count("/"), b.count("/") + c.count("/")];
    expect!(counts, [0, 6], "requests at a backend that fails its probes, and at the two others");
}

#[tokio::test]
async fn a_backend_that_stays_keeps_its_open_circuit() {
    let origin = Origin::start().await;
    let policy = "circuit_breaker_failures = 1\ncircuit_breaker_open_secs = 600\nretry_attempts = 1";
    let (live, proxy) = served(&over(policy, &[&origin]));
    origin.behave(Behaviour::Status(500));
    expect!(Client::new().status(proxy.url("/")).await, Ok(500), "the request that opens the circuit");
    expect!(live.reload(&over(policy, &[&origin])), Ok(()), "a reload of the same file");
    expect!(
        Client::new().status(proxy.url("/")).await,
        Ok(503),
        "GET / after the reload: the circuit is open"
    );
}

#[tokio::test]
async fn backends_in_another_order_keep_their_pools() {
    let (site, api) = (Origin::start().await, Origin::start().await);
    let routes = [("/", "site"), ("/anything", "api")];
    let text = file(PROXY, "", &routes, &[("site", site.address()), ("api", api.address())]);
    let (live, proxy) = served(&text);
    let swapped = file(PROXY, "", &routes, &[("api", api.address()), ("site", site.address())]);
    let swapped =
        swapped.replace("backend-0", "x").replace("backend-1", "backend-0").replace("\"x\"", "\"backend-1\"");
    expect!(live.reload(&swapped), Ok(()), "a reload of the file with its backends in another order");
    let answer = Client::new().get(proxy.url("/anything")).await;
    expect!(answer.header("x-origin"), api.label(), "the backend of /anything after the reload");
}

/// The program with its file.
struct Running {
    process: Process,
    directory: TempDir,
    proxy: String,
    address: SocketAddr,
    metrics: SocketAddr,
}

impl Running {
    /// Starts the program with a file that has this policy and these backends, and waits until it serves.
    async fn start(policy: &str, backends: &[&Origin]) -> Running {
        let [address, metrics] = [free_address(), free_address()];
        let proxy = PROXY.replace("127.0.0.1:1\"", &format!("{address}\""));
        let proxy = proxy.replace("127.0.0.1:2\"", &format!("{metrics}\"")).replace("= 10", "= 60");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.toml");
        write(&path, &proxy, policy, backends);
        let process = Process::spawn(env!("CARGO_BIN_EXE_ex0505"), &[&path.display().to_string()], &[]);
        process.line("SIGHUP reloads").await;
        eventually!(std::net::TcpStream::connect(address).is_ok());
        eventually!(std::net::TcpStream::connect(metrics).is_ok());
        Running { process, directory, proxy, address, metrics }
    }

    /// Replaces the file.
    fn write(&self, policy: &str, backends: &[&Origin]) {
        write(&self.directory.path().join("gateway.toml"), &self.proxy, policy, backends);
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

fn write(path: &Path, proxy: &str, policy: &str, backends: &[&Origin]) {
    let backends: Vec<_> = backends.iter().map(|origin| ("all", origin.address())).collect();
    std::fs::write(path, file(proxy, policy, &ALL, &backends)).unwrap();
}

#[tokio::test]
async fn sighup_reloads_the_file_and_a_bad_one_changes_nothing() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let gateway = Running::start("", &[&a]).await;
    let client = Client::new();
    let label = async || client.get(gateway.url("/")).await.header("x-origin").to_owned();
    expect!(label().await, a.label(), "the backend that answers before the reload");
    gateway.write("", &[&b]);
    gateway.process.signal(Signal::SIGHUP);
    expect!(eventually label().await, b.label(), "the backend that answers after SIGHUP");
    gateway.write("retry_attempts = 0", &[&a]);
    gateway.process.signal(Signal::SIGHUP);
    gateway.process.line("not reloaded").await;
    expect!(label().await, b.label(), "the backend that answers after SIGHUP with a bad file");
}

#[tokio::test]
async fn sigterm_answers_what_is_in_flight_and_ends_at_once() {
    let origin = Origin::start().await;
    let mut gateway = Running::start("", &[&origin]).await;
    let url = gateway.url("/delay/1500");
    let in_flight = tokio::spawn(async move { Client::new().get(url).await });
    eventually!(origin.count("/delay/1500") == 1);
    gateway.process.signal(Signal::SIGTERM);
    let told_at = Instant::now();
    let answer = in_flight.await.unwrap();
    expect!(answer.text(), contains "after 1500 ms", "the body of the request that was in flight at SIGTERM");
    expect!(answer.header("connection"), "close", "Connection in the response during the drain");
    expect!(gateway.process.ended(PATIENCE).await.code(), Some(0), "the exit code after SIGTERM");
    let ended_early = told_at.elapsed() < PATIENCE;
    expect!(ended_early, true, "the process ends before its grace period of 60 s");
}

#[tokio::test]
async fn metrics_are_on_their_own_listener() {
    let origin = Origin::start().await;
    let gateway = Running::start("", &[&origin]).await;
    expect!(Client::new().status(gateway.url("/")).await, Ok(200), "GET / through the gateway");
    let metrics = async || Client::new().get(format!("http://{}/metrics", gateway.metrics)).await.text();
    let line = "proxy_requests_total{method=\"GET\",route=\"/\",status=\"2xx\"} 1";
    expect!(eventually metrics().await.contains(line), true, "the metrics contain {line}");
    Client::new().get(gateway.url("/metrics")).await;
    expect!(origin.count("/metrics"), 1, "GET /metrics of a client goes to the backend");
}

#[tokio::test]
async fn a_killed_backend_loses_no_get_and_gets_traffic_again() {
    let (mut a, b, c) = (Origin::start().await, Origin::start().await, Origin::start().await);
    let policy =
        "health_check_interval_secs = 1\nrate_limit_requests = 1000000\ncircuit_breaker_open_secs = 1";
    let gateway = Running::start(policy, &[&a, &b, &c]).await;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..8)
        .map(|_| {
            let (url, stop, answered) = (gateway.url("/"), stop.clone(), answered.clone());
            tokio::spawn(async move {
                let client = Client::new();
                while !stop.load(Ordering::Relaxed) {
                    match client.status(&url).await {
                        Ok(200) => answered.fetch_add(1, Ordering::Relaxed),
                        other => return other,
                    };
                }
                Ok(200)
            })
        })
        .collect();
    let before = answered.load(Ordering::Relaxed);
    eventually!(answered.load(Ordering::Relaxed) > before + 200);
    a.die().await;
    let before = answered.load(Ordering::Relaxed);
    eventually!(answered.load(Ordering::Relaxed) > before + 200);
    a.forget();
    a.revive();
    eventually!(within PATIENCE, a.count("/") > 20);
    stop.store(true, Ordering::Relaxed);
    for worker in load {
        expect!(worker.await.unwrap(), Ok(200), "every GET while a backend dies and comes back");
    }
}

#[tokio::test]
async fn what_keeps_it_from_starting_is_told_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.toml");
    let origin = Origin::start().await;
    let program = env!("CARGO_BIN_EXE_ex0505");
    std::fs::write(&path, over("retry_attempts = 0\ncircuit_breaker_failures = 0", &[&origin])).unwrap();
    let (code, said) = Process::run(program, &[&path.display().to_string()], &[]).await;
    expect!(code, Some(1), "the exit code with a faulty file");
    for fault in ["`retry_attempts` is 0", "`circuit_breaker_failures` is 0"] {
        expect!(said, contains fault, "what the program says of a file with two faults");
    }
    let taken = PROXY.replace("127.0.0.1:1", &origin.address().to_string());
    std::fs::write(&path, file(&taken, "", &ALL, &[("all", origin.address())])).unwrap();
    let (code, said) = Process::run(program, &[&path.display().to_string()], &[]).await;
    expect!(code, Some(1), "the exit code when another process has the port");
    expect!(said, contains "cannot bind", "what the program says when another process has the port");
}
