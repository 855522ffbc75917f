//! Failed hand-overs: the old process must go on serving, and the next attempt must be able to succeed.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use testkit::{DEADLINE, Origin, Signal, eventually};

use super::{House, spawn_successor};
use crate::support::{Gateway, Setup};

const FAILED: &str = "proxy_upgrades_total{result=\"failed\"}";

async fn serves_on(gateway: &mut Gateway) {
    assert!(gateway.process.is_running());
    assert_eq!(gateway.get("/bytes/66").await.status, 200);
    assert_eq!(gateway.monitor("/readyz").await.status, 200);
    assert_eq!(gateway.read("/config").await["proxy"]["threads"], 0);
}

/// Stops the old process with SIGTERM. The drain after the hand-over would wait for the connections that the
/// test keeps open.
async fn let_go(mut old: Gateway) {
    old.process.signal(Signal::SIGTERM);
    assert!(old.process.ended(DEADLINE).await.success());
    assert!(!old.process.output().contains("at once"), "{}", old.process.output());
}

#[tokio::test]
async fn sigquit_without_successor_is_one_log_line() {
    let origin = Origin::start().await;
    let house = House::over(&[&origin]);
    let mut gateway = house.start().await;
    gateway.process.signal(Signal::SIGQUIT);
    let line = gateway
        .process
        .line("SIGQUIT: this process continues to serve: no process waits for the listeners on")
        .await;
    assert!(line.contains("start the successor first (gateway run --upgrade)"), "{line}");
    assert_eq!(gateway.metric(FAILED).await, 1.0);
    serves_on(&mut gateway).await;
}

#[tokio::test]
async fn a_successor_that_cannot_start_changes_nothing() {
    let origin = Origin::start().await;
    let house = House::over(&[&origin]);
    let mut old = house.start().await;
    let pid_file = format!("pid_file = {:?}\n", house.pid_file());

    // A successor with a broken configuration does not ask for the listeners.
    let broken = house.config(Setup { proxy: &format!("{pid_file}thread = 1"), ..Setup::default() });
    let mut successor = spawn_successor(&broken);
    assert_eq!(successor.ended(DEADLINE).await.code(), Some(1));
    assert!(successor.output().contains("unknown key `thread`"), "{}", successor.output());
    assert_eq!(old.metric(FAILED).await, 0.0);

    // A successor that fails for another reason reports it on both sides.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let also = format!("listen_addr_http = [\"127.0.0.1:0\", \"{}\"]", taken.local_addr().unwrap());
    let unlucky = house.config(Setup { proxy: &pid_file, ..Setup::default() });
    let text = std::fs::read_to_string(unlucky.path()).unwrap();
    unlucky.replace(&text.replace("listen_addr_http = \"127.0.0.1:0\"", &also));
    let mut successor = spawn_successor(&unlucky);
    assert_eq!(successor.ended(DEADLINE).await.code(), Some(1));
    assert!(
        successor.output().contains("(proxy.listen_addr_http): Address already in use"),
        "{}",
        successor.output()
    );
    old.process
        .line("SIGQUIT: this process continues to serve: the successor has failed: cannot listen on")
        .await;
    eventually!(old.metric(FAILED).await == 1.0);

    // A successor that has no listener in common must be refused, too.
    let elsewhere =
        house.config(Setup { proxy: &format!("{pid_file}management_api = false"), ..Setup::default() });
    let text = std::fs::read_to_string(elsewhere.path()).unwrap();
    let text = text.replace("listen_addr_http = \"127.0.0.1:0\"", "listen_addr_http = \"[::1]:0\"");
    elsewhere.replace(&text.replace("[metrics]", "[metrics]\nenabled = false"));
    let mut successor = spawn_successor(&elsewhere);
    assert_eq!(successor.ended(DEADLINE).await.code(), Some(1));
    assert!(successor.output().contains("have no listener in common"), "{}", successor.output());

    assert_eq!(house.pid(), old.process.id());
    serves_on(&mut old).await;
    house.succeed().await;
    let_go(old).await;
}

#[tokio::test]
async fn successor_killed_with_listeners_leaves_old_process_serving() {
    let origin = Origin::start().await;
    let house = House::over(&[&origin]);
    let mut old = house.start().await;
    // Opening a pipe without a reader blocks. At this point the successor has the listeners and does not serve yet.
    let pipe = house.directory.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let stuck = house.config(Setup {
        proxy: &format!("pid_file = {:?}\n", house.pid_file()),
        tables: &format!("[logging]\noutput = \"file\"\nfile_path = {pipe:?}\n"),
    });
    let mut successor = spawn_successor(&stuck);
    successor.line("asked the running gateway").await;
    eventually!(!house.socket().exists());
    old.process.signal(Signal::SIGQUIT);
    old.process.line("the listeners are already being handed over").await;
    serves_on(&mut old).await;
    successor.signal(Signal::SIGKILL);
    successor.ended(DEADLINE).await;
    old.process
        .line("SIGQUIT: this process continues to serve: the successor has not taken over: it has ended")
        .await;
    serves_on(&mut old).await;

    let new = house.succeed().await;
    let_go(old).await;
    assert_eq!(new.get("/bytes/66").await.status, 200);
}

