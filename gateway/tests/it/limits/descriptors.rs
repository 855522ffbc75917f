//! Limits of open files: the gateway reports a limit that is too low before it serves requests.

use testkit::{Origin, Process, dead_address};

use crate::support::{ConfigFile, GATEWAY, Gateway, Setup, config};

/// Returns a shell script that runs its arguments with a limit of `files` open files.
fn with_files(files: usize) -> String {
    format!("ulimit -n {files} && exec \"$0\" \"$@\"")
}

#[tokio::test]
async fn configured_max_connections_must_fit_open_files() {
    let origin = Origin::start().await;
    let setup = Setup { proxy: "max_connections = 5000", ..Setup::default() };
    let file = ConfigFile::new(&config(&[origin.address()], setup));
    let path = file.path().display().to_string();
    for command in ["run", "check"] {
        let arguments = ["-c", &with_files(1024), GATEWAY, command, "--config", &path];
        let (code, said) = Process::run("sh", &arguments, &[]).await;
        assert_eq!(code, Some(1), "{command}: {said}");
        let error =
            "proxy.max_connections = 5000 may need 10612 open files, and the system allows this process 1024";
        assert!(said.contains(error), "{command}: {said}");
        assert!(said.contains("set max_connections to 308 at most"), "{command}: {said}");
    }
}

#[tokio::test]
async fn default_max_connections_is_lowered_to_fit_open_files() {
    let origin = Origin::start().await;
    let file = ConfigFile::new(&config(&[origin.address()], Setup::default()));
    let path = file.path().display().to_string();
    let arguments = ["-c", &with_files(1024), GATEWAY, "--config", &path];
    let gateway = Gateway::from_process(Process::spawn("sh", &arguments, &[]), file).await;
    gateway.process.line("until then it is 308").await;
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn too_few_open_files_error_names_the_required_minimum() {
    let setup = Setup { proxy: "max_connections = 16", ..Setup::default() };
    let file = ConfigFile::new(&config(&[dead_address()], setup));
    let path = file.path().display().to_string();
    let (code, said) =
        Process::run("sh", &["-c", &with_files(64), GATEWAY, "check", "--config", &path], &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(" to 148 at least, which is enough for 16 connections"), "{said}");
}
