//! Log files: rotated by logrotate, read by goaccess and fail2ban, and lines that cannot be written.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::unistd::{User, geteuid};
use testkit::{DEADLINE, Origin, Process, Signal, eventually};

use crate::keeping::has_own_disks;
use crate::support::{ConfigFile, GATEWAY, Gateway, Setup, config};

fn tables(log: &Path) -> String {
    format!("[logging]\noutput = \"file\"\nfile_path = {log:?}\n")
}

fn read(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

/// Requests continue while the file is renamed several times. Each request must have one line in exactly one of
/// the files.
#[tokio::test]
async fn sigusr1_after_rename_reopens_the_log_without_loss() {
    const ROUNDS: usize = 5;
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("gateway.log");
    let origin = Origin::start().await;
    let gateway = Gateway::start_logging_to(&log, &[&origin], &tables(&log)).await;
    let sender = {
        let (url, stop) = (gateway.url(""), tokio::sync::watch::channel(false));
        let stopped = stop.1;
        let task = tokio::spawn(async move {
            let client = testkit::Client::new();
            let mut sent = 0_usize;
            while !*stopped.borrow() {
                assert_eq!(client.get(format!("{url}/anything/r{sent}.")).await.status, 200);
                sent += 1;
            }
            sent
        });
        (stop.0, task)
    };
    for round in 0..ROUNDS {
        let lines = |text: &str| text.matches("GET /anything/r").count();
        eventually!(lines(&read(&log)) > 20);
        std::fs::rename(&log, directory.path().join(format!("gateway.log.{round}"))).unwrap();
        gateway.process.signal(Signal::SIGUSR1);
        // The new file must exist without a request as the trigger, and must get lines.
        eventually!(read(&log).contains("was opened again"));
    }
    sender.0.send(true).unwrap();
    let sent = sender.1.await.unwrap();
    let all = || {
        let files = std::fs::read_dir(directory.path()).unwrap();
        files.map(|file| read(&file.unwrap().path())).collect::<String>()
    };
    eventually!(all().contains(&format!("GET /anything/r{}. 200", sent - 1)));
    let all = all();
    let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
    for line in all.lines().filter(|line| line.contains("GET /anything/r")) {
        let number = line.split("/anything/r").nth(1).unwrap().split('.').next().unwrap();
        *seen.entry(number.parse().unwrap()).or_default() += 1;
    }
    assert_eq!(seen.len(), sent);
    assert!(seen.iter().enumerate().all(|(i, (number, times))| i == *number && *times == 1), "{seen:?}");
    assert_eq!(gateway.metric("proxy_log_lines_dropped").await, 0.0);
}

/// SIGHUP reloads the configuration and also reopens the log, for operators and tools that send only this signal.
#[tokio::test]
async fn sighup_opens_the_log_again_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let (log, renamed) = (directory.path().join("gateway.log"), directory.path().join("gateway.log.1"));
    let origin = Origin::start().await;
    let gateway = Gateway::start_logging_to(&log, &[&origin], &tables(&log)).await;
    std::fs::rename(&log, &renamed).unwrap();
    gateway.process.signal(Signal::SIGHUP);
    eventually!(read(&log).contains("was opened again"));
    gateway.get("/anything/after").await;
    eventually!(read(&log).contains("/anything/after"));
    assert!(!read(&renamed).contains("/anything/after"));
}

#[tokio::test]
async fn without_a_file_sigusr1_changes_nothing() {
    let origin = Origin::start().await;
    let mut gateway = Gateway::start(&[&origin], Setup::default()).await;
    gateway.process.signal(Signal::SIGUSR1);
    gateway.process.line("there is no file to open again").await;
    assert_eq!(gateway.get("/anything").await.status, 200);
    gateway.process.signal(Signal::SIGTERM);
    assert!(gateway.process.ended(DEADLINE).await.success());
}

/// A draining process still writes log lines, so its file may be renamed, too.
#[tokio::test]
async fn a_process_that_stops_opens_its_log_again_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let (log, renamed) = (directory.path().join("gateway.log"), directory.path().join("gateway.log.1"));
    let origin = Origin::start().await;
    let mut gateway = Gateway::start_logging_to(&log, &[&origin], &tables(&log)).await;
    let url = gateway.url("/stream/10?interval_ms=100");
    let in_flight = tokio::spawn(async move { testkit::Client::new().get(url).await });
    eventually!(origin.count("/stream/10") == 1);
    gateway.process.signal(Signal::SIGTERM);
    eventually!(read(&log).contains("stopping"));
    std::fs::rename(&log, &renamed).unwrap();
    gateway.process.signal(Signal::SIGUSR1);
    assert_eq!(in_flight.await.unwrap().status, 200);
    assert!(gateway.process.ended(DEADLINE).await.success());
    let (first, second) = (read(&renamed), read(&log));
    assert!(
        second.contains("GET /stream/10 200") && second.contains("everything was answered"),
        "{first}---{second}"
    );
}

