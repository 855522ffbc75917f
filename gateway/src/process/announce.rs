//! Announcements that the process serves, that a successor takes over, or that the process stops. The receivers are
//! the pid file, the command that waits until the gateway runs in the background, and the service manager, such as
//! systemd. The service manager is told over the socket that `NOTIFY_SOCKET` names (`sd_notify(3)`).

use std::path::Path;

use sd_notify::NotifyState;
use tracing::warn;

use super::daemon::Terminal;
use super::pid_file::{PidFile, PidFileError};

/// Receivers of the announcement that the process serves.
pub struct Announcer {
    pid_file: Option<PidFile>,
    terminal: Option<Terminal>,
}

impl Announcer {
    /// Prepares the announcement, and checks that the pid file can be written. If `pid_file` is empty, there is no
    /// pid file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn prepare(pid_file: &str, terminal: Option<Terminal>) -> Result<Self, PidFileError> {
        let pid_file = (!pid_file.is_empty()).then(|| PidFile::prepare(Path::new(pid_file))).transpose()?;
        Ok(Announcer { pid_file, terminal })
    }

    /// Announces that this process serves.
    pub fn announce(&mut self) {
        if let Some(file) = &mut self.pid_file {
            file.publish();
        }
        ready();
        if let Some(Err(error)) = self.terminal.take().map(Terminal::let_go) {
            warn!(%error, "--daemon: cannot detach from the terminal");
        }
    }

    /// Leaves the pid file to the successor, which has announced itself.
    pub fn give_away(&mut self) {
        if let Some(file) = &mut self.pid_file {
            file.give_away();
        }
    }
}

/// Reports that this process serves, and that it is the main process of the service.
fn ready() {
    let own = std::process::id();
    tell(&[NotifyState::MainPid(own), NotifyState::Ready]);
}

/// Reports that the process `pid` becomes the main process of the service. The service manager believes only the
/// current main process, so the predecessor must report it.
pub fn successor(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

/// Reports that this process stops and has no successor.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot notify the service manager (NOTIFY_SOCKET)");
    }
}
