//! A gateway for one test: configured by a file, on free ports, and stopped at the end of the test.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::Request;
use serde_json::Value;
use tempfile::TempDir;
use testkit::{Client, DEADLINE, Origin, Process, Response, Signal, eventually};

/// Path of the binary under test.
pub(crate) const GATEWAY: &str = env!("CARGO_BIN_EXE_gateway");

/// A running gateway.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) management: SocketAddr,
    metrics: SocketAddr,
    client: Client,
    file: ConfigFile,
}

/// A configuration file in a temporary directory.
pub(crate) struct ConfigFile {
    directory: TempDir,
}

impl ConfigFile {
    /// Creates a file with this text.
    pub(crate) fn new(text: &str) -> ConfigFile {
        let file = ConfigFile { directory: tempfile::tempdir().unwrap() };
        file.replace(text);
        file
    }

    /// Returns the path of the file.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("gateway.toml")
    }

    /// Replaces the file atomically, as editors do.
    pub(crate) fn replace(&self, text: &str) {
        let draft = self.directory.path().join(".draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(&draft, self.path()).unwrap();
    }
}

/// Additions of a test to the default configuration.
#[derive(Clone, Copy, Default)]
pub(crate) struct Setup<'a> {
    /// Keys of the `[proxy]` table.
    pub(crate) proxy: &'a str,
    /// Additional tables.
    pub(crate) tables: &'a str,
}

impl Gateway {
    /// Returns the memory that the gateway has written to and holds, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Starts a gateway over `origins`, whose backend ids are `origin-0`, `origin-1` and so on.
    pub(crate) async fn start(origins: &[&Origin], setup: Setup<'_>) -> Gateway {
        let addresses: Vec<SocketAddr> = origins.iter().map(|origin| origin.address()).collect();
        Gateway::start_over(&addresses, setup).await
    }

    /// Starts a gateway over any servers at the addresses `backends`.
    pub(crate) async fn start_over(backends: &[SocketAddr], setup: Setup<'_>) -> Gateway {
        Gateway::start_with_config(&config(backends, setup)).await
    }

    /// Starts a gateway with this configuration, whose listeners must have port 0.
    pub(crate) async fn start_with_config(config: &str) -> Gateway {
        Gateway::start_from(ConfigFile::new(config), &[]).await
    }

    /// Starts a gateway with an existing file and these environment variables.
    pub(crate) async fn start_from(file: ConfigFile, variables: &[(&str, &str)]) -> Gateway {
        let path = file.path().display().to_string();
        Gateway::from_process(Process::spawn(GATEWAY, &["--config", &path], variables), file).await
    }

    /// Wraps a gateway process that the test has started with `file`.
    pub(crate) async fn from_process(process: Process, file: ConfigFile) -> Gateway {
        let address = address_in(&process.line("listening on http://").await);
        let management = address_in(&process.line("page on http://").await);
        let metrics = address_in(&process.line("metrics on http://").await);
        Gateway { process, address, management, metrics, client: Client::new(), file }
    }

    /// Kills the gateway, as a power cut would, and starts another one with the same file.
    pub(crate) async fn killed_and_started_again(self) -> Gateway {
        let Gateway { mut process, file, .. } = self;
        process.signal(Signal::SIGKILL);
        process.ended(DEADLINE).await;
        Gateway::start_from(file, &[]).await
    }

    /// Starts a gateway over `origins` that logs to the file at `log`. The `tables` must configure this.
    pub(crate) async fn start_logging_to(log: &Path, origins: &[&Origin], tables: &str) -> Gateway {
        let addresses: Vec<SocketAddr> = origins.iter().map(|origin| origin.address()).collect();
        let file = ConfigFile::new(&config(&addresses, Setup { tables, ..Setup::default() }));
        let process = Process::spawn(GATEWAY, &["--config", &file.path().display().to_string()], &[]);
        Gateway::from_process_logging_to(process, file, log).await
    }

    /// Wraps a gateway process that the test has started with `file`, and that logs to the file at `log`.
    pub(crate) async fn from_process_logging_to(process: Process, file: ConfigFile, log: &Path) -> Gateway {
        let said = || std::fs::read_to_string(log).unwrap_or_default();
        eventually!(said().contains("metrics on http://"));
        let address = |what: &str| address_in(said().lines().find(|line| line.contains(what)).unwrap());
        let (address, metrics) = (address("listening on http://"), address("metrics on http://"));
        let management =
            self::address_in(said().lines().find(|line| line.contains("page on http://")).unwrap());
        Gateway { process, address, management, metrics, client: Client::new(), file }
    }