/// The log is on a private file system that fills up. Requests must succeed and lost lines must be counted.
/// Standard error must have a message when the loss begins and when it ends.
#[tokio::test]
async fn lines_that_a_full_disk_has_no_room_for_are_counted_and_told() {
    if !has_own_disks() {
        return;
    }
    let disk = tempfile::tempdir().unwrap();
    let (at, log) = (disk.path().display().to_string(), disk.path().join("gateway.log"));
    let origin = Origin::start().await;
    let file =
        ConfigFile::new(&config(&[origin.address()], Setup { tables: &tables(&log), ..Setup::default() }));
    let script =
        format!("mount -t tmpfs -o size=64k none {at} && exec {GATEWAY} -c {}", file.path().display());
    let process = Process::spawn("unshare", &["--mount", "--map-root-user", "sh", "-c", &script], &[]);
    let inside = |path: &Path| {
        Path::new(&format!("/proc/{}/root", process.id())).join(path.strip_prefix("/").unwrap())
    };
    let (seen, filler) = (inside(&log), inside(&disk.path().join("filler")));
    let gateway = Gateway::from_process_logging_to(process, file, &seen).await;
    assert_eq!(gateway.get("/anything/before").await.status, 200);
    eventually!(read(&seen).contains("/anything/before"));
    assert_eq!(gateway.metric("proxy_log_lines_dropped").await, 0.0);

    // Fills the file system.
    assert!(std::fs::write(&filler, vec![0; 1 << 20]).is_err());
    // The log's last page has room for some more lines.
    let mut sent = 0;
    eventually!({
        assert_eq!(gateway.get("/anything/lost").await.status, 200);
        sent += 1;
        gateway.process.output().contains("No space left on device")
    });
    for _ in 0..20 {
        assert_eq!(gateway.get("/anything/lost").await.status, 200);
        sent += 1;
    }
    let kept = || {
        read(&seen)
            .lines()
            .filter(|line| line.contains("GET /anything/lost 200") && line.contains("request_id="))
            .count()
    };
    eventually!(gateway.metric("proxy_log_lines_dropped").await >= 20.0);
    let said = gateway.process.output();
    assert_eq!(said.matches("cannot write the log to").count(), 1, "{said}");

    std::fs::remove_file(&filler).unwrap();
    eventually!({
        assert_eq!(gateway.get("/anything/again").await.status, 200);
        gateway.process.output().contains("the log is written to")
    });
    let said = gateway.process.output();
    let told = said.lines().find(|line| line.contains("the log is written to")).unwrap();
    let lines: usize = told.split("again; ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(lines + kept() == sent, "{lines} lost and {} kept of {sent}: {told}", kept());
    eventually!(gateway.metric("proxy_log_lines_dropped").await == lines as f64);
    eventually!(read(&seen).contains("log lines are missing here"));
    // A line that was cut off must end with a newline, so that the next line is complete.
    let text = read(&seen);
    assert!(
        text.lines()
            .filter(|line| line.contains("/anything/again"))
            .all(|line| line.matches("GET ").count() == 1)
    );
}

/// After a change of user, the process reopens the log as that user. In a directory of the user it creates a
/// new file. Elsewhere it continues with the old file, and standard error says why. Only root can change the
/// user.
#[tokio::test]
async fn a_user_that_root_has_become_opens_its_log_again_where_it_may() {
    let Ok(Some(nobody)) = User::from_name("nobody") else { return };
    if !geteuid().is_root() {
        return;
    }
    let origin = Origin::start().await;
    let directory = tempfile::tempdir().unwrap();
    let give_to = |user: u32| std::os::unix::fs::chown(directory.path(), Some(user), None).unwrap();
    give_to(nobody.uid.as_raw());
    let [log, first, second] =
        ["gateway.log", "gateway.log.1", "gateway.log.2"].map(|name| directory.path().join(name));
    let setup = Setup { proxy: "user = \"nobody\"", tables: &tables(&log) };
    let file = ConfigFile::new(&config(&[origin.address()], setup));
    let process = Process::spawn(GATEWAY, &["-c", &file.path().display().to_string()], &[]);
    let gateway = Gateway::from_process_logging_to(process, file, &log).await;
    std::fs::rename(&log, &first).unwrap();
    gateway.process.signal(Signal::SIGUSR1);
    eventually!(read(&log).contains("was opened again"));
    assert_eq!(log.metadata().unwrap().uid(), nobody.uid.as_raw());

    give_to(0);
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&log, &second).unwrap();
    gateway.process.signal(Signal::SIGUSR1);
    let told = gateway.process.line("lines still go to the old file").await;
    assert!(told.contains("Permission denied") && told.contains("send SIGUSR1 again"), "{told}");
    gateway.get("/anything/kept").await;
    eventually!(read(&second).contains("/anything/kept"));
    // Like the option `create` of logrotate.
    std::fs::write(&log, "").unwrap();
    std::os::unix::fs::chown(&log, Some(nobody.uid.as_raw()), None).unwrap();
    gateway.process.signal(Signal::SIGUSR1);
    eventually!(read(&log).contains("was opened again"));
    gateway.get("/anything/after").await;
    eventually!(read(&log).contains("/anything/after"));
}

