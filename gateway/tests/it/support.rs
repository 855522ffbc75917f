//! A gateway of a test's own: configured by a file, on free ports, ended with the test.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use testkit::{Client, Origin, Process, Response, eventually};

/// The binary under test.
pub(crate) const GATEWAY: &str = env!("CARGO_BIN_EXE_gateway");

/// A running gateway.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    metrics: SocketAddr,
    client: Client,
    file: ConfigFile,
}

/// A configuration file in a directory of its own.
pub(crate) struct ConfigFile {
    directory: TempDir,
}

impl ConfigFile {
    /// A file with `text` in it.
    pub(crate) fn new(text: &str) -> ConfigFile {
        let file = ConfigFile { directory: tempfile::tempdir().unwrap() };
        file.replace(text);
        file
    }

    /// Where it is.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("gateway.toml")
    }

    /// Replaces it in one step, as editors do.
    pub(crate) fn replace(&self, text: &str) {
        let draft = self.directory.path().join(".draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(&draft, self.path()).unwrap();
    }
}

/// What a test adds to a configuration that is otherwise the default one.
#[derive(Clone, Copy, Default)]
pub(crate) struct Setup<'a> {
    /// Keys of `[proxy]`.
    pub(crate) proxy: &'a str,
    /// Whole tables.
    pub(crate) tables: &'a str,
}

impl Gateway {
    /// A gateway over `origins`, with the ids `origin-0`, `origin-1` and so on.
    pub(crate) async fn start(origins: &[&Origin], setup: Setup<'_>) -> Gateway {
        let addresses: Vec<SocketAddr> = origins.iter().map(|origin| origin.address()).collect();
        Gateway::start_over(&addresses, setup).await
    }

    /// A gateway over whatever may be at `backends`.
    pub(crate) async fn start_over(backends: &[SocketAddr], setup: Setup<'_>) -> Gateway {
        Gateway::start_with_config(&config(backends, setup)).await
    }

    /// A gateway with a configuration of the test's own; its listeners must have port 0.
    pub(crate) async fn start_with_config(config: &str) -> Gateway {
        let (file, process) = Gateway::spawn(config);
        let address = address_in(&process.line("listening on http://").await);
        let metrics = address_in(&process.line("metrics on http://").await);
        Gateway { process, address, metrics, client: Client::new(), file }
    }

    /// A gateway over `origins` that logs to the file at `log`, as `tables` must say.
    pub(crate) async fn start_logging_to(log: &Path, origins: &[&Origin], tables: &str) -> Gateway {
        let addresses: Vec<SocketAddr> = origins.iter().map(|origin| origin.address()).collect();
        let (file, process) = Gateway::spawn(&config(&addresses, Setup { tables, ..Setup::default() }));
        let said = || std::fs::read_to_string(log).unwrap_or_default();
        eventually!(said().contains("metrics on http://"));
        let address = |what: &str| address_in(said().lines().find(|line| line.contains(what)).unwrap());
        let (address, metrics) = (address("listening on http://"), address("metrics on http://"));
        Gateway { process, address, metrics, client: Client::new(), file }
    }

    /// Replaces the file that it was started with.
    pub(crate) fn edit(&self, config: &str) {
        self.file.replace(config);
    }

    /// Where that file is.
    pub(crate) fn file(&self) -> PathBuf {
        self.file.path()
    }

    fn spawn(config: &str) -> (ConfigFile, Process) {
        let file = ConfigFile::new(config);
        let path = file.path().display().to_string();
        let process = Process::spawn(GATEWAY, &["--config", &path], &[]);
        (file, process)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A GET through the gateway, on a connection that is kept.
    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).await
    }

    /// A POST through the gateway.
    pub(crate) async fn post(&self, path: &str, body: &str) -> Response {
        self.client.post(self.url(path), body.to_owned()).await
    }

    /// A GET from the metrics listener.
    pub(crate) async fn monitor(&self, path: &str) -> Response {
        self.client.get(format!("http://{}{path}", self.metrics)).await
    }

    /// The value of the one series that begins with `series`.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text = self.monitor("/metrics").await.text();
        let line = text.lines().find(|line| line.starts_with(series));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        value.unwrap_or_else(|| panic!("no series {series} in\n{text}"))
    }
}

/// A configuration with one catch-all virtual host over `backends`.
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

/// The address in a line such as "listening on http://127.0.0.1:1234/metrics".
fn address_in(line: &str) -> SocketAddr {
    let address = line.split("http://").nth(1).unwrap_or_default();
    let address = address.split(['/', '"']).next().unwrap_or_default();
    address.parse().unwrap_or_else(|_| panic!("no address in {line:?}"))
}
