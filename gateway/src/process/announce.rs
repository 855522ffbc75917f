//! By what the process is found while it serves: its file, its word to the service manager, and the command that
//! waits for it to be in the background.

use std::path::Path;

use tracing::warn;

use super::daemon::Terminal;
use super::pid_file::{PidFile, PidFileError};
use super::systemd;

/// All of it.
pub struct Announcer {
    pid_file: Option<PidFile>,
    terminal: Option<Terminal>,
}

impl Announcer {
    /// Nobody is told yet. The file at `pid_file` (none where that is empty) can be written.
    ///
    /// # Errors
    /// Where it cannot be.
    pub fn prepare(pid_file: &str, terminal: Option<Terminal>) -> Result<Self, PidFileError> {
        let pid_file = (!pid_file.is_empty()).then(|| PidFile::prepare(Path::new(pid_file))).transpose()?;
        Ok(Announcer { pid_file, terminal })
    }

    /// This process serves.
    pub fn announce(&mut self) {
        if let Some(file) = &mut self.pid_file {
            file.publish();
        }
        systemd::ready();
        if let Some(Err(error)) = self.terminal.take().map(Terminal::let_go) {
            warn!(%error, "--daemon: cannot let go of the terminal");
        }
    }

    /// Another process serves in its place, and has told so itself.
    pub fn give_away(&mut self) {
        if let Some(file) = &mut self.pid_file {
            file.give_away();
        }
    }
}