/// Sends requests for `/anything/rN.`, with N from 0, until `stop` is called.
struct Load {
    stop: tokio::sync::watch::Sender<bool>,
    sent: tokio::task::JoinHandle<usize>,
}

impl Load {
    fn start(gateway: &Gateway) -> Load {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let url = gateway.url("");
        let sent = tokio::spawn(async move {
            let client = testkit::Client::new();
            let mut sent = 0;
            while !*stopped.borrow() {
                assert_eq!(client.get(format!("{url}/anything/r{sent}.")).await.status, 200);
                sent += 1;
            }
            sent
        });
        Load { stop, sent }
    }

    async fn stop(self) -> usize {
        self.stop.send(true).unwrap();
        self.sent.await.unwrap()
    }
}

/// Returns the numbers of the requests of a [`Load`] in this log, sorted. Lines of two threads that end at almost the same
/// time may stand in any order.
fn numbers(text: &str) -> Vec<usize> {
    let number = |line: &str| line.split("/anything/r").nth(1)?.split('.').next()?.parse().ok();
    let mut numbers: Vec<usize> = text.lines().filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

/// Returns true if `program` is installed. If not, the caller skips the test, but in CI the test fails.
fn is_installed(program: &str) -> bool {
    let is_there = std::process::Command::new(program).arg("--version").output().is_ok();
    let missing = format!("`{program}` is not installed; `make setup-test` installs it");
    assert!(is_there || std::env::var_os("CI").is_none(), "{missing}");
    if !is_there {
        eprintln!("SKIPPED: {missing}");
    }
    is_there
}

/// Rotates `log` once with the real logrotate.
async fn logrotate(log: &Path, options: &str) {
    let directory = tempfile::tempdir().unwrap();
    let [config, state] = ["logrotate.conf", "state"].map(|name| directory.path().join(name));
    let log = log.display();
    std::fs::write(&config, format!("{log} {{\nrotate 9\nmissingok\n{options}\n}}\n")).unwrap();
    let arguments = [config.to_str().unwrap(), "--force", "--state", state.to_str().unwrap()];
    let (code, said) = Process::run(LOGROTATE, &arguments, &[]).await;
    assert_eq!(code, Some(0), "{said}");
}

const LOGROTATE: &str = "/usr/sbin/logrotate";

#[tokio::test]
async fn logrotate_loses_no_line_with_a_signal_or_without() {
    if !is_installed(LOGROTATE) {
        return;
    }
    for with_signal in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let (log, access) = (directory.path().join("gateway.log"), directory.path().join("access.log"));
        let origin = Origin::start().await;
        let keys = format!("{}access_file_path = {access:?}\n", tables(&log));
        let gateway = Gateway::start_logging_to(&log, &[&origin], &keys).await;
        let load = Load::start(&gateway);
        for _ in 0..3 {
            eventually!(numbers(&read(&access)).len() > 20);
            let options = match with_signal {
                true => format!("postrotate\nkill -USR1 {}\nendscript", gateway.process.id()),
                false => "nocreate".to_owned(),
            };
            logrotate(&access, &options).await;
        }
        let sent = load.stop().await;
        let all = || {
            let rotated = |n: usize| read(&directory.path().join(format!("access.log.{n}")));
            (1..=3).rev().map(rotated).collect::<String>() + &read(&access)
        };
        eventually!(numbers(&all()).len() == sent);
        assert!(numbers(&all()).into_iter().eq(0..sent), "{:?}", numbers(&all()));
        assert!(!read(&log).contains("/anything/"), "the process log has no line of a request");
        assert_eq!(gateway.metric("proxy_log_lines_dropped").await, 0.0);
    }
}

