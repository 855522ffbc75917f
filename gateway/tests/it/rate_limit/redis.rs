//! A real Redis as a child process. It keeps its data in memory only.

use std::path::Path;

use redis::{Client, Value};
use tempfile::TempDir;
use testkit::tls::{Authority, Identity};
use testkit::{DEADLINE, Process, Signal, free_address};

/// Message if Redis is not installed.
const MISSING: &str = "`redis-server` is not installed; `make setup-test` installs it";

/// Returns true if Redis is installed. If not, the caller skips the test, but in CI the test fails.
pub(super) fn is_there() -> bool {
    let is_there = std::process::Command::new("redis-server").arg("--version").output().is_ok();
    assert!(is_there || std::env::var_os("CI").is_none(), "{MISSING}");
    if !is_there {
        eprintln!("SKIPPED: {MISSING}");
    }
    is_there
}

/// A running Redis. It always listens on a Unix socket, which the test itself uses.
pub(super) struct Redis {
    process: Process,
    directory: TempDir,
    arguments: Vec<String>,
}

impl Redis {
    /// Starts a Redis that listens on a Unix socket only.
    pub(super) async fn start() -> Redis {
        Redis::start_with(&["--port", "0"]).await
    }

    /// Starts a Redis that also listens on TCP, and returns its URL.
    pub(super) async fn start_on_tcp() -> (Redis, String) {
        let address = free_address();
        let redis = Redis::start_with(&["--bind", "127.0.0.1", "--port", &address.port().to_string()]).await;
        (redis, format!("redis://{address}"))
    }

    /// Starts a Redis that also listens on TCP with TLS, and returns its URL.
    pub(super) async fn start_on_tls(authority: &Authority, identity: &Identity) -> (Redis, String) {
        let text = |path: &Path| path.display().to_string();
        let address = free_address();
        let redis = Redis::start_with(&[
            "--bind",
            "127.0.0.1",
            "--port",
            "0",
            "--tls-port",
            &address.port().to_string(),
            "--tls-auth-clients",
            "no",
            "--tls-ca-cert-file",
            &text(&authority.certificate_file()),
            "--tls-cert-file",
            &text(&identity.certificate_file()),
            "--tls-key-file",
            &text(&identity.key_file()),
        ])
        .await;
        (redis, format!("rediss://localhost:{}", address.port()))
    }

    async fn start_with(arguments: &[&str]) -> Redis {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("redis.sock").display().to_string();
        let place = directory.path().display().to_string();
        let ours = ["--unixsocket", &socket, "--dir", &place, "--save", "", "--appendonly", "no"];
        let arguments: Vec<String> =
            ours.iter().chain(arguments).map(|argument| (*argument).to_owned()).collect();
        let process = spawn(&arguments).await;
        Redis { process, directory, arguments }
    }

    /// Returns the URL of the Unix socket for a gateway's configuration.
    pub(super) fn url(&self) -> String {
        format!("unix://{}/redis.sock", self.directory.path().display())
    }

    /// Kills the process without a chance to clean up, like a power cut.
    pub(super) async fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.ended(DEADLINE).await;
    }

    /// Starts Redis again at the same addresses, without data.
    pub(super) async fn again(&mut self) {
        self.process = spawn(&self.arguments).await;
    }

    /// Stops the process (SIGSTOP), so that Redis hangs.
    pub(super) fn hang(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// Continues the stopped process.
    pub(super) fn go_on(&self) {
        self.process.signal(Signal::SIGCONT);
    }

    /// Sends a command and returns the reply.
    pub(super) fn ask(&self, words: &[&str]) -> Value {
        let client = Client::open(self.url()).unwrap();
        let mut connection = client.get_connection().unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut connection).unwrap()
    }

    /// Returns the keys that Redis has.
    pub(super) fn keys(&self) -> Vec<String> {
        redis::from_redis_value(self.ask(&["KEYS", "*"])).unwrap()
    }
}

async fn spawn(arguments: &[String]) -> Process {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let process = Process::spawn("redis-server", &arguments, &[]);
    process.line("eady to accept connections").await;
    process
}
