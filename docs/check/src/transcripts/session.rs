//! A simulated reader: runs a page's commands with the real programs, in a directory that looks like the
//! repository's root, and compares the output with the page.
//!
//! The current directory belongs to the whole process, so a process plays one page and exits.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use testkit::{DEADLINE, Process, Signal};

use super::compare::difference;
use super::script::{Action, Step, Typed, shell, steps, text};
use crate::markdown::Document;
use crate::repository::Repository;
use crate::{Fault, Pattern, pattern};

/// Interval between two checks of a condition.
const POLL: Duration = Duration::from_millis(10);

/// Terminals of a reader.
struct Session {
    page: String,
    /// Directory of the built programs.
    programs: String,
    /// Running programs of the terminals that stay open, by terminal name.
    serving: BTreeMap<String, Process>,
    /// Addresses that are known to answer since the last program was started.
    ready: BTreeSet<SocketAddr>,
}

/// Plays a page; `programs` is the directory with the built programs.
///
/// # Panics
/// Panics if there is no directory to play in.
pub async fn play(repository: &Repository, page: &str, programs: &Path) -> Vec<Fault> {
    let scratch =
        tempfile::tempdir().unwrap_or_else(|error| panic!("cannot create a scratch directory: {error}"));
    let entered =
        furnish(scratch.path(), repository.root()).and_then(|()| std::env::set_current_dir(scratch.path()));
    entered.unwrap_or_else(|error| panic!("cannot play in {}: {error}", scratch.path().display()));
    let document = Document::parse(page, &repository.read(page));
    let steps = match steps(&document) {
        Ok(steps) => steps,
        Err(faults) => return faults,
    };
    let programs = programs.display().to_string();
    let (serving, ready) = (BTreeMap::new(), BTreeSet::new());
    let mut session = Session { page: page.to_owned(), programs, serving, ready };
    let mut faults = Vec::new();
    for step in &steps {
        session.step(step, &mut faults).await;
    }
    for name in session.serving.keys().cloned().collect::<Vec<_>>() {
        faults.extend(session.stop(&name, 0).await.err());
    }
    faults
}

/// Makes the directory look like the repository's root, and replaces the user's own curl settings.
fn furnish(scratch: &Path, root: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        std::os::unix::fs::symlink(entry.path(), scratch.join(entry.file_name()))?;
    }
    // curl shows no progress meter in a terminal, but would show one here, because its output is a pipe.
    std::fs::write(scratch.join(".curlrc"), "no-progress-meter\nnoproxy = \"*\"\n")
}

/// Writes a file of a page. If a symbolic link has this name, it leads into the repository and must not be
/// overwritten.
fn write(name: &str, text: &str) -> Result<(), String> {
    if name.contains('/') || Path::new(name).is_symlink() {
        return Err("the name must have no directory and belong to no file of the repository".to_owned());
    }
    std::fs::write(name, text).map_err(|error| error.to_string())
}

impl Session {
    async fn step(&mut self, step: &Step<'_>, faults: &mut Vec<Fault>) {
        let (commands, terminal) = match &step.action {
            Action::Write(name) => {
                let written = write(name, &step.block.text);
                let fault =
                    |what| Fault::new(&self.page, step.block.line, format!("cannot write {name}: {what}"));
                return faults.extend(written.map_err(fault).err());
            }
            Action::Run(commands) => (commands, None),
            Action::Serve(name, commands) => (commands, Some(name)),
        };
        let (mut came, mut differences) = (Vec::new(), Vec::new());
        for (i, typed) in commands.iter().enumerate() {
            let lines = match terminal {
                Some(name) if i + 1 == commands.len() => self.serve(name, typed).await,
                _ => self.run(typed).await,
            };
            match lines {
                Ok(lines) => {
                    let differs = difference(&typed.shown, &lines).map(|diff| (typed, diff));
                    // An output that differs only in its dates keeps the text on the page.
                    came.push(if differs.is_some() { lines } else { typed.shown.clone() });
                    differences.extend(differs);
                }
                Err(fault) => return faults.push(fault),
            }
        }
        let fix = || step.block.rewrite(&text(commands, &came));
        faults.extend(differences.into_iter().map(|(typed, diff)| {
            let what = format!("the output of `{}` is not what the page shows\n{diff}", typed.command);
            Fault::fixable(&self.page, typed.line, what, fix())
        }));
    }

