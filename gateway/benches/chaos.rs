//! Measures the responses that clients get while backends fail and recover: `cargo bench --bench chaos`.
//!
//! For a minute, 64 clients send one request after another to a gateway with five backends. Every second one
//! backend is killed (its connections are reset and new ones refused), stalled (it accepts connections and
//! never responds) or restored. At least two backends are always healthy. The program prints how the requests
//! ended. Another number of seconds may follow `--`.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "it prints figures; a panic is the report")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use testkit::{Behaviour, Client, Origin, Process};

const CLIENTS: usize = 64;
const BACKENDS: usize = 5;
const ALWAYS_LEFT: usize = 2;

/// Configuration that an operator would choose for backends that respond within a second.
const CONFIG: &str = r#"
[proxy]
listen_addr_http = "127.0.0.1:0"
management_api = false
request_timeout_secs = 10
[metrics]
enabled = false
[logging]
access_log = false
[health_check]
path = "/health"
interval_secs = 1
timeout_secs = 1
unhealthy_threshold = 1
healthy_threshold = 1
[upstream]
connect_timeout_ms = 500
read_timeout_secs = 1
[retry]
attempts = 5
[circuit_breaker]
open_secs = 2
max_open_secs = 4
[[virtual_hosts]]
domain = "*"
enabled_backends_tag = "all"
"#;

#[derive(Clone, Copy, PartialEq)]
enum State {
    Well,
    Dead,
    Stalled,
}

#[tokio::main]
async fn main() {
    let secs = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(60);
    let mut origins = Vec::new();
    let mut config = CONFIG.to_owned();
    for i in 0..BACKENDS {
        origins.push(Origin::start().await);
        let address = origins[i].address();
        write!(config, "[[backends]]\nid = \"backend-{i}\"\naddress = \"{address}\"\ntags = [\"all\"]\n")
            .unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("chaos.toml");
    std::fs::write(&file, config).unwrap();
    let gateway = Process::spawn(env!("CARGO_BIN_EXE_gateway"), &["-c", &file.display().to_string()], &[]);
    let line = gateway.line("listening on http://").await;
    let url = line.split_whitespace().last().unwrap().to_owned();

    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(ask(url.clone(), stop.clone()))).collect();
    let did = play(&mut origins, secs).await;
    stop.store(true, Ordering::Relaxed);
    let (mut ended, mut slowest) = (BTreeMap::new(), Duration::ZERO);
    for client in clients {
        let (ways, slow) = client.await.unwrap();
        slowest = slowest.max(slow);
        for (way, times) in ways {
            *ended.entry(way).or_insert(0) += times;
        }
    }
    let all: usize = ended.values().sum();
    let good = ended.get("200").copied().unwrap_or(0);
    println!("{CLIENTS} clients, {BACKENDS} backends, {secs} s: {did}");
    println!("{good} of {all} GETs were answered with 200: {:.4} %", good as f64 * 100.0 / all as f64);
    for (way, times) in ended.iter().filter(|(way, _)| *way != "200") {
        println!("  {times} {way}");
    }
    println!("the slowest took {slowest:.1?}");
}

/// Sends one request after another until `stop` is set. Returns how often each result occurred, and the longest
/// response time.
async fn ask(url: String, stop: Arc<AtomicBool>) -> (BTreeMap<String, usize>, Duration) {
    let client = Client::new();
    let (mut ended, mut slowest) = (BTreeMap::new(), Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let way = match client.try_send(Request::get(&url).body(Bytes::new()).unwrap()).await {
            Ok(answer) if answer.status == 200 => "200".to_owned(),
            Ok(answer) => format!("{} {}", answer.status.as_u16(), answer.header("proxy-status")),
            Err(error) => error,
        };
        slowest = slowest.max(began.elapsed());
        *ended.entry(way).or_insert(0) += 1;
    }
    (ended, slowest)
}

/// Kills, stalls or restores a backend every second. Returns how often each of them happened, as text.
async fn play(origins: &mut [Origin], secs: u64) -> String {
    let mut states = [State::Well; BACKENDS];
    let (mut killed, mut stalled, mut restored) = (0, 0, 0);
    for _ in 1..secs {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let may_break = states.iter().filter(|state| **state == State::Well).count() > ALWAYS_LEFT;
        let choices: Vec<usize> = (0..BACKENDS).filter(|i| may_break || states[*i] != State::Well).collect();
        let chosen = choices[fastrand::usize(..choices.len())];
        let origin = &mut origins[chosen];
        states[chosen] = match states[chosen] {
            State::Well if fastrand::bool() => {
                origin.die().await;
                killed += 1;
                State::Dead
            }
            State::Well => {
                origin.behave(Behaviour::Stall);
                stalled += 1;
                State::Stalled
            }
            State::Dead | State::Stalled => {
                origin.behave(Behaviour::Answer);
                origin.revive();
                restored += 1;
                State::Well
            }
        };
        // The origins record every request. The benchmark does not need the records, and they would use up memory.
        origins.iter().for_each(Origin::forget);
    }
    format!("{killed} killed, {stalled} stalled, {restored} restored")
}
