//! Check of the console blocks on pages. The commands of blocks marked `<!-- transcript: run -->` or
//! `<!-- transcript: serve NAME -->` are run in a shell with the real programs, in the order of the page. Their
//! output is compared with the page ([`script`] reads the page, [`session`] runs it).
//!
//! Pages use fixed ports, and two pages may use the same ones. So each page runs in a separate network
//! namespace of Linux that only has loopback. If namespaces are not available, the pages run one after
//! another on the host's network.

pub mod compare;
pub mod script;
pub mod session;

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::packages::{cargo, metadata};
use crate::repository::Repository;
use crate::{Fault, exercises, in_parallel};

/// Ports that pages use: origins, samples, the gateway, its management API, its metrics.
const PORTS: [u16; 8] = [3001, 3002, 3003, 6188, 8080, 8081, 8443, 9090];

/// Network in which a page's programs listen.
enum Place {
    /// Network namespace that this command creates.
    Namespace(&'static [&'static str]),
    /// Network of the host.
    Host,
}

/// Runs the transcripts of the pages at `paths` (if it is empty, of all pages with transcripts) and returns
/// the differences. `program` is the command `check`, which runs a single page in a separate process.
///
/// # Panics
/// Panics if the programs cannot be built.
pub fn check(repository: &Repository, program: &Path, paths: &[String]) -> Vec<Fault> {
    let mut pages: Vec<String> = paths.to_vec();
    if pages.is_empty() {
        let documents = repository.documents();
        let marked = documents.iter().filter(|document| document.marked("transcript").count() > 0);
        pages = marked.map(|document| document.path.clone()).collect();
    }
    build(repository);
    match place() {
        Ok(Place::Host) => pages.iter().flat_map(|page| play(&[], program, page)).collect(),
        Ok(Place::Namespace(enter)) => {
            in_parallel(2, &pages, |page| play(enter, program, page)).into_iter().flatten().collect()
        }
        Err(why) => {
            let what = format!("the transcripts of {} were not played: {why}", pages.join(", "));
            // The message is written directly to standard error, because the test harness would capture it.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("check: {what}\n").as_bytes());
            let in_ci = std::env::var_os("CI").is_some();
            in_ci.then(|| Fault::new("docs/check", 0, what)).into_iter().collect()
        }
    }
}

/// Builds the programs that the pages run; within `make test` they are already built. The whole workspace is
/// selected, so that dependencies keep their features. Some programs are left out: `check`, because it is
/// running; programs of exercises, because their file may hold the starter or the solution, which other tests
/// rely on; and programs that need features.
fn build(repository: &Repository) {
    let metadata = metadata(repository);
    let packages = metadata.workspace_packages().into_iter();
    let packages = packages.filter(|package| !package.manifest_path.as_str().contains(exercises::DIRECTORY));
    let packages = packages.filter(|package| package.name != env!("CARGO_PKG_NAME"));
    let targets = packages
        .flat_map(|package| &package.targets)
        .filter(|target| target.is_bin() && target.required_features.is_empty());
    let programs = targets.flat_map(|target| ["--bin", &target.name]);
    let output = cargo(repository).args(["build", "--quiet", "--workspace"]).args(programs).output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            panic!("cannot build the programs that pages run:\n{}", String::from_utf8_lossy(&output.stderr))
        }
        Err(error) => panic!("cannot run cargo: {error}"),
    }
}

/// Returns the network for the pages, or the reason why there is none.
fn place() -> Result<Place, String> {
    const AS_ROOT: &[&str] = &["unshare", "--net"];
    const AS_ANYBODY: &[&str] = &["unshare", "--map-root-user", "--net"];
    for enter in [AS_ROOT, AS_ANYBODY] {
        if inside(enter, "true").output().is_ok_and(|output| output.status.success()) {
            return Ok(Place::Namespace(enter));
        }
    }
    let taken = PORTS.iter().find(|port| TcpListener::bind(("127.0.0.1", **port)).is_err());
    match taken {
        None => Ok(Place::Host),
        Some(port) => Err(format!(
            "they cannot have a network of their own (`unshare --net` and `ip link set lo up` do not work here), \
             and another program listens on port {port} here: stop that program and try again"
        )),
    }
}

/// Returns a command that runs `program` in the namespace that `enter` creates, with loopback enabled.
fn inside(enter: &[&str], program: impl AsRef<Path>) -> Command {
    let mut words = enter.iter();
    let Some(first) = words.next() else { return Command::new(program.as_ref()) };
    let mut command = Command::new(first);
    command.args(words).args(["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]).arg(program.as_ref());
    command
}

/// Runs one page in a separate process, because a namespace belongs to a process.
fn play(enter: &[&str], program: &Path, page: &str) -> Vec<Fault> {
    let fault = |what: String| vec![Fault::new(page, 0, what)];
    match inside(enter, program).args(["play", page]).output() {
        Err(error) => fault(format!("cannot run {}: {error}", program.display())),
        Ok(output) => serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
            fault(format!("could not be played to its end:\n{}", String::from_utf8_lossy(&output.stderr)))
        }),
    }
}
