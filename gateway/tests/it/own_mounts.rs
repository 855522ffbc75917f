//! Files that are bind mounts, which a rename cannot replace: the configuration and the pid file. The tests run
//! the gateway in a separate mount namespace.

use testkit::{DEADLINE, Process, Signal, dead_address, eventually};

use crate::keeping::{has_own_disks, switch, tag, text, text_of};
use crate::support::{ConfigFile, GATEWAY, Gateway, Setup, config};

/// A bind-mounted file, as containers use it (`-v ./gateway.toml:/etc/gateway.toml`, a `subPath`), cannot be
/// replaced by a rename: the kernel returns EBUSY. The gateway must overwrite it in place.
#[tokio::test]
async fn bind_mounted_file_is_written_in_place_or_error_says_why() {
    if !has_own_disks() {
        return;
    }
    for (options, persists) in [("rw", true), ("ro", false)] {
        let file = ConfigFile::new(&text());
        let directory = tempfile::tempdir().unwrap();
        let mounted = directory.path().join("gateway.toml");
        std::fs::write(&mounted, "").unwrap();
        let (from, to) = (file.path().display().to_string(), mounted.display().to_string());
        let script = format!(
            "mount --bind {from} {to} && mount -o remount,bind,{options} {to} && exec {GATEWAY} -c {to}"
        );
        let process = Process::spawn("unshare", &["--mount", "--map-root-user", "sh", "-c", &script], &[]);
        let before = std::fs::read_to_string(file.path()).unwrap();
        let gateway = Gateway::from_process(process, file).await;
        let answer = switch(&gateway, "b").await;
        if persists {
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(tag(&gateway).await, "b");
            let after = before.replace("enabled_backends_tag = \"a\"", "enabled_backends_tag = \"b\"");
            assert_eq!(text_of(&gateway), after, "and what it is mounted from has it");
            gateway.process.line("was overwritten in place").await;
            // The gateway recognizes its own write, so it does not reload the file.
            assert_eq!(switch(&gateway, "a").await.status, 200);
            assert_eq!(text_of(&gateway), before);
            assert_eq!(gateway.read("/config/history").await.as_array().unwrap().len(), 3);
        } else {
            assert_eq!(answer.status, 500, "{answer:?}");
            let said = answer.text();
            assert!(said.contains("it is a mount point") && said.contains("Read-only file system"), "{said}");
            assert!(said.contains("the running configuration has not changed"), "{said}");
            assert_eq!(tag(&gateway).await, "a");
            assert_eq!(text_of(&gateway), before);
        }
        let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "no draft is left: {left:?}");
    }
}

/// The directory is read-only, and the file in it is a writable mount.
#[tokio::test]
async fn writable_file_in_read_only_directory_is_written_in_place() {
    if !has_own_disks() {
        return;
    }
    let file = ConfigFile::new(&text());
    let directory = tempfile::tempdir().unwrap();
    let mounted = directory.path().join("gateway.toml");
    std::fs::write(&mounted, "").unwrap();
    let (from, to, at) = (file.path().display().to_string(), mounted.display(), directory.path().display());
    let script = format!(
        "mount --bind {at} {at} && mount --bind {from} {to} && mount -o remount,bind,ro {at} && exec {GATEWAY} -c {to}"
    );
    let process = Process::spawn("unshare", &["--mount", "--map-root-user", "sh", "-c", &script], &[]);
    let gateway = Gateway::from_process(process, file).await;
    let answer = switch(&gateway, "b").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(text_of(&gateway).contains("enabled_backends_tag = \"b\""));
}

/// The gateway overwrites the file with its process id and empties it at the end, because it cannot remove the file.
#[tokio::test]
async fn a_pid_file_that_is_a_mount_of_its_own_is_written_and_emptied() {
    if !has_own_disks() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let [outside, inside] = ["outside.pid", "inside.pid"].map(|name| directory.path().join(name));
    std::fs::write(&outside, "something longer than an id\n").unwrap();
    std::fs::write(&inside, "").unwrap();
    let proxy = format!("pid_file = {inside:?}");
    let file = ConfigFile::new(&config(&[dead_address()], Setup { proxy: &proxy, tables: "" }));
    let script = format!(
        "mount --bind {} {} && exec {GATEWAY} -c {}",
        outside.display(),
        inside.display(),
        file.path().display()
    );
    let process = Process::spawn("unshare", &["--mount", "--map-root-user", "sh", "-c", &script], &[]);
    let mut gateway = Gateway::from_process(process, file).await;
    let said = || std::fs::read_to_string(&outside).unwrap();
    eventually!(said() == format!("{}\n", gateway.process.id()));
    gateway.process.signal(Signal::SIGTERM);
    assert!(gateway.process.ended(DEADLINE).await.success());
    assert_eq!(said(), "");
    assert!(!gateway.process.output().contains("pid_file"), "{}", gateway.process.output());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "no draft is left");
}
