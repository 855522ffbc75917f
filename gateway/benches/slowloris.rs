//! What others notice of two thousand clients that hold connections as long as they can:
//! `cargo bench --bench slowloris`.
//!
//! For a minute 2 000 connections are held open: heads that drip, bodies that drip, answers that nobody takes, over
//! HTTP/1 and HTTP/2. Whoever is cut off comes back. Meanwhile a few clients ask as they did before, when it was quiet.
//! Printed is how long they waited, what the gateway held, and when the last of the others was gone. Another number
//! of seconds may follow `--`.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "it prints figures; a panic is the report")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use testkit::{Client, Process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

const ATTACKERS: usize = 2_000;
const OTHERS: usize = 8;
const SECS: u64 = 60;
const QUIET_SECS: u64 = 10;

/// How often one of the others asks.
const PACE: Duration = Duration::from_millis(20);

/// They are slow, and no flood: it takes so long until all are there.
const RAMP: Duration = Duration::from_secs(10);

/// The longest pause until one that was cut off is back.
const PAUSE_MS: u64 = 5_000;

/// How often an attacker does something.
const DRIP: Duration = Duration::from_secs(1);

/// The longest that any of them is borne: a stream of HTTP/2 that is given up, and then a connection without any.
const LONGEST: Duration = Duration::from_secs(SEND_SECS + KEEPALIVE_SECS);
const SEND_SECS: u64 = 10;
const KEEPALIVE_SECS: u64 = 10;

/// Shorter than by default, so that each comes back several times.
const CONFIG: &str = "[proxy]\nlisten_addr_http = \"127.0.0.1:0\"\nmanagement_api = false\n\
    http2_cleartext = true\nheader_timeout_secs = 5\nsend_timeout_secs = 10\nkeepalive_timeout_secs = 10\n\
    [limits]\nbody_timeout_secs = 10\n[metrics]\nlisten_addr = \"127.0.0.1:0\"\n\
    [health_check]\nenabled = false\n[upstream]\nconnect_timeout_ms = 5000\n[[virtual_hosts]]\ndomain = \"*\"\nenabled_backends_tag = \"all\"\n\
    [[virtual_hosts.routes]]\npath = \"/large\"\nenabled_backends_tag = \"large\"\n";

/// What an attacker sends first, and then once a second, for as long as it takes.
struct Attack {
    name: &'static str,
    first: Vec<u8>,
    drip: &'static [u8],
    /// Whether it gives up by itself: nothing tells it that the other side is gone.
    for_now: bool,
}

fn attacks() -> Vec<Attack> {
    let text = |name, first: &str, drip, for_now| Attack { name, first: first.into(), drip, for_now };
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    // No window for answers; `:method: GET`, `:scheme: http`, `:path: /large`, `:authority: a`.
    let settings = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";
    let head = b"\0\0\x0d\x01\x05\0\0\0\x01\x82\x86\x04\x06/large\x41\x01a";
    let dripping_head = b"\0\0\xff\x01\x05\0\0\0\x01\x82\x86\x04\x06/large\x41\x01a";
    vec![
        text("heads", "GET / HTTP/1.1\r\nHost: a\r\n", b"X-a: b\r\n", false),
        text("bodies", "POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", b"x", false),
        text("answers", "GET /large HTTP/1.1\r\nHost: a\r\n\r\n", b"", true),
        Attack {
            name: "answers (HTTP/2)",
            first: [&preface[..], settings, head].concat(),
            drip: b"",
            for_now: false,
        },
        Attack {
            name: "heads (HTTP/2)",
            first: [&preface[..], settings, dripping_head].concat(),
            drip: b"\0",
            for_now: false,
        },
    ]
}

fn main() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    if std::env::args().nth(1).as_deref() == Some(ATTACK) {
        return attack();
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(measure());
}

