//! Notifications to systemd, and a check of the service unit.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use testkit::{DEADLINE, Origin, Process, Signal, eventually};

use super::House;
use super::daemon::Daemon;
use crate::support::{GATEWAY, Gateway, Setup};

#[tokio::test]
async fn the_service_manager_hears_of_start_upgrade_and_stop() {
    let origin = Origin::start().await;
    let house = House::over(&[&origin]);
    let path = house.directory.path().join("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let hear = || {
        let mut bytes = [0; 256];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
    };
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let file = house.config_with_pid_file();
    let config = file.path().display().to_string();
    let mut old = Process::spawn(GATEWAY, &["-c", &config], &variables);
    assert_eq!(hear(), format!("MAINPID={}\nREADY=1", old.id()));
    eventually!(house.pid() == old.id());
    let mut new = Process::spawn(GATEWAY, &["--upgrade", "-c", &config], &variables);
    // The message comes from the old process, because systemd still trusts only that one.
    assert_eq!(hear(), format!("MAINPID={}", new.id()));
    assert_eq!(hear(), format!("MAINPID={}\nREADY=1", new.id()));
    assert!(old.ended(Duration::from_secs(10)).await.success());
    new.signal(Signal::SIGTERM);
    // The old process must not have reported before that the service stops.
    assert_eq!(hear(), "STOPPING=1");
    assert!(new.ended(DEADLINE).await.success());
}

/// Runs the unit's `ExecReload` as systemd does: the pid of the old process is in the environment, and standard
/// output is the journal, which is a file here.
#[tokio::test]
async fn a_reload_is_an_upgrade_and_goes_on_logging_to_the_journal() {
    let origin = Origin::start().await;
    let house = House::over(&[&origin]);
    let notify = house.directory.path().join("notify.sock");
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut old = Gateway::start_from(house.config(Setup::default()), &[]).await;

    let file = house.config(Setup::default());
    let path = house.directory.path().join("journal");
    let journal = File::create(&path).unwrap();
    let stream = journal.metadata().unwrap();
    let mut reload = Command::new(GATEWAY)
        .args(["run", "--upgrade", "--daemon", "--config", &file.path().display().to_string()])
        .env("MAINPID", old.process.id().to_string())
        .env("JOURNAL_STREAM", format!("{}:{}", stream.dev(), stream.ino()))
        .env("NOTIFY_SOCKET", &notify)
        .stdin(Stdio::null())
        .stdout(journal.try_clone().unwrap())
        .stderr(journal)
        .spawn()
        .unwrap();
    let reload_id = reload.id();
    let mut bytes = [0; 256];
    let length = manager.recv(&mut bytes).unwrap();
    let said = String::from_utf8_lossy(&bytes[..length]).into_owned();
    let new: u32 = said.lines().next().unwrap().trim_start_matches("MAINPID=").parse().unwrap();
    let _daemon = Daemon(new);
    assert_ne!(
        parent_of(new),
        reload_id,
        "systemd kills a main process at once that was not its child when told of"
    );

    eventually!(reload.try_wait().unwrap().is_some_and(|status| status.success()));
    assert!(old.process.ended(Duration::from_secs(10)).await.success());
    assert_eq!(old.get("/bytes/66?after").await.status, 200);
    let logged = || std::fs::read_to_string(&path).unwrap();
    assert!(logged().contains(&format!("process {} (MAINPID), for its listeners", old.process.id())));
    eventually!(logged().contains("GET /bytes/66 200"), "{}", logged());
}

fn parent_of(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Uses `systemd-analyze`, which is part of systemd. Without it, the test checks nothing and says so.
#[test]
fn systemd_accepts_the_unit_and_its_hardening() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/gateway.service");
    let analyze = |arguments: &[&str]| Command::new("systemd-analyze").args(arguments).output();
    if analyze(&["--version"]).is_err() {
        eprintln!("skipped: there is no systemd-analyze here");
        return;
    }
    // The binary that the unit names is not installed on test machines.
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("gateway.service");
    let text = std::fs::read_to_string(&unit).unwrap().replace("/usr/local/bin/gateway", GATEWAY);
    std::fs::write(&copy, text).unwrap();
    let copy = copy.to_str().unwrap();
    let verified = analyze(&["verify", "--man=no", copy]).unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("gateway.service")).collect();
    assert!(verified.status.success() && ours.is_empty(), "{said}");
    // The exposure level goes from 0.0 (locked down) to 10.0. The network access that remains is the purpose of
    // the service.
    let secured = analyze(&["security", "--offline=yes", "--threshold=20", copy]).unwrap();
    let said =
        String::from_utf8_lossy(&secured.stdout).into_owned() + &String::from_utf8_lossy(&secured.stderr);
    assert!(secured.status.success(), "{said}");
}
