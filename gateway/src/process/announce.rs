//! Announces that the process serves. It writes the pid file, notifies the service manager, and ends the command that
//! waits until the gateway runs in the background.

use std::path::Path;

use tracing::warn;

use super::daemon::Terminal;
use super::pid_file::{PidFile, PidFileError};
use super::systemd;

/// Receivers of the announcement that the process serves.
pub struct Announcer {
    pid_file: Option<PidFile>,
    terminal: Option<Terminal>,
}

impl Announcer {
    /// Prepares the announcement, and checks that the file `pid_file` can be written. An empty `pid_file` means no
    /// file.
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
        systemd::ready();
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
