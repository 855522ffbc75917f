//! Real child processes for tests: started on a free port, observed through their output, and ended with the
//! test.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;

use crate::{DEADLINE, POLL};

/// Maximum time for which a signal waits until its process handles it.
const HANDLED_WITHIN: Duration = Duration::from_secs(2);

/// Child process. It is killed on drop, and its output is printed if the test fails.
pub struct Process {
    child: Child,
    output: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `program` with `arguments`. The child's environment is the test's own plus `variables`. Variables
    /// that the developer has set for the programs under test are left out. Every signal has its default action
    /// in the child, even if the test's own process ignores it.
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

    /// Starts a program that listens on the address in the variable `LISTEN_ADDR`, as the samples do. Returns
    /// once it accepts connections there.
    pub async fn spawn_listening(program: impl AsRef<Path>, arguments: &[&str]) -> (Process, SocketAddr) {
        // Another process may take the port between the search for it and the child's bind.
        for _ in 0..5 {
            let address = free_address();
            let listen = address.to_string();
            let mut process = Process::spawn(&program, arguments, &[("LISTEN_ADDR", &listen)]);
            let until = Instant::now() + DEADLINE;
            let mut answered_before = false;
            while process.is_running() && Instant::now() < until {
                // The test connects twice: a program may bind the port for a moment, only to see if it is
                // free.
                let answers = TcpStream::connect(address).is_ok() && process.is_running();
                if answers && answered_before {
                    return (process, address);
                }
                answered_before = answers;
                tokio::time::sleep(POLL).await;
            }
            assert!(
                process.output().contains("in use"),
                "{} does not answer on its port",
                program.as_ref().display()
            );
        }
        panic!("{}: found no free port in five tries", program.as_ref().display());
    }

    /// Runs `program` until it exits, which must happen within [`DEADLINE`]. Returns its exit code and its
    /// output.
    pub async fn run(
        program: impl AsRef<Path>,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> (Option<i32>, String) {
        let mut process = Process::spawn(program, arguments, variables);
        let status = process.ended(DEADLINE).await;
        (status.code(), process.output())
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns true if the process has not exited yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal to the process, as soon as the process handles this signal, but after two seconds in any
    /// case. A server accepts connections before it handles signals, so on a busy machine a signal could kill it.
    pub fn signal(&self, signal: Signal) {
        let until = Instant::now() + HANDLED_WITHIN;
        let is_for_servers = matches!(signal, SIGTERM | SIGINT | SIGHUP | SIGQUIT | SIGUSR1);
        while is_for_servers && !self.handles(signal) && Instant::now() < until {
            thread::sleep(POLL);
        }
        let id = Pid::from_raw(self.child.id().cast_signed());
        if let Err(error) = kill(id, signal) {
            panic!("cannot send {signal} to process {id}: {error}");
        }
    }

    fn handles(&self, signal: Signal) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        signals(&status, "SigCgt:").contains(&(signal as i32))
    }

    /// Waits until the process exits. Fails the test if it still runs after `deadline`.
    pub async fn ended(&mut self, deadline: Duration) -> ExitStatus {
        let until = Instant::now() + deadline;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    // The last lines may still be in the pipes; the readers end at the end of the pipes.
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

    /// Returns the output so far, of both streams.
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
    /// Ends the process with SIGTERM if coverage is measured. A process that is killed writes no profile, and
    /// its coverage would be lost.
    fn let_write_profile(&mut self) {
        if std::env::var_os("LLVM_PROFILE_FILE").is_none() {
            return;
        }
        // The second signal ends a gateway that drains.
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
        // The kill fails if the process has already exited, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- output of process {}:\n{}\n---", self.child.id(), self.output());
        }
    }
}

/// Makes child processes start with the default action for every signal.
///
/// A child process also ignores the signals that its parent ignores (POSIX, `exec`). A shell without job
/// control starts background commands with SIGINT and SIGQUIT ignored, and `nohup` ignores SIGHUP. A child
/// that a test ends with Ctrl-C would then keep running. `exec` resets only signals that are *caught*. So
/// each ignored signal gets a handler that does nothing: this process still ignores the signal, but its
/// children do not. The standard library handles SIGPIPE and the mask of blocked signals.
fn default_signals_in_children() {
    static CAUGHT: OnceLock<()> = OnceLock::new();
    CAUGHT.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        // Every Rust program ignores SIGPIPE.
        let ignored =
            signals(&status, "SigIgn:").into_iter().filter(|signal| *signal != Signal::SIGPIPE as i32);
        for signal in ignored {
            // Some signals cannot be caught (SIGKILL), but those cannot be ignored either.
            let _ = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)));
        }
    });
}

/// Returns the standard signals that a line of a process's `/proc/PID/status` names, such as `SigIgn:`.
fn signals(status: &str, line: &str) -> Vec<i32> {
    let mask = status.lines().find_map(|text| text.strip_prefix(line));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    (1..=31).filter(|signal| mask & (1 << (signal - 1)) != 0).collect()
}

fn keep_lines(stream: Option<impl Read + Send + 'static>, output: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in stream.into_iter().flat_map(|stream| BufReader::new(stream).lines()) {
            let Ok(line) = line else { break };
            output.lock().push(line);
        }
    })
}

/// Returns an address on loopback with a port that is free now. The port is below the range from which the
/// kernel gives ports to outgoing connections, so that no such connection can take it first.
pub fn free_address() -> SocketAddr {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Tests run in several processes at once, so each process starts its search at another port.
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
    fn signals_are_read_from_proc_status() {
        let status = "Name:\tx\nSigBlk:\t0000000000000007\nSigIgn:\t0000000180001007\nSigCgt:\t4001\n";
        assert_eq!(signals(status, "SigIgn:"), [1, 2, 3, 13]);
        assert_eq!(signals(status, "SigCgt:"), [1, 15]);
        assert_eq!(signals("Name:\tx\n", "SigIgn:"), [0; 0]);
    }

    #[tokio::test]
    async fn a_signal_waits_until_the_process_handles_it() {
        let late = "sleep 0.3; trap 'echo handled; exit 7' TERM; while :; do sleep 0.01; done";
        let mut process = Process::spawn("sh", &["-c", late], &[]);
        process.signal(Signal::SIGTERM);
        assert_eq!(process.ended(DEADLINE).await.code(), Some(7));
        assert_eq!(process.output(), "handled");
    }
}