async fn measure() {
    let secs = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(SECS);
    let mut attackers = Attackers::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("slowloris.toml");
    let backend =
        |tag, address| format!("[[backends]]\nid = \"{tag}\"\naddress = \"{address}\"\ntags = [\"{tag}\"]\n");
    let backends = [backend("all", origin()), backend("large", attackers.origin)].concat();
    std::fs::write(&file, format!("{CONFIG}{backends}")).unwrap();
    let gateway = Process::spawn(env!("CARGO_BIN_EXE_gateway"), &["-c", &file.display().to_string()], &[]);
    let url = gateway.line("listening on http://").await.split_whitespace().last().unwrap().to_owned();
    let metrics = gateway.line("metrics on http://").await.split_whitespace().last().unwrap().to_owned();

    let idle = cpu_secs(&gateway);
    let (quiet, ..) = ask_and_watch(&url, QUIET_SECS, &metrics, gateway.id()).await;
    println!("quiet, {QUIET_SECS} s: {}; the gateway holds {} MiB", figures(&quiet), resident(&gateway));
    let cpu_quiet = (cpu_secs(&gateway) - idle) / QUIET_SECS as f64;

    attackers.begin(url.trim_start_matches("http://"));
    let before = cpu_secs(&gateway);
    let (attacked, most_open, most_held) = ask_and_watch(&url, secs, &metrics, gateway.id()).await;
    let cpu_attacked = (cpu_secs(&gateway) - before) / secs as f64;
    let cut_off = attackers.stay_away();
    println!("{ATTACKERS} attackers, {secs} s: {}", figures(&attacked));
    let [quiet_percent, percent] = [cpu_quiet, cpu_attacked].map(|share| share * 100.0);
    println!("  the gateway used {percent:.0} % of a processor, and {quiet_percent:.0} % when it was quiet");
    println!("  up to {most_open} connections were open, and the gateway held up to {most_held} MiB");
    println!("  cut off: {cut_off}");

    let (gone, left) = all_gone(&metrics).await;
    println!("  all gone {gone:.1?} after the last one had come, {LONGEST:?} at most; {left} left");
    println!("  the gateway holds {} MiB", resident(&gateway));
    for line in text(&metrics).await.lines().filter(|line| line.starts_with("proxy_limits_exceeded_total")) {
        println!("  {line}");
    }
    let (again, ..) = ask_and_watch(&url, QUIET_SECS, &metrics, gateway.id()).await;
    println!("quiet again, {QUIET_SECS} s: {}", figures(&again));
    // The machine may be as noisy as it likes, if it is so all the time.
    let of_quiet = percentile(&quiet, 99).max(percentile(&again, 99)).as_secs_f64();
    let share = percentile(&attacked, 99).as_secs_f64() / of_quiet;
    println!("the 99th percentile was {share:.2} of a quiet one");
}

/// What has this program attack.
const ATTACK: &str = "attack";

/// Those who attack, and the backend that has more for them than they take: another process, and the last to get a
/// processor. They would have machines of their own, and the others are to wait for the gateway alone.
struct Attackers {
    process: Child,
    said: BufReader<std::process::ChildStdout>,
    origin: SocketAddr,
}

impl Attackers {
    fn new() -> Self {
        let mut nice = Command::new("nice");
        nice.arg("-n19").arg(std::env::current_exe().unwrap()).arg(ATTACK);
        let mut process = nice.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap());
        let origin = line(&mut said).parse().unwrap();
        Attackers { process, said, origin }
    }

    /// Has them attack the gateway at `address`.
    fn begin(&mut self, address: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{address}").unwrap();
    }

    /// Has none of them come back that is cut off; how often they were so far.
    fn stay_away(&mut self) -> String {
        drop(self.process.stdin.take());
        line(&mut self.said)
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        let _ended_by_itself = self.process.kill();
    }
}

fn line(read: &mut impl BufRead) -> String {
    let mut line = String::new();
    read.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// Waits until nobody's connection is open: how long that took, and how many were left all the same.
async fn all_gone(metrics: &str) -> (Duration, usize) {
    let began = Instant::now();
    loop {
        let open = connections(metrics).await;
        if open == 0 || began.elapsed() > 2 * LONGEST {
            return (began.elapsed(), open);
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Attacks, as the other process says: where, and until when; then waits to be killed.
fn attack() {
    println!("{}", origin());
    let mut told = std::io::stdin().lock();
    let address: SocketAddr = line(&mut told).parse().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let attacks: Vec<(Arc<Attack>, Arc<AtomicUsize>)> =
        attacks().into_iter().map(|attack| (Arc::new(attack), Arc::default())).collect();
    let (theirs, ends) = (attacks.clone(), over.clone());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for n in 0..ATTACKERS {
                let (attack, cut) = &theirs[n % theirs.len()];
                tokio::spawn(hold(address, attack.clone(), cut.clone(), ends.clone()));
                sleep(RAMP / ATTACKERS as u32).await;
            }
            std::future::pending::<()>().await;
        });
    });
    told.read_to_end(&mut Vec::new()).unwrap();
    over.store(true, Ordering::Relaxed);
    let times =
        attacks.iter().map(|(attack, cut)| format!("{} {}", attack.name, cut.load(Ordering::Relaxed)));
    println!("{}", times.collect::<Vec<_>>().join(", "));
    std::thread::park();
}

/// Holds a connection as long as it is let, again and again.
async fn hold(address: SocketAddr, attack: Arc<Attack>, cut: Arc<AtomicUsize>, over: Arc<AtomicBool>) {
    while !over.load(Ordering::Relaxed) {
        let socket = TcpSocket::new_v4().unwrap();
        // Whoever does not read does not offer much room either.
        socket.set_recv_buffer_size(4096).unwrap();
        let Ok(mut stream) = socket.connect(address).await else { continue };
        let mut waited = Duration::ZERO;
        let mut lives = stream.write_all(&attack.first).await.is_ok();
        while lives && !(attack.for_now && waited > LONGEST) {
            sleep(DRIP).await;
            waited += DRIP;
            lives = stream.write_all(attack.drip).await.is_ok() && is_open(&mut stream, &attack).await;
        }
        cut.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(fastrand::u64(..PAUSE_MS))).await;
    }
}

