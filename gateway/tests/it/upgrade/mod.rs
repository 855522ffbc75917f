//! Binary upgrades: a new gateway takes the listeners over from the old one without an effect on clients. After
//! every failure of the hand-over, the old process must go on serving.

mod daemon;
mod failures;
mod load;
mod systemd;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use load::Load;
use testkit::tls::{Authority, handshake};
use testkit::{DEADLINE, Origin, Process, Signal, eventually, exchange_over};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{ConfigFile, GATEWAY, Gateway, Setup, config};
use crate::tls;

/// Directory with the upgrade socket and the pid file, which the old and the new gateway share.
struct House {
    directory: tempfile::TempDir,
    backends: Vec<SocketAddr>,
}

impl House {
    fn over(origins: &[&Origin]) -> House {
        let backends = origins.iter().map(|origin| origin.address()).collect();
        House { directory: tempfile::tempdir().unwrap(), backends }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("upgrade.sock")
    }

    fn pid_file(&self) -> PathBuf {
        self.directory.path().join("gateway.pid")
    }

    /// Returns the process id in the pid file; 0 without a file.
    fn pid(&self) -> u32 {
        let text = std::fs::read_to_string(self.pid_file()).unwrap_or_default();
        text.trim().parse().unwrap_or_default()
    }

    /// Returns a configuration with the additions of `setup`.
    fn config(&self, setup: Setup<'_>) -> ConfigFile {
        let proxy = format!("upgrade_sock = {:?}\n{}", self.socket(), setup.proxy);
        ConfigFile::new(&config(&self.backends, Setup { proxy: &proxy, ..setup }))
    }

    /// Returns a configuration with a pid file.
    fn config_with_pid_file(&self) -> ConfigFile {
        let proxy = format!("http2_cleartext = true\npid_file = {:?}\n", self.pid_file());
        self.config(Setup { proxy: &proxy, ..Setup::default() })
    }

    async fn start(&self) -> Gateway {
        let gateway = Gateway::start_from(self.config_with_pid_file(), &[]).await;
        eventually!(self.pid() == gateway.process.id());
        gateway
    }

    /// Starts a successor of the process in the pid file.
    async fn succeed(&self) -> Gateway {
        let file = self.config_with_pid_file();
        let process = spawn_successor(&file);
        let gateway = Gateway::from_process(process, file).await;
        eventually!(self.pid() == gateway.process.id());
        gateway
    }
}

fn spawn_successor(file: &ConfigFile) -> Process {
    Process::spawn(GATEWAY, &["run", "--upgrade", "--config", &file.path().display().to_string()], &[])
}

#[tokio::test]
async fn ten_upgrades_in_a_row_lose_no_request() {
    const PAUSE: Duration = Duration::from_millis(30);
    let origin = Origin::start().await;
    let house = House::over(&[&origin]);
    let mut gateway = house.start().await;
    let load = Load::new()
        .and(4, gateway.address, "/bytes/66", Duration::ZERO)
        .and(8, gateway.address, "/bytes/66", PAUSE)
        .and(2, gateway.address, "/delay/200", Duration::ZERO)
        .and_http2(2, gateway.address, "/bytes/66")
        .and_http2(1, gateway.address, "/delay/200")
        .and(2, gateway.metrics_address(), "/livez", PAUSE)
        .and(2, gateway.management, "/api/v1/openapi.json", PAUSE);
    eventually!(load.answered() > 100);
    let mut before = Vec::new();
    for _ in 0..10 {
        let next = house.succeed().await;
        assert_eq!((next.address, next.management), (gateway.address, gateway.management));
        let at_start = load.answered();
        before.push(std::mem::replace(&mut gateway, next));
        eventually!(load.answered() > at_start + 100);
    }
    for old in &mut before {
        assert!(old.process.ended(Duration::from_secs(15)).await.success(), "{}", old.process.output());
    }
    let (answered, failures) = load.stop().await;
    assert!(failures.is_empty(), "{} of {answered}: {failures:#?}", failures.len());
    assert_eq!(house.pid(), gateway.process.id());
    assert_eq!(gateway.metric("proxy_upgrades_total{result=\"taken_over\"}").await, 1.0);
    gateway.process.signal(Signal::SIGTERM);
    assert!(gateway.process.ended(DEADLINE).await.success());
    assert!(!house.pid_file().exists() && !house.socket().exists());
}

