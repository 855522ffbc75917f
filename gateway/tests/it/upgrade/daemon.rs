//! Running as a daemon and under another user.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::kill;
use nix::unistd::{Pid, User, geteuid};
use testkit::{DEADLINE, Origin, Process, Signal, eventually};

use super::House;
use crate::support::{ConfigFile, GATEWAY, Setup};

/// Process that is not a child of the test, killed when this is dropped.
pub(super) struct Daemon(pub(super) u32);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.cast_signed()), Signal::SIGKILL);
    }
}

fn is_running(pid: u32) -> bool {
    kill(Pid::from_raw(pid.cast_signed()), None).is_ok()
        && !std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

async fn run_daemon(file: &ConfigFile, more: &[&str]) -> (Option<i32>, String) {
    let path = file.path().display().to_string();
    Process::run(GATEWAY, &[&["run", "--daemon", "--config", &path], more].concat(), &[]).await
}

fn logging_to(log: &Path, house: &House) -> ConfigFile {
    house.config(Setup {
        proxy: &format!("pid_file = {:?}\n", house.pid_file()),
        tables: &format!("[logging]\noutput = \"file\"\nfile_path = {log:?}\n"),
    })
}

#[tokio::test]
async fn daemon_command_returns_when_listening_and_can_be_upgraded() {
    let origin = Origin::start().await;
    let house = House::over(&[&origin]);
    let log = house.directory.path().join("gateway.log");
    let file = logging_to(&log, &house);
    let (code, said) = run_daemon(&file, &[]).await;
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let first = house.pid();
    let _daemon = Daemon(first);
    assert!(is_running(first));
    // The daemon leads a new session and has no controlling terminal.
    let stat = std::fs::read_to_string(format!("/proc/{first}/stat")).unwrap();
    let session: u32 = stat.rsplit(')').next().unwrap().split_whitespace().nth(3).unwrap().parse().unwrap();
    assert_eq!(session, first);
    for descriptor in 0..3 {
        let target = std::fs::read_link(format!("/proc/{first}/fd/{descriptor}")).unwrap();
        assert_eq!(target, Path::new("/dev/null"));
    }
    let line = std::fs::read_to_string(&log).unwrap();
    let address = line.lines().find_map(|line| line.split("listening on ").nth(1)).unwrap();
    let url = format!("{address}/bytes/66");
    let client = testkit::Client::new();
    assert_eq!(client.get(&url).await.status, 200);

    let (code, said) = run_daemon(&file, &["--upgrade"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("process {first} ")), "{said}");
    let second = house.pid();
    let _daemon = Daemon(second);
    assert!(second != first && is_running(second));
    assert_eq!(client.get(&url).await.status, 200);
    eventually!(within Duration::from_secs(10), !is_running(first), "the old one still runs");
    assert_eq!(client.get(&url).await.status, 200);
}

#[tokio::test]
async fn a_daemon_that_fails_is_exit_code_1_with_its_error() {
    let origin = Origin::start().await;
    let house = House::over(&[&origin]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let log = house.directory.path().join("gateway.log");
    let file = logging_to(&log, &house);
    let text = std::fs::read_to_string(file.path()).unwrap();
    let address = taken.local_addr().unwrap();
    let listen = format!("listen_addr_http = \"{address}\"");
    file.replace(&text.replace("listen_addr_http = \"127.0.0.1:0\"", &listen));
    let (code, said) = run_daemon(&file, &[]).await;
    assert_eq!(code, Some(1));
    assert!(
        said.contains(&format!("gateway: cannot listen on {address} (proxy.listen_addr_http)")),
        "{said}"
    );
    assert!(said.contains("--daemon: the gateway has not started; its messages above say why"), "{said}");
    assert!(!house.pid_file().exists());

    let (code, said) = run_daemon(&house.config(Setup::default()), &[]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("no console for the log (logging.output = \"console\")"), "{said}");
}

#[tokio::test]
async fn unknown_or_forbidden_user_is_a_clear_error() {
    let house = House::over(&[&Origin::start().await]);
    let start = async |proxy: &str| {
        let file = house.config(Setup { proxy, ..Setup::default() });
        Process::run(GATEWAY, &["-c", &file.path().display().to_string()], &[]).await
    };
    let (code, said) = start("user = \"no-such-user\"").await;
    assert_eq!(
        (code, said.as_str()),
        (Some(1), "gateway: proxy.user: there is no user 'no-such-user' on this machine")
    );
    let (code, said) = start("group = \"no-such-group\"").await;
    assert_eq!(
        (code, said.as_str()),
        (Some(1), "gateway: proxy.group: there is no group 'no-such-group' on this machine")
    );
    if !geteuid().is_root() {
        let (code, said) = start("user = \"root\"").await;
        assert_eq!(code, Some(1));
        assert!(said.contains("proxy.user = \"root\" requires root"), "{said}");
    }
}

/// Needs root. Without root, the test does nothing.
#[tokio::test]
async fn root_becomes_configured_user_and_hands_over_to_root() {
    let Ok(Some(nobody)) = User::from_name("nobody") else { return };
    if !geteuid().is_root() {
        return;
    }
    let origin = Origin::start().await;
    let house = House::over(&[&origin]);
    // The new user must be able to write the pid file here. The directory of the upgrade socket belongs to root.
    std::os::unix::fs::chown(house.directory.path(), Some(nobody.uid.as_raw()), None).unwrap();
    let sockets = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(sockets.path(), open).unwrap();
    let socket = sockets.path().join("upgrade.sock");
    let log = house.directory.path().join("gateway.log");
    let file = ConfigFile::new(&crate::support::config(
        &[origin.address()],
        Setup {
            proxy: &format!(
                "upgrade_sock = {socket:?}\npid_file = {:?}\nuser = \"nobody\"\n",
                house.pid_file()
            ),
            tables: &format!("[logging]\noutput = \"file\"\nfile_path = {log:?}\n"),
        },
    ));
    let path = file.path().display().to_string();
    let mut old = Process::spawn(GATEWAY, &["-c", &path], &[]);
    eventually!(house.pid() == old.id(), "{}", old.output());
    let status = std::fs::read_to_string(format!("/proc/{}/status", old.id())).unwrap();
    let ids = format!("Uid:\t{0}\t{0}\t{0}\t{0}\n", nobody.uid);
    assert!(
        status.contains(&ids)
            && status.contains(
                &ids.replace("Uid", "Gid").replace(&nobody.uid.to_string(), &nobody.gid.to_string())
            ),
        "{status}"
    );
    assert_eq!(log.metadata().unwrap().uid(), nobody.uid.as_raw(), "opened after root was given up");

    let new = Process::spawn(GATEWAY, &["--upgrade", "-c", &path], &[]);
    eventually!(house.pid() == new.id(), "{}", new.output());
    assert!(old.ended(Duration::from_secs(10)).await.success());
    new.signal(Signal::SIGTERM);
    let mut new = new;
    assert!(new.ended(DEADLINE).await.success());
}