/// Whether the other side has not closed the connection, as far as one can see without taking what was asked for.
async fn is_open(stream: &mut TcpStream, attack: &Attack) -> bool {
    let mut seen = [0; 512];
    if attack.first.ends_with(b"\r\n\r\n") && attack.drip.is_empty() {
        return matches!(stream.take_error(), Ok(None));
    }
    loop {
        match timeout(Duration::ZERO, stream.read(&mut seen)).await {
            Err(_) => return true,
            Ok(Ok(1..)) => {}
            Ok(_) => return false,
        }
    }
}

/// Asks at a steady pace, as the others do; how long each answer took.
async fn ask(url: &str, secs: u64) -> Vec<Duration> {
    let until = Instant::now() + Duration::from_secs(secs);
    let asking = (0..OTHERS).map(|_| async {
        let client = Client::new();
        let mut took = Vec::new();
        while Instant::now() < until {
            let began = Instant::now();
            match client.status(url).await {
                Ok(200) => took.push(began.elapsed()),
                other => println!("  one of the others got {other:?}"),
            }
            sleep(PACE.saturating_sub(began.elapsed())).await;
        }
        took
    });
    let mut took: Vec<Duration> = futures::future::join_all(asking).await.into_iter().flatten().collect();
    took.sort_unstable();
    took
}

/// Asks, and watches the gateway meanwhile, in the same way whether it is attacked or not: how long each answer took, the
/// most connections that were open, and the most memory that was held, in MiB.
async fn ask_and_watch(url: &str, secs: u64, metrics: &str, process: u32) -> (Vec<Duration>, usize, u64) {
    let (mut open, mut held) = (0, 0);
    let watch = async {
        loop {
            open = open.max(connections(metrics).await);
            held = held.max(resident_of(process));
            sleep(Duration::from_millis(500)).await;
        }
    };
    let took = tokio::select! {
        took = ask(url, secs) => took,
        () = watch => Vec::new(),
    };
    (took, open, held)
}

async fn text(metrics: &str) -> String {
    Client::new().get(metrics).await.text()
}

/// How many connections of clients are open.
async fn connections(metrics: &str) -> usize {
    let text = text(metrics).await;
    let line = text.lines().find_map(|line| line.strip_prefix("proxy_connections_active "));
    line.and_then(|value| value.parse().ok()).unwrap_or(usize::MAX)
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

fn figures(sorted: &[Duration]) -> String {
    let [half, most, slowest] = [50, 99, 100].map(|percent| percentile(sorted, percent));
    format!("{} answers, p50 {half:.1?}, p99 {most:.1?}, slowest {slowest:.1?}", sorted.len())
}

fn resident(process: &Process) -> u64 {
    resident_of(process.id())
}

/// How much processor time a process has used, in seconds.
fn cpu_secs(process: &Process) -> f64 {
    /// The kernel counts in hundredths of a second, whatever its own clock does.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap_or_default();
    // User and system time are the 14th and 15th field; the second, in parentheses, may have spaces.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// What a process has in memory, in MiB.
fn resident_of(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// A backend that answers as soon as it has a head: with a little, or with more than anybody takes. It has a thread of
/// its own, so that nobody waits for what it does for others.
fn origin() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                tokio::spawn(answer(stream));
            }
        });
    });
    address
}

async fn answer(mut stream: TcpStream) {
    const PART: [u8; 16 * 1024] = [b'x'; 16 * 1024];
    const PARTS: usize = 64;
    let mut seen = Vec::new();
    loop {
        while !seen.windows(4).any(|window| window == b"\r\n\r\n") {
            if !matches!(stream.read_buf(&mut seen).await, Ok(1..)) {
                return;
            }
        }
        if seen.starts_with(b"POST") {
            // Its body never comes.
            while matches!(stream.read_buf(&mut seen).await, Ok(1..)) {
                seen.clear();
            }
            return;
        }
        let is_large = seen.starts_with(b"GET /large");
        let length = if is_large { PART.len() * PARTS } else { 2 };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        let small: &[u8] = if is_large { b"" } else { b"ok" };
        let mut sent = stream.write_all(&[head.as_bytes(), small].concat()).await;
        if is_large {
            for _ in 0..PARTS {
                sent = sent.and(stream.write_all(&PART).await);
                if sent.is_err() {
                    return;
                }
            }
        }
        if sent.is_err() {
            return;
        }
        seen.clear();
    }
}