    /// Runs a command until it exits, and returns the lines that it prints.
    async fn run(&mut self, typed: &Typed) -> Result<Vec<String>, Fault> {
        self.await_addresses(&typed.command).await;
        // Both streams are merged, as a terminal shows them.
        let mut process = self.spawn(&format!("exec 2>&1\n{}", shell(&typed.command, &self.programs)));
        let until = Instant::now() + DEADLINE;
        while process.is_running() {
            if Instant::now() > until {
                let what =
                    format!("`{}` has not ended after {DEADLINE:?}:\n{}", typed.command, process.output());
                return Err(Fault::new(&self.page, typed.line, what));
            }
            tokio::time::sleep(POLL).await;
        }
        // This also waits for the end of the pipes.
        process.ended(DEADLINE).await;
        Ok(process.output().lines().map(str::to_owned).collect())
    }

    /// Starts a program that keeps running, in place of the previous program of this terminal. Returns the
    /// first lines that it prints, as many as the page shows.
    async fn serve(&mut self, name: &str, typed: &Typed) -> Result<Vec<String>, Fault> {
        if self.serving.contains_key(name) {
            self.stop(name, typed.line).await?;
        }
        self.ready.clear();
        let mut process = self.spawn(&format!("exec env {}", shell(&typed.command, &self.programs)));
        let lines = |process: &Process| process.output().lines().map(str::to_owned).collect::<Vec<_>>();
        let until = Instant::now() + DEADLINE;
        while lines(&process).len() < typed.shown.len() && process.is_running() && Instant::now() < until {
            tokio::time::sleep(POLL).await;
        }
        let mut lines = lines(&process);
        lines.truncate(typed.shown.len());
        self.serving.insert(name.to_owned(), process);
        Ok(lines)
    }

    /// Sends Ctrl-C to a terminal and waits until its program has exited.
    async fn stop(&mut self, name: &str, line: usize) -> Result<(), Fault> {
        let Some(mut process) = self.serving.remove(name) else { return Ok(()) };
        let fault = |what: String| Err(Fault::new(&self.page, line, what));
        if !process.is_running() {
            return fault(format!(
                "the program of terminal '{name}' had ended by itself:\n{}",
                process.output()
            ));
        }
        process.signal(Signal::SIGINT);
        let until = Instant::now() + 2 * DEADLINE;
        while process.is_running() {
            if Instant::now() > until {
                return fault(format!("the program of terminal '{name}' did not end after Ctrl-C"));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn spawn(&self, script: &str) -> Process {
        Process::spawn("sh", &["-c", script], &[("CURL_HOME", ".")])
    }

    /// Waits until a server answers at each address in a command, if a program has just been started. If no
    /// server answers, the command itself reports the error.
    async fn await_addresses(&mut self, command: &str) {
        static ADDRESS: Pattern = Pattern::new(|| pattern(r"\b(?:localhost|127\.0\.0\.\d+):\d+\b"));
        let addresses =
            ADDRESS.find_iter(command).map(|found| found.as_str().replace("localhost", "127.0.0.1"));
        for address in addresses.filter_map(|address| address.parse().ok()) {
            let until = Instant::now() + DEADLINE;
            let mut wait = !self.serving.is_empty() && self.ready.insert(address);
            while wait && Instant::now() < until {
                wait = !listens(address);
                tokio::time::sleep(POLL).await;
            }
        }
    }
}

/// Returns true if a server listens permanently. The samples bind their address for a moment to see if it is
/// free, and then let Pingora bind it. A connection made in that moment is closed.
fn listens(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let asked = stream.set_read_timeout(Some(Duration::from_millis(50)));
    asked.is_ok() && stream.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}
