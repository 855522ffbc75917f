//! Preparation before the first service starts. The process moves to the background, gets the listeners of its
//! predecessor, and changes to the configured user.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tracing::info;

use crate::config::{Config, LogOutput};
use crate::listener::BindError;
use crate::process::daemon::{self, DaemonError, Terminal};
use crate::process::event_loop::UpgradeState;
use crate::process::upgrade::{Listener, Listeners, TakeOver, TakeOverError, socket};
use crate::process::{Announcer, Identity, IdentityError, PidFileError};
use crate::telemetry::Metrics;

/// Options for the start of the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartOptions {
    /// True if this process takes the listeners over from the running gateway.
    pub upgrade: bool,
    /// True if this process is the daemon in the background.
    pub daemon: bool,
}

/// Reason why the preparation failed.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The process cannot run in the background.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The process cannot change to the configured user.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The pid file cannot be written.
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    /// The listeners cannot be taken over.
    #[error(transparent)]
    TakeOver(#[from] TakeOverError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// Process that is about to serve.
pub struct Start {
    identity: Identity,
    terminal: Option<Terminal>,
    place: PathBuf,
    predecessor: Option<TakeOver>,
    /// Listeners of this process.
    pub listeners: Listeners,
    for_successor: Vec<Listener>,
    closed: Vec<SocketAddr>,
}

impl Start {
    /// Makes the checks that need no listeners. For an upgrade, waits for the listeners of the running gateway.
    ///
    /// # Errors
    /// Returns an error for the reasons in [`PrepareError`].
    pub fn prepare(config: &Config, options: StartOptions) -> Result<Self, PrepareError> {
        let to_console = config.logging.output == LogOutput::Console;
        if options.daemon && to_console && !daemon::console_outlives_terminal() {
            return Err(DaemonError::LogsToConsole.into());
        }
        let identity = Identity::of(&config.proxy)?;
        let terminal = options.daemon.then(Terminal::leave_session).transpose()?;
        // The default path depends on the user, so it is determined before the process changes its user.
        let place = socket::path(&config.proxy.upgrade_sock);
        let pid_file = Some(Path::new(&config.proxy.pid_file)).filter(|file| !file.as_os_str().is_empty());
        let taken = options.upgrade.then(|| TakeOver::wait(&place, pid_file, identity.uid())).transpose()?;
        let (predecessor, inherited) = taken.unzip();
        let listeners = Listeners::inheriting(inherited.unwrap_or_default());
        let (for_successor, closed) = Default::default();
        Ok(Start { identity, terminal, place, predecessor, listeners, for_successor, closed })
    }

    /// Changes the process to the configured user, after all listeners have been opened.
    ///
    /// # Errors
    /// Returns an error for the reasons in [`PrepareError`].
    pub fn settle(&mut self, config: &Config) -> Result<Announcer, PrepareError> {
        let listeners = std::mem::take(&mut self.listeners);
        if listeners.took_none() {
            return Err(TakeOverError::NothingInCommon.into());
        }
        (self.for_successor, self.closed) = listeners.finish();
        self.identity.assume()?;
        Ok(Announcer::prepare(&config.proxy.pid_file, self.terminal.take())?)
    }

    /// Returns the predecessor of this process, and the listeners for a successor.
    pub fn upgrade_state(&mut self, metrics: &Metrics) -> UpgradeState {
        for address in &self.closed {
            info!("no longer listening on {address}, which the previous process listened on");
        }
        UpgradeState {
            predecessor: self.predecessor.take(),
            place: std::mem::take(&mut self.place),
            listeners: std::mem::take(&mut self.for_successor),
            counts: metrics.upgrades(),
        }
    }

    /// Reports a failed start to the predecessor, which continues to serve.
    pub fn fail(self, why: &str) {
        if let Some(predecessor) = self.predecessor {
            predecessor.fail(why);
        }
    }
}