    /// Returns the address of the HTTPS listener.
    pub(crate) async fn https(&self) -> SocketAddr {
        address_in(&self.process.line("listening on https://").await)
    }

    /// Replaces the configuration file.
    pub(crate) fn edit(&self, config: &str) {
        self.file.replace(config);
    }

    /// Returns the path of the configuration file.
    pub(crate) fn file(&self) -> PathBuf {
        self.file.path()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sends a GET through the gateway, on a connection that is reused.
    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).await
    }

    /// Sends a GET through the gateway for the virtual host `domain`.
    pub(crate) async fn get_from(&self, domain: &str, path: &str) -> Response {
        let request = Request::get(self.url(path)).header("Host", domain).body(Bytes::new()).unwrap();
        self.client.send(request).await
    }

    /// Sends a POST through the gateway.
    pub(crate) async fn post(&self, path: &str, body: &str) -> Response {
        self.client.post(self.url(path), body.to_owned()).await
    }

    /// Sends a request to the management API, with a JSON body if given.
    pub(crate) async fn api(&self, method: &str, path: &str, body: Option<Value>) -> Response {
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        self.client.send(self.api_request(method, path, body)).await
    }

    /// Returns a request to the management API.
    pub(crate) fn api_request(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Request<Bytes> {
        let url = format!("http://{}/api/v1{path}", self.management);
        let request = Request::builder().method(method).uri(url).header("content-type", "application/json");
        request.body(body.into()).unwrap()
    }

    /// Returns the JSON of a GET from the management API. Fails if the status is not 200.
    pub(crate) async fn read(&self, path: &str) -> Value {
        let answer = self.api("GET", path, None).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// Returns the address of the metrics listener.
    pub(crate) fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    /// Sends a GET to the metrics listener.
    pub(crate) async fn monitor(&self, path: &str) -> Response {
        self.client.get(format!("http://{}{path}", self.metrics)).await
    }

    /// Returns the value of the only series that begins with `series`.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text = self.monitor("/metrics").await.text();
        let line = text.lines().find(|line| line.starts_with(series));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        value.unwrap_or_else(|| panic!("no series {series} in\n{text}"))
    }
}

/// Returns a configuration for tests of changes. The domain `shop.example` is served by the backends with the
/// tag `a`. The backends with the tag `b` serve no domain yet.
pub(crate) fn two_tags(a: SocketAddr, b: SocketAddr, more: &str) -> String {
    format!(
        "# Ours.\n[proxy]\nlisten_addr_http = \"127.0.0.1:0\"\nmanagement_api_addr = \"127.0.0.1:0\"\n\
         [metrics]\nlisten_addr = \"127.0.0.1:0\"\n[health_check]\nenabled = false\n\
         [[virtual_hosts]]\ndomain = \"shop.example\" # the shop\nenabled_backends_tag = \"a\"\n{more}\n\
         [[backends]]\nid = \"web-a\"\naddress = \"{a}\"\ntags = [\"a\"]\n\
         [[backends]]\nid = \"web-b\"\naddress = \"{b}\"\ntags = [\"b\"]\n"
    )
}

/// Returns a configuration with one catch-all virtual host over `backends`.
pub(crate) fn config(backends: &[SocketAddr], Setup { proxy, tables }: Setup<'_>) -> String {
    let mut config = format!(
        "[proxy]\nlisten_addr_http = \"127.0.0.1:0\"\nmanagement_api_addr = \"127.0.0.1:0\"\n{proxy}\n\
         [metrics]\nlisten_addr = \"127.0.0.1:0\"\n{tables}\n\
         [[virtual_hosts]]\ndomain = \"*\"\nenabled_backends_tag = \"all\"\n"
    );
    for (i, address) in backends.iter().enumerate() {
        let _ =
            write!(config, "[[backends]]\nid = \"origin-{i}\"\naddress = \"{address}\"\ntags = [\"all\"]\n");
    }
    config
}

/// Returns the address in a line such as "listening on http://127.0.0.1:1234/metrics".
pub(crate) fn address_in(line: &str) -> SocketAddr {
    let address = line.split("://").nth(1).unwrap_or_default();
    let address = address.split(['/', '"']).next().unwrap_or_default();
    address.parse().unwrap_or_else(|_| panic!("no address in {line:?}"))
}
