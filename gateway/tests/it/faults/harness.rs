//! Test procedure for a row of the matrix. Each of its three requests has a separate gateway and separate
//! backends, so that no state of the previous request is left.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt as _;
use testkit::{Fault, Faulty, Health, eventually};

use super::client::{Ask, ask};
use crate::support::{Gateway, Setup};

/// Longest time for a request: the two seconds that the gateway gives a backend, plus a reserve for a busy machine.
pub(super) const LIMIT: Duration = Duration::from_secs(7);

/// Request timeout of the gateway in the matrix.
pub(super) const PROXY: &str = "request_timeout_secs = 2\n";

/// Circuit breaker off, because these tests cause several failures in a row.
pub(super) const BREAKER_OFF: &str = "[circuit_breaker]\nenabled = false\n";

/// Body size beyond the buffer from which the gateway could send a body again (64 KiB).
const LARGE: usize = 200 * 1024;

/// Number of cells that run at the same time. Most of them wait.
const AT_ONCE: usize = 6;

/// A row of the matrix.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub(super) name: &'static str,
    /// True if the faulty backend listens.
    pub(super) up: bool,
    pub(super) fault: Fault,
    /// Response of the faulty backend to probes; `None` disables the probes.
    pub(super) health: Option<Health>,
    /// Number of equal probes in a row that change the health state.
    pub(super) threshold: u32,
    /// True if a good backend is in the pool, too.
    pub(super) spare: bool,
    /// True if the gateway already has an idle connection to the faulty backend.
    pub(super) warm: bool,
    /// True if a POST waits for 100 (Continue).
    pub(super) expects: bool,
    /// Read timeout of the backend, in seconds.
    pub(super) read_timeout: u64,
    /// Expected results of a GET, a small POST and a large POST: what the client gets, how often the faulty
    /// backend has seen the request, and how often the good one has. Alternatives follow after "or".
    pub(super) want: [&'static str; 3],
}

/// A faulty backend alone, without probes.
pub(super) const ALONE: Row = Row {
    name: "",
    up: true,
    fault: Fault::None,
    health: None,
    threshold: 1,
    spare: false,
    warm: false,
    expects: false,
    read_timeout: 1,
    want: [""; 3],
};

/// A faulty backend and a good one.
pub(super) const SPARE: Row = Row { spare: true, ..ALONE };

/// Results of a row.
pub(super) struct Tried {
    pub(super) name: String,
    pub(super) backends: &'static str,
    pub(super) want: [&'static str; 3],
    pub(super) got: [String; 3],
}

/// Runs all rows, and reports all wrong results at once.
pub(super) async fn check(rows: &[Row]) {
    let cells = rows.iter().flat_map(|row| requests(row.expects).map(|request| cell(row, request)));
    let got: Vec<String> = futures::stream::iter(cells).buffered(AT_ONCE).collect().await;
    let tried = rows.iter().zip(got.chunks(3)).map(|(row, got)| Tried {
        name: row.name.to_owned(),
        backends: if row.spare { "and a good one" } else { "alone" },
        want: row.want,
        got: [0, 1, 2].map(|i| got[i].clone()),
    });
    report(&tried.collect::<Vec<_>>());
}

/// Returns the three requests of every row.
pub(super) fn requests(expects: bool) -> [Ask; 3] {
    [
        Ask::get("/cell"),
        Ask { expects, ..Ask::post("/cell", 4) },
        Ask { expects, ..Ask::post("/cell", LARGE) },
    ]
}

/// Prints the results if `MATRIX` is set, and fails the test if a result is wrong.
pub(super) fn report(tried: &[Tried]) {
    let mut table =
        String::from("\n| fault | backend | GET | POST 4 B | POST 200 KiB |\n|---|---|---|---|---|\n");
    let mut wrong = String::new();
    for Tried { name, backends, want, got } in tried {
        let marked = [0, 1, 2].map(|i| match is_right(want[i], &got[i]) {
            true => got[i].clone(),
            false => format!("**wrong**: {}", got[i]),
        });
        table += &format!("| {name} | {backends} | {} |\n", marked.join(" | "));
        for i in 0..3 {
            if !is_right(want[i], &got[i]) {
                let request = ["GET", "POST 4 B", "POST 200 KiB"][i];
                wrong += &format!("{name}, {backends}, {request}\n  want: {}\n  got:  {}\n", want[i], got[i]);
            }
        }
    }
    if std::env::var_os("MATRIX").is_some() {
        // Written to stdout directly, because the test harness would capture `print!`.
        let _ = std::io::stdout().write_all(table.as_bytes());
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

fn is_right(want: &str, got: &str) -> bool {
    want.split(" or ").any(|way| way == got)
}

/// Runs one request of a row.
async fn cell(row: &Row, request: Ask) -> String {
    let faulty = if row.up { Faulty::start(Fault::None).await } else { Faulty::dead() };
    let good = Faulty::start(Fault::None).await;
    let both = [&faulty, &good];
    let backends = if row.spare { &both[..] } else { &both[..1] };
    let addresses: Vec<SocketAddr> = backends.iter().map(|backend| backend.address()).collect();
    let gateway = start(row, &faulty, &addresses).await;
    if row.warm {
        // The backends take turns, so the next request goes to the faulty one again.
        for _ in backends {
            assert_eq!(ask(gateway.address, Ask::get("/warm"), LIMIT).await, "200", "{}", row.name);
        }
    }
    faulty.behave(row.fault);
    let mut came = try_one(&gateway, &both, request).await;
    if row.up && row.health != Some(Health::Fails) {
        faulty.behave(Fault::None);
        for _ in backends {
            let after = ask(gateway.address, Ask::get("/after"), LIMIT).await;
            if after != "200" {
                came += &format!(", but then {after}");
            }
        }
    }
    came
}

/// Sends a request and describes its result, how often the two backends saw it, and any violated invariant.
pub(super) async fn try_one(gateway: &Gateway, backends: &[&Faulty; 2], request: Ask) -> String {
    let count = || backends.map(|backend| backend.seen(request.method, request.path));
    let before = count();
    let mut came = ask(gateway.address, request, LIMIT).await;
    let after = count();
    let seen = [after[0] - before[0], after[1] - before[1]];
    came += &format!(" {}+{}", seen[0], seen[1]);
    if request.method == "POST" && seen[0] + seen[1] > 1 {
        came += ", a POST sent twice";
    }
    came
}

/// Starts a gateway and waits until it knows the health of the faulty backend.
async fn start(row: &Row, faulty: &Faulty, addresses: &[SocketAddr]) -> Gateway {
    let threshold = row.threshold;
    let tables = format!(
        "[upstream]\nconnect_timeout_ms = 500\nread_timeout_secs = {}\n\
         [health_check]\nenabled = {}\npath = \"/health\"\ninterval_secs = 1\n\
         unhealthy_threshold = {threshold}\nhealthy_threshold = {threshold}\n",
        row.read_timeout,
        row.health.is_some()
    );
    faulty.health(row.health.unwrap_or(Health::Passes));
    let gateway = Gateway::start_over(addresses, Setup { proxy: PROXY, tables: &tables }).await;
    match row.health {
        None => {}
        Some(Health::Passes) => eventually!(faulty.probes() >= 2),
        Some(Health::Fails) => drop(gateway.process.line("backend is unhealthy").await),
        Some(Health::Flaps) => eventually!(faulty.probes() >= 4),
    }
    gateway
}
