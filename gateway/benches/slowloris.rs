//! Measures the effect of 2 000 slow clients on other clients: `cargo bench --bench slowloris`.
//!
//! For a minute, 2 000 attackers hold connections open over HTTP/1 and HTTP/2: heads that arrive byte by byte,
//! bodies that arrive byte by byte, and responses that the attacker does not read. An attacker that the gateway
//! disconnects comes back. Meanwhile a few ordinary clients send the same requests as before the attack. The
//! program prints the response times of the ordinary clients, the memory and connections of the gateway, and
//! the time until the last attacker is disconnected. Another number of seconds may follow `--`.

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

/// Pause between two requests of an ordinary client.
const PACE: Duration = Duration::from_millis(20);

/// Time in which all attackers connect. The attack is slow, not a flood.
const RAMP: Duration = Duration::from_secs(10);

/// Longest pause until a disconnected attacker comes back.
const PAUSE_MS: u64 = 5_000;

/// Interval at which an attacker sends its next bytes.
const DRIP: Duration = Duration::from_secs(1);

/// Longest time that the gateway tolerates an attacker: the send timeout of an HTTP/2 stream, followed by the
/// idle timeout of a connection without streams.
const LONGEST: Duration = Duration::from_secs(SEND_SECS + KEEPALIVE_SECS);
const SEND_SECS: u64 = 10;
const KEEPALIVE_SECS: u64 = 10;

/// Configuration with shorter timeouts than the defaults, so that each attacker is disconnected several times.
const CONFIG: &str = "[proxy]\nlisten_addr_http = \"127.0.0.1:0\"\nmanagement_api = false\n\
    http2_cleartext = true\nheader_timeout_secs = 5\nsend_timeout_secs = 10\nkeepalive_timeout_secs = 10\n\
    [limits]\nbody_timeout_secs = 10\n[metrics]\nlisten_addr = \"127.0.0.1:0\"\n\
    [health_check]\nenabled = false\n[upstream]\nconnect_timeout_ms = 5000\n[[virtual_hosts]]\ndomain = \"*\"\nenabled_backends_tag = \"all\"\n\
    [[virtual_hosts.routes]]\npath = \"/large\"\nenabled_backends_tag = \"large\"\n";

/// Bytes that an attacker sends first, and bytes that it then sends once a second until it is disconnected.
struct Attack {
    name: &'static str,
    first: Vec<u8>,
    drip: &'static [u8],
    /// True if the attacker gives up by itself after [`LONGEST`], because it cannot detect that the gateway has
    /// closed the connection.
    for_now: bool,
}

fn attacks() -> Vec<Attack> {
    let text = |name, first: &str, drip, for_now| Attack { name, first: first.into(), drip, for_now };
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    // SETTINGS without a window for responses. The heads below have `:method: GET`, `:scheme: http`, `:path:
    // /large`, `:authority: a`.
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
    // The comparison is valid on a noisy machine if the noise is the same before, during and after the attack.
    let of_quiet = percentile(&quiet, 99).max(percentile(&again, 99)).as_secs_f64();
    let share = percentile(&attacked, 99).as_secs_f64() / of_quiet;
    println!("the 99th percentile was {share:.2} of a quiet one");
}

/// Command line argument that starts this program as the attacker.
const ATTACK: &str = "attack";

/// Process of the attackers and of the backend that sends more than they read. It is a separate process with
/// the lowest priority: real attackers would have machines of their own, and the ordinary clients must wait
/// only for the gateway.
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

    /// Starts the attack on the gateway at `address`.
    fn begin(&mut self, address: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{address}").unwrap();
    }

    /// Tells disconnected attackers not to come back. Returns how many of them were disconnected so far, for
    /// each kind of attack.
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

/// Waits until no client connection is open. Returns the time that took, and the number of connections that
/// were still open after twice [`LONGEST`].
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

/// Runs the attack in the attacker process. The address and the end of the attack come from standard input.
/// Afterwards it waits until the parent kills it.
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

/// Holds connections open, each as long as the gateway allows, until `over` is set.
async fn hold(address: SocketAddr, attack: Arc<Attack>, cut: Arc<AtomicUsize>, over: Arc<AtomicBool>) {
    while !over.load(Ordering::Relaxed) {
        let socket = TcpSocket::new_v4().unwrap();
        // A client that does not read would also have a small receive buffer.
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

/// Returns true if the gateway has not closed the connection, as far as the attacker can tell without reading
/// the response.
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

/// Sends requests at a steady pace, as an ordinary client. Returns the time that each response took.
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

/// Sends requests and observes the gateway meanwhile, in the same way with and without an attack. Returns the
/// response times, the highest number of open connections, and the highest memory in MiB.
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

/// Returns the number of open client connections.
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

/// Returns the processor time that a process has used, in seconds.
fn cpu_secs(process: &Process) -> f64 {
    /// Unit of the times in `/proc/PID/stat`: the kernel reports hundredths of a second on every clock setting.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap_or_default();
    // User time and system time are the 14th and 15th field. The second field, in parentheses, may contain spaces.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// Returns the resident memory of a process, in MiB.
fn resident_of(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// Starts a backend that responds as soon as it has the head of a request, with a small body or with more than
/// an attacker reads. The backend runs on a separate thread, so that its work for one client does not delay the
/// others.
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
            // The attackers never complete this body.
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