#[tokio::test]
async fn upgrade_drains_requests_and_closes_idle_connections() {
    let origin = Origin::start().await;
    let house = House::over(&[&origin]);
    let mut old = house.start().await;
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut idle = TcpStream::connect(old.address).await.unwrap();
    let mut forgotten = TcpStream::connect(old.address).await.unwrap();
    let mut long = TcpStream::connect(old.address).await.unwrap();
    long.write_all(request("/stream/20?interval_ms=100").as_bytes()).await.unwrap();
    eventually!(origin.received().len() == 1);

    let new = house.succeed().await;
    old.process.line("another process has the listeners").await;
    // A connection that was open before may send one more request.
    idle.write_all(request("/bytes/66").as_bytes()).await.unwrap();
    let mut answer = String::new();
    idle.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
    // The long response is completed by the process that began it.
    let mut answer = String::new();
    eventually!(within Duration::from_secs(10), {
        let mut part = [0; 4096];
        let read = long.read(&mut part).await.unwrap();
        answer.push_str(&String::from_utf8_lossy(&part[..read]));
        answer.contains("chunk 20")
    }, "{answer}");
    assert!(old.process.is_running());
    // A connection without requests is closed at the end.
    assert_eq!(forgotten.read(&mut [0]).await.unwrap(), 0);
    assert!(old.process.ended(Duration::from_secs(15)).await.success());
    assert!(old.process.output().contains("stopped; everything was answered"), "{}", old.process.output());
    assert_eq!(new.get("/bytes/66").await.status, 200);
}

#[tokio::test]
async fn https_listener_is_handed_over() {
    let authority = Authority::new();
    let identity = authority.issue("web.test");
    let origin = Origin::start().await;
    let house = House::over(&[&origin]);
    let keys = format!("upgrade_sock = {:?}\npid_file = {:?}", house.socket(), house.pid_file());
    let text = tls::config(origin.address(), &keys, &[tls::shows("web.test", &identity)]);
    let old = Gateway::start_with_config(&text).await;
    let https = old.https().await;
    eventually!(house.pid() == old.process.id());
    let connect = async || handshake(https, Some("web.test"), |_| Ok(())).await.unwrap();
    let asks = |fields: &str| format!("GET /bytes/66 HTTP/1.1\r\nHost: web.test\r\n{fields}\r\n");
    let before = connect().await;

    let file = ConfigFile::new(&text);
    let new = Gateway::from_process(spawn_successor(&file), file).await;
    eventually!(house.pid() == new.process.id());
    assert_eq!(new.https().await, https);
    old.process.line("another process has the listeners").await;
    let answer = exchange_over(before, asks("").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let answer = exchange_over(connect().await, asks("Connection: close\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn upgrade_without_pid_file_waits_for_sigquit() {
    let origin = Origin::start().await;
    let house = House::over(&[&origin]);
    let mut old = Gateway::start_from(house.config(Setup::default()), &[]).await;
    let successor = house.config(Setup::default());
    let process = spawn_successor(&successor);
    process.line("send SIGQUIT to the running gateway (kill -QUIT PID)").await;
    old.process.signal(Signal::SIGQUIT);
    let new = Gateway::from_process(process, successor).await;
    assert!(old.process.ended(Duration::from_secs(10)).await.success());
    assert_eq!((new.address, new.get("/bytes/66").await.status.as_u16()), (old.address, 200));
}

#[tokio::test]
async fn listeners_come_and_go_with_the_configuration() {
    let origin = Origin::start().await;
    let house = House::over(&[&origin]);
    let mut old = house.start().await;
    let pid_file = format!("pid_file = {:?}\nmanagement_api = false\n", house.pid_file());
    let file = house.config(Setup { proxy: &pid_file, ..Setup::default() });
    let two = "listen_addr_http = [\"127.0.0.1:0\", \"[::1]:0\"]";
    let text = std::fs::read_to_string(file.path()).unwrap();
    file.replace(&text.replace("listen_addr_http = \"127.0.0.1:0\"", two));
    let process = spawn_successor(&file);
    process.line("listening on http://[::1]:").await;
    process.line(&format!("listening on http://{}", old.address)).await;
    process.line(&format!("no longer listening on {},", old.management)).await;
    eventually!(house.pid() == process.id());
    assert!(old.process.ended(Duration::from_secs(10)).await.success());
    assert!(TcpStream::connect(old.management).await.is_err(), "nobody wanted it");
    assert_eq!(old.get("/bytes/66").await.status, 200);
}