#[tokio::test]
async fn log_goes_on_at_its_beginning_after_logrotate_has_cut_it() {
    if !is_installed(LOGROTATE) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("gateway.log");
    let origin = Origin::start().await;
    let gateway = Gateway::start_logging_to(&log, &[&origin], &tables(&log)).await;
    let load = Load::start(&gateway);
    eventually!(numbers(&read(&log)).len() > 20);
    logrotate(&log, "copytruncate").await;
    let rotated = numbers(&read(&directory.path().join("gateway.log.1")));
    eventually!(numbers(&read(&log)).len() > 20);
    let sent = load.stop().await;
    eventually!(numbers(&read(&log)).last() == Some(&(sent - 1)));
    let text = std::fs::read(&log).unwrap();
    assert!(!text.contains(&0), "there is a hole where the old lines were");
    // Lines between the copy and the cut are lost, as logrotate's manual says. No other line is lost, written twice or
    // torn.
    let mut all = [rotated, numbers(&read(&log))].concat();
    let written = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), written);
    let gap = (0..sent).filter(|number| all.binary_search(number).is_err()).collect::<Vec<_>>();
    assert!(gap.last().zip(gap.first()).is_none_or(|(last, first)| last - first < 200), "{gap:?}");
    assert!(read(&log).lines().all(|line| line.matches(" INFO ").count() == 1), "{}", read(&log));
}

#[tokio::test]
async fn own_file_of_the_access_log_is_opened_again_by_sigusr1() {
    let directory = tempfile::tempdir().unwrap();
    let [log, access, renamed] =
        ["gateway.log", "access.log", "access.log.1"].map(|name| directory.path().join(name));
    let origin = Origin::start().await;
    let keys = format!("{}access_file_path = {access:?}\n", tables(&log));
    let gateway = Gateway::start_logging_to(&log, &[&origin], &keys).await;
    std::fs::rename(&access, &renamed).unwrap();
    gateway.process.signal(Signal::SIGUSR1);
    // It exists again before any request.
    eventually!(access.exists());
    gateway.get("/anything/after").await;
    eventually!(read(&access).contains("GET /anything/after 200"));
    assert_eq!((read(&renamed).as_str(), read(&log).contains("/anything/after")), ("", false));
}

#[tokio::test]
async fn no_line_is_lost_when_the_process_ends() {
    const SENT: usize = 2000;
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("gateway.log");
    let origin = Origin::start().await;
    let mut gateway = Gateway::start_logging_to(&log, &[&origin], &tables(&log)).await;
    let client = testkit::Client::new();
    for sent in 0..SENT {
        assert_eq!(client.get(gateway.url(&format!("/anything/r{sent}."))).await.status, 200);
    }
    gateway.process.signal(Signal::SIGTERM);
    assert!(gateway.process.ended(DEADLINE).await.success());
    assert!(numbers(&read(&log)).into_iter().eq(0..SENT));
}

#[tokio::test]
async fn goaccess_and_fail2ban_read_the_combined_format() {
    if !is_installed("goaccess") || !is_installed("fail2ban-regex") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let [log, access, report] =
        ["gateway.log", "access.log", "report.json"].map(|name| directory.path().join(name));
    let origin = Origin::start().await;
    let keys = format!("{}access_file_path = {access:?}\naccess_format = \"combined\"\n", tables(&log));
    let gateway = Gateway::start_logging_to(&log, &[&origin], &keys).await;
    let client = testkit::Client::new();
    for path in ["/anything/a?b=c", "/status/401", "/status/401", "/anything/%22quoted%22?token=secret"] {
        let request = http::Request::get(gateway.url(path)).header("user-agent", "a \"quoted\" \\ agent");
        client.send(request.body(bytes::Bytes::new()).unwrap()).await;
    }
    eventually!(read(&access).lines().count() == 4);
    assert!(!read(&access).contains("secret"), "{}", read(&access));

    let [log, report_path] = [&access, &report].map(|path| path.display().to_string());
    let arguments = [log.as_str(), "--log-format=COMBINED", "--no-global-config", "-o", report_path.as_str()];
    let (code, said) = Process::run("goaccess", &arguments, &[]).await;
    assert_eq!(code, Some(0), "{said}");
    let report: serde_json::Value = serde_json::from_str(&read(&report)).unwrap();
    let general = &report["general"];
    assert_eq!(
        (&general["valid_requests"], &general["failed_requests"]),
        (&4.into(), &0.into()),
        "{general}"
    );

    let rule = r#"^<ADDR> - \S+ \[\] "[^"]*" 401 "#;
    let (code, said) = Process::run("fail2ban-regex", &[log.as_str(), rule], &[]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("4 lines, 0 ignored, 2 matched, 2 missed"), "{said}");
}