#[tokio::test]
async fn sigterm_during_hand_over_ends_the_old_process() {
    let origin = Origin::start().await;
    let house = House::over(&[&origin]);
    let mut old = house.start().await;
    let waiting = UnixListener::bind(house.socket()).unwrap();
    old.process.signal(Signal::SIGQUIT);
    let (mut successor, _) = waiting.accept().unwrap();
    assert_eq!(successor.read(&mut [0; 1]).unwrap(), 1);
    old.process.signal(Signal::SIGTERM);
    assert!(old.process.ended(DEADLINE).await.success());
    assert!(!house.pid_file().exists());
}

#[tokio::test]
async fn invalid_messages_on_the_upgrade_socket_are_rejected() {
    let origin = Origin::start().await;
    let house = House::over(&[&origin]);
    let mut old = house.start().await;

    // The test takes the place of a successor.
    let waiting = UnixListener::bind(house.socket()).unwrap();
    old.process.signal(Signal::SIGQUIT);
    let (mut successor, _) = waiting.accept().unwrap();
    successor.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    old.process
        .line("the successor has not taken over: it has sent a message that this version does not understand")
        .await;
    drop((waiting, successor));
    serves_on(&mut old).await;

    // The test takes the place of the old process. The stale socket is replaced without help of an operator.
    assert!(house.socket().exists());
    let file = house.config(Setup::default());
    let successor = spawn_successor(&file);
    successor.line("send SIGQUIT to the running gateway").await;
    for said in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"", b"{\"listeners\":[]}x\n", b"\"ready\"\n"] {
        UnixStream::connect(house.socket()).unwrap().write_all(said).unwrap();
    }
    let missing = br#"{"listeners":[{"key":"a","asked":"127.0.0.1:1","bound":"127.0.0.1:1"}]}"#;
    UnixStream::connect(house.socket()).unwrap().write_all(&[missing, &b"\n"[..]].concat()).unwrap();
    eventually!(successor.output().matches("still waiting").count() == 5);

    // A second successor would interfere with the first one.
    let mut second = spawn_successor(&file);
    assert_eq!(second.ended(DEADLINE).await.code(), Some(1));
    assert!(second.output().contains("another process already waits on"), "{}", second.output());

    old.process.signal(Signal::SIGQUIT);
    let new = Gateway::from_process(successor, file).await;
    old.process.line("another process has the listeners").await;
    let_go(old).await;
    assert_eq!(new.get("/bytes/66").await.status, 200);
}

/// Takes the place of an old process: hands no listener to the successor of `house`, and waits until the
/// successor serves.
fn hand_nothing_over(house: &House) -> UnixStream {
    let mut old = UnixStream::connect(house.socket()).unwrap();
    old.set_read_timeout(Some(DEADLINE)).unwrap();
    old.write_all(b"{\"listeners\":[]}\n").unwrap();
    let mut said = [0; 8];
    old.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"\"ready\"\n");
    old
}

#[tokio::test]
async fn aborted_successor_drains_and_exits_with_code_1() {
    let origin = Origin::start().await;
    let house = House::over(&[&origin]);
    let file = house.config(Setup::default());
    let process = spawn_successor(&file);
    process.line("send SIGQUIT to the running gateway").await;
    let mut old = hand_nothing_over(&house);
    let mut gateway = Gateway::from_process(process, file).await;
    assert_eq!(gateway.get("/bytes/66").await.status, 200, "both serve");
    old.write_all(b"{\"abort\":\"it took too long\"}\n").unwrap();
    gateway.process.line("stopping: another process has the listeners").await;
    gateway.process.signal(Signal::SIGTERM);
    assert_eq!(gateway.process.ended(DEADLINE).await.code(), Some(1));
    let said = gateway.process.output();
    assert!(said.contains("--upgrade: the running gateway continues to serve: it took too long"), "{said}");
}

#[tokio::test]
async fn silent_exit_of_old_process_leaves_listeners_to_successor() {
    let origin = Origin::start().await;
    let house = House::over(&[&origin]);
    let file = house.config_with_pid_file();
    let process = spawn_successor(&file);
    process.line("names no running gateway").await;
    drop(hand_nothing_over(&house));
    let gateway = Gateway::from_process(process, file).await;
    eventually!(house.pid() == gateway.process.id());
    gateway.process.line("the previous process has ended; its listeners were taken over").await;
    assert_eq!(gateway.get("/bytes/66").await.status, 200);
}
