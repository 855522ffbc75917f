//! The process's signals, and stopping well: on SIGTERM or SIGINT nothing more is accepted, what is in flight is answered, and the
//! process ends as soon as nothing is left, at the latest after the configured time. A second signal ends
//! it at once. SIGHUP asks for the configuration to be read again, and for the log to be opened again; SIGUSR1 for the
//! latter alone. SIGQUIT hands the listeners to a process that waits for them, and once that one serves, this one
//! stops.
//!
//! Pingora closes the listeners and idle connections, then sleeps its whole grace period even if nothing is
//! in flight. So its server runs in a thread of its own, and the main thread decides when it has been enough.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{io, thread};

use async_trait::async_trait;
use pingora::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch};
use prometheus::IntCounter;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::admin::Readiness;
use crate::drain::{Drain, LINGER, StartupBarrier};
use crate::listener::Connections;
use crate::process::upgrade::{Listener, TakeOver, TakeOverError};
use crate::process::{Announcer, systemd};
use crate::telemetry::LogHandle;

use crate::process::event_loop::{Event, EventLoop, Stop, TellOnDrop, forward, tell_later};

/// How often the main thread looks whether everything is answered.
const LOOK: Duration = Duration::from_millis(5);
/// How long that has to last after a hand-over. A connection that was accepted last counts only when its task
/// first runs, or when its TLS handshake is done, which takes a while on a machine that has two processes to run.
const SETTLED: Duration = Duration::from_secs(1);
/// How long the accept loops may take from the start of the server.
const LISTEN_WITHIN: Duration = Duration::from_secs(30);

/// The signals that the process answers to, caught from the moment this exists.
pub struct CaughtSignals {
    pub(super) signals: Signals,
}

impl CaughtSignals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// Where the system does not let a handler be installed.
    pub fn catch() -> io::Result<Self> {
        Ok(CaughtSignals { signals: Signals::new([SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1])? })
    }
}

/// Why a server that was started has ended although nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A defect, of Pingora or of ours.
    #[error("the server has ended by itself; the log says more")]
    ServerEnded,
    /// It does not listen.
    #[error("the server does not accept connections on every listener; the log says more")]
    NotListening,
    /// The process that it was to replace serves on.
    #[error(transparent)]
    TakeOver(#[from] TakeOverError),
}

/// Who came before, and who may come after.
pub struct UpgradeState {
    /// The listeners' owner so far, where they were taken over.
    pub predecessor: Option<TakeOver>,
    /// Where a successor waits.
    pub place: PathBuf,
    /// A duplicate of each listener, for it.
    pub listeners: Vec<Listener>,
    /// Counts listeners taken over, and hand-overs that failed.
    pub counts: [IntCounter; 2],
}

/// What is needed to end the process well, besides its server.
pub struct Lifecycle {
    /// What it listens to.
    pub signals: CaughtSignals,
    /// What SIGUSR1 has opened again.
    pub log: LogHandle,
    /// When it serves.
    pub starting: StartupBarrier,
    /// Who is told so.
    pub announcer: Announcer,
    /// Whether traffic is welcome.
    pub readiness: Readiness,
    /// Whether its listeners are another process's.
    pub leaving: Drain,
    /// Its clients.
    pub connections: Arc<Connections>,
    /// How long they are waited for when it stops.
    pub patience: Duration,
    /// Whom it replaces, and who replaces it.
    pub upgrade_state: UpgradeState,
}

impl Lifecycle {
    /// Runs `server` until it is to stop and all connections are drained, or the patience is at its end. For each
    /// SIGHUP until then, `on_sighup` is called.
    ///
    /// # Errors
    /// Where the server ends before it is told to, does not begin, or is not needed.
    pub fn run(mut self, server: Server, on_sighup: impl Fn()) -> Result<(), RunError> {
        let (stop, stopped) = watch::channel(false);
        let (event, events) = mpsc::channel();
        let ended = TellOnDrop(event.clone());
        forward(self.signals, self.log, event.clone());
        thread::spawn(move || {
            let _tells = ended;
            server.run(RunArgs { shutdown_signal: Box::new(Requested(stopped)) });
        });
        let (starting, tell) = (self.starting, event.clone());
        tell_later(tell, move || Event::Started(starting.wait(LISTEN_WITHIN)));

        let mut event_loop = EventLoop::new(self.upgrade_state, event);
        let why = event_loop.until_stop(&events, &mut self.announcer, on_sighup)?;
        self.readiness.drain();
        // Another process may listen on them; this one does not, from now on.
        drop(event_loop);
        let open_connections = self.connections.open();
        let (patience, settled) = match &why {
            Stop::Signal(signal) => {
                systemd::stopping();
                info!(signal = signal_name(*signal), open_connections, "stopping");
                (self.patience, Duration::ZERO)
            }
            Stop::HandedOver | Stop::NotNeeded(_) => {
                self.announcer.give_away();
                self.leaving.begin();
                info!(open_connections, "stopping: another process has the listeners");
                (self.patience + LINGER, SETTLED)
            }
        };
        // The receiver lives as long as the server.
        let _ = stop.send(true);
        drain(&events, &self.connections, &self.leaving, patience, settled);
        match why {
            Stop::NotNeeded(error) => Err(error.into()),
            Stop::Signal(_) | Stop::HandedOver => Ok(()),
        }
    }
}

fn drain(
    events: &Receiver<Event>,
    connections: &Connections,
    leaving: &Drain,
    patience: Duration,
    mut settled: Duration,
) {
    let until = Instant::now() + patience;
    let mut drained_since: Option<Instant> = None;
    loop {
        match events.recv_timeout(LOOK) {
            // It was not told to stop so far, it did so by itself, and took its time.
            Ok(Event::Signal(signal @ (SIGTERM | SIGINT))) if leaving.allows_linger() => {
                info!(signal = signal_name(signal), open_connections = connections.open(), "stopping");
                leaving.skip_linger();
                settled = Duration::ZERO;
            }
            Ok(Event::Signal(signal @ (SIGTERM | SIGINT))) => {
                let open_connections = connections.open();
                warn!(signal = signal_name(signal), open_connections, "stopping at once");
                return;
            }
            Ok(Event::ServerEnded) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
        }
        // Operators are waited for only where nobody has told this process to stop.
        let drained = connections.are_drained() && (settled.is_zero() || leaving.is_idle());
        // Looked at twice: a connection accepted last is counted only when its task first runs.
        match drained_since {
            Some(since) if drained && since.elapsed() >= settled => {
                info!("stopped; everything was answered");
                return;
            }
            Some(_) if drained => {}
            _ => drained_since = drained.then(Instant::now),
        }
        if Instant::now() >= until {
            let open_connections = connections.open();
            warn!(open_connections, ?patience, "stopped with connections open (proxy.shutdown_timeout_secs)");
            return;
        }
    }
}

fn signal_name(signal: i32) -> &'static str {
    if signal == SIGINT { "SIGINT" } else { "SIGTERM" }
}

/// Tells Pingora to stop gracefully, whichever signal it was.
struct Requested(watch::Receiver<bool>);

#[async_trait]
impl ShutdownSignalWatch for Requested {
    async fn recv(&self) -> ShutdownSignal {
        let mut stopped = self.0.clone();
        // An error means that the main thread is gone, and the process with it.
        let _ = stopped.wait_for(|stopped| *stopped).await;
        ShutdownSignal::GracefulTerminate
    }
}
