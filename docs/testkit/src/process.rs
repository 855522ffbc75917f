//! Real child processes: started on a free port, waited for, listened to, and ended with the test.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;

use crate::{DEADLINE, POLL};

/// A child process. It is killed on drop, and what it printed is shown when the test fails.
pub struct Process {
    child: Child,
    output: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `program` with `arguments` and, besides the test's own environment, `variables`. What the
    /// person who runs the tests has set for the programs under test is left out. Its signals do what they do by
    /// default, even those that the test's own process ignores.
    pub fn spawn(program: impl AsRef<Path>, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
        default_signals_in_children();
        let program = program.as_ref();
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let bytes = name.as_encoded_bytes();
            let ours = bytes.starts_with(b"PINGORA_") || bytes.starts_with(b"GATEWAY_");
            if ours || name == "RUST_LOG" || name == "LISTEN_ADDR" {
                command.env_remove(name);
            }
        }
        let child = command
            .args(arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.unwrap_or_else(|error| panic!("cannot run {}: {error}", program.display()));
        let output = Arc::new(Mutex::new(Vec::new()));
        let readers = vec![
            keep_lines(child.stdout.take(), output.clone()),
            keep_lines(child.stderr.take(), output.clone()),
        ];
        Process { child, output, readers }
    }

    /// Starts a program that listens where the variable `LISTEN_ADDR` says, as the samples do, and
    /// returns once it accepts connections there.
    pub async fn spawn_listening(program: impl AsRef<Path>, arguments: &[&str]) -> (Process, SocketAddr) {
        // Between the look for a free port and the child's own bind somebody else may take it.
        for _ in 0..5 {
            let address = free_address();
            let listen = address.to_string();
            let mut process = Process::spawn(&program, arguments, &[("LISTEN_ADDR", &listen)]);
            let until = Instant::now() + DEADLINE;
            let mut answered_before = false;
            while process.is_running() && Instant::now() < until {
                // Looked at twice: a program may bind for a moment, only to see whether it can.
                let answers = TcpStream::connect(address).is_ok() && process.is_running();
                if answers && answered_before {
                    return (process, address);
                }
                answered_before = answers;
                tokio::time::sleep(POLL).await;
            }
            assert!(process.output().contains("in use"), "{} is not ready", program.as_ref().display());
        }
        panic!("{}: found no free port in five tries", program.as_ref().display());
    }

    /// Runs `program` to its end, which must come within [`DEADLINE`]: its exit code, and what it printed.
    pub async fn run(
        program: impl AsRef<Path>,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> (Option<i32>, String) {
        let mut process = Process::spawn(program, arguments, variables);
        let status = process.ended(DEADLINE).await;
        (status.code(), process.output())
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id().cast_signed());
        if let Err(error) = kill(id, signal) {
            panic!("cannot send {signal} to process {id}: {error}");
        }
    }

    /// Waits for its end; fails the test where it still runs after `deadline`.
    pub async fn ended(&mut self, deadline: Duration) -> ExitStatus {
        let until = Instant::now() + deadline;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    // What it said last is still in the pipes; their end ends the readers.
                    for reader in self.readers.drain(..) {
                        let _ = reader.join();
                    }
                    return status;
                }
                Ok(None) if Instant::now() < until => tokio::time::sleep(POLL).await,
                Ok(None) => panic!("process {} still runs after {deadline:?}", self.child.id()),
                Err(error) => panic!("cannot wait for process {}: {error}", self.child.id()),
            }
        }
    }

    /// What it has printed so far, both streams.
    pub fn output(&self) -> String {
        self.output.lock().join("\n")
    }

    /// Waits for a line that contains `text`, and returns it.
    pub async fn line(&self, text: &str) -> String {
        let until = Instant::now() + DEADLINE;
        loop {
            if let Some(line) = self.output.lock().iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            assert!(Instant::now() < until, "no line with {text:?} within {DEADLINE:?}");
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Process {
    /// Ends it in its own way where coverage is measured: a process that is killed writes no profile, and what it did
    /// would not count.
    fn let_write_profile(&mut self) {
        if std::env::var_os("LLVM_PROFILE_FILE").is_none() {
            return;
        }
        // The second signal ends a gateway that waits for what is in flight.
        for _ in 0..2 {
            if self.is_running() {
                self.signal(Signal::SIGTERM);
            }
            let until = Instant::now() + Duration::from_secs(1);
            while self.is_running() && Instant::now() < until {
                thread::sleep(POLL);
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.let_write_profile();
        // One that has ended already cannot be killed, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- output of process {}:\n{}\n---", self.child.id(), self.output());
        }
    }
}

/// Has children begin with the default action for every signal.
///
/// A signal that a process ignores is ignored by its children as well (POSIX, `exec`): a shell without job control
/// starts background commands with SIGINT and SIGQUIT ignored, and `nohup` ignores SIGHUP. A child that a test wants
/// to end with Ctrl-C would stay. What is *caught* is reset by `exec`: each signal that is ignored gets a handler
/// that does nothing, so that this process ignores it as before. The standard library takes care of SIGPIPE and of
/// the mask of blocked signals.
fn default_signals_in_children() {
    static CAUGHT: OnceLock<()> = OnceLock::new();
    CAUGHT.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        for signal in ignored_signals(&status) {
            // Not all can be caught (SIGKILL), and those cannot be ignored either.
            let _ = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)));
        }
    });
}

/// The ignored signals of a process by its `/proc/PID/status`: the standard ones, which end a program by default, but
/// for SIGPIPE, which every Rust program ignores.
fn ignored_signals(status: &str) -> Vec<i32> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    (1..=31).filter(|signal| mask & (1 << (signal - 1)) != 0 && *signal != Signal::SIGPIPE as i32).collect()
}

fn keep_lines(stream: Option<impl Read + Send + 'static>, output: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in stream.into_iter().flat_map(|stream| BufReader::new(stream).lines()) {
            let Ok(line) = line else { break };
            output.lock().push(line);
        }
    })
}

/// An address on loopback that nobody listens on now, below the range from which the kernel gives
/// ports to outgoing connections, so that none of those can take it first.
pub fn free_address() -> SocketAddr {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Tests run in several processes at once: each starts to look somewhere else.
    let start = (std::process::id() % u32::from(COUNT / 50)) as u16 * 50;
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port from {FIRST} on")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let status = "Name:\tx\nSigBlk:\t0000000000000007\nSigIgn:\t0000000180001007\nSigCgt:\t0\n";
        assert_eq!(ignored_signals(status), [1, 2, 3]);
        assert_eq!(ignored_signals("Name:\tx\n"), [0; 0]);
    }
}
