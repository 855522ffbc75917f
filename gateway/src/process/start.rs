//! What comes before the first service: a place in the background, the listeners of the process that is to be
//! replaced, and the user that the process becomes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tracing::info;

use crate::config::{Config, LogOutput};
use crate::listener::BindError;
use crate::process::daemon::{self, DaemonError, Terminal};
use crate::process::signals::UpgradeState;
use crate::process::upgrade::{Listener, Listeners, TakeOver, TakeOverError, socket};
use crate::process::{Announcer, Identity, IdentityError, PidFileError};
use crate::telemetry::Metrics;

/// How a gateway comes to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartOptions {
    /// It takes the listeners over from the one that runs.
    pub upgrade: bool,
    /// It is the process in the background.
    pub daemon: bool,
}

/// Why it does not come so far.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It cannot run in the background.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// It cannot become the user that it should.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its id cannot be written.
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    /// It gets no listeners.
    #[error(transparent)]
    TakeOver(#[from] TakeOverError),
    /// It cannot listen.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// A process that is about to serve.
pub struct Start {
    identity: Identity,
    terminal: Option<Terminal>,
    place: PathBuf,
    predecessor: Option<TakeOver>,
    /// Its listeners.
    pub listeners: Listeners,
    for_successor: Vec<Listener>,
    closed: Vec<SocketAddr>,
}

impl Start {
    /// Checks what can be checked, and waits for the listeners of the process that it is to replace.
    ///
    /// # Errors
    /// See [`PrepareError`].
    pub fn prepare(config: &Config, how: StartOptions) -> Result<Self, PrepareError> {
        let to_console = config.logging.output == LogOutput::Console;
        if how.daemon && to_console && !daemon::console_outlives_terminal() {
            return Err(DaemonError::LogsToConsole.into());
        }
        let identity = Identity::of(&config.proxy)?;
        let terminal = how.daemon.then(Terminal::leave_session).transpose()?;
        // Before the process becomes another user, for whom the usual place may be another one.
        let place = socket::path(&config.proxy.upgrade_sock);
        let pid_file = Some(Path::new(&config.proxy.pid_file)).filter(|file| !file.as_os_str().is_empty());
        let taken = how.upgrade.then(|| TakeOver::wait(&place, pid_file, identity.uid())).transpose()?;
        let (predecessor, inherited) = taken.unzip();
        let listeners = Listeners::inheriting(inherited.unwrap_or_default());
        let (for_successor, closed) = Default::default();
        Ok(Start { identity, terminal, place, predecessor, listeners, for_successor, closed })
    }

    /// All listeners have been opened: the process becomes the user that it should.
    ///
    /// # Errors
    /// See [`PrepareError`].
    pub fn settle(&mut self, config: &Config) -> Result<Announcer, PrepareError> {
        let listeners = std::mem::take(&mut self.listeners);
        if listeners.took_none() {
            return Err(TakeOverError::NothingInCommon.into());
        }
        (self.for_successor, self.closed) = listeners.finish();
        self.identity.assume()?;
        Ok(Announcer::prepare(&config.proxy.pid_file, self.terminal.take())?)
    }

    /// Whom it replaces, and what it has for who replaces it.
    pub fn upgrade_state(&mut self, metrics: &Metrics) -> UpgradeState {
        for address in &self.closed {
            info!("not listening on {address} any more, as the process before did");
        }
        UpgradeState {
            predecessor: self.predecessor.take(),
            place: std::mem::take(&mut self.place),
            listeners: std::mem::take(&mut self.for_successor),
            counts: metrics.upgrades(),
        }
    }

    /// It has failed. The process that it was to replace serves on.
    pub fn fail(self, why: &str) {
        if let Some(predecessor) = self.predecessor {
            predecessor.fail(why);
        }
    }
}
