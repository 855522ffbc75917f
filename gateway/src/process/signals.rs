//! Signals of the process, and its graceful stop:
//!
//! - SIGTERM or SIGINT: the gateway accepts nothing new, and answers the requests in flight. It ends after the last
//!   answer, at the latest after the configured time. A second signal ends it at once.
//! - SIGHUP: the gateway reads the configuration again and opens the log again.
//! - SIGUSR1: the gateway only opens the log again.
//! - SIGQUIT: the gateway hands the listeners to a process that waits for them, and stops once that process serves.
//!
//! Pingora closes the listeners and idle connections, and then sleeps for its whole grace period, even if no request
//! is in flight. So its server runs in a separate thread, and the main thread decides when the process ends.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch};
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::admin::Readiness;
use crate::drain::{Drain, LINGER, StartupBarrier};
use crate::listener::Connections;
use crate::process::event_loop::{
    CaughtSignals, Event, EventLoop, RunError, Stop, TellOnDrop, UpgradeState, forward, tell_later,
};
use crate::process::{Announcer, announce};
use crate::telemetry::LogHandle;

/// Interval at which the main thread checks if every request is answered.
const LOOK: Duration = Duration::from_millis(5);
/// Time for which no request may be in flight after a hand-over, before the process ends. The last accepted
/// connection is only counted when its task first runs, or when its TLS handshake is done. Both can be late on a
/// machine that runs two processes.
const SETTLED: Duration = Duration::from_secs(1);
/// Maximum time from the start of the server until all accept loops run.
const LISTEN_WITHIN: Duration = Duration::from_secs(30);

/// Dependencies of the main thread, which runs the server and ends the process gracefully.
pub struct Lifecycle {
    /// Signals that the main thread handles.
    pub signals: CaughtSignals,
    /// Log of the process. SIGUSR1 opens it again.
    pub log: LogHandle,
    /// Barrier that opens when all accept loops run.
    pub barrier: StartupBarrier,
    /// Announcer that reports that the process serves.
    pub announcer: Announcer,
    /// Readiness of the process for traffic.
    pub readiness: Readiness,
    /// Drain after a hand-over. It begins when another process has the listeners.
    pub drain: Drain,
    /// Open connections of clients.
    pub connections: Arc<Connections>,
    /// Maximum time from the stop until the connections are closed.
    pub grace_period: Duration,
    /// Predecessor and possible successor of this process.
    pub upgrade_state: UpgradeState,
}

impl Lifecycle {
    /// Runs `server` until the process must stop and all connections are drained, or until `grace_period` is over.
    /// Before that, calls `on_sighup` for each SIGHUP.
    ///
    /// # Errors
    /// Returns an error if the server ends by itself, does not begin to listen, or is not needed because the
    /// predecessor serves on.
    pub fn run(mut self, server: Server, on_sighup: impl Fn()) -> Result<(), RunError> {
        let (stop, stopped) = watch::channel(false);
        let (event, events) = mpsc::channel();
        let ended = TellOnDrop(event.clone());
        forward(self.signals, self.log.clone(), event.clone());
        thread::spawn(move || {
            let _tells = ended;
            server.run(RunArgs { shutdown_signal: Box::new(Requested(stopped)) });
        });
        let (barrier, tell) = (self.barrier, event.clone());
        tell_later(tell, move || Event::Started(barrier.wait(LISTEN_WITHIN)));

        let mut event_loop = EventLoop::new(self.upgrade_state, self.log, event);
        let why = event_loop.until_stop(&events, &mut self.announcer, on_sighup)?;
        self.readiness.drain();
        // Another process may listen on these sockets, so this process closes its duplicates now.
        drop(event_loop);
        let open_connections = self.connections.open();
        let (grace_period, settled) = match &why {
            Stop::Signal(signal) => {
                announce::stopping();
                info!(signal = signal_name(*signal), open_connections, "stopping");
                (self.grace_period, Duration::ZERO)
            }
            Stop::HandedOver | Stop::NotNeeded(_) => {
                self.announcer.give_away();
                self.drain.begin();
                info!(open_connections, "stopping: another process has the listeners");
                (self.grace_period + LINGER, SETTLED)
            }
        };
        // The receiver lives as long as the server.
        let _ = stop.send(true);
        drain(&events, &self.connections, &self.drain, grace_period, settled);
        match why {
            Stop::NotNeeded(error) => Err(error.into()),
            Stop::Signal(_) | Stop::HandedOver => Ok(()),
        }
    }
}

fn drain(
    events: &Receiver<Event>,
    connections: &Connections,
    drain: &Drain,
    grace_period: Duration,
    mut settled: Duration,
) {
    let until = Instant::now() + grace_period;
    let mut drained_since: Option<Instant> = None;
    loop {
        match events.recv_timeout(LOOK) {
            // During a drain after a hand-over the process is in no hurry. This signal asks it to stop sooner.
            Ok(Event::Signal(signal @ (SIGTERM | SIGINT))) if drain.allows_linger() => {
                info!(signal = signal_name(signal), open_connections = connections.open(), "stopping");
                drain.skip_linger();
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
        // After a hand-over, the process also waits for connections of operators. After a signal, it does not.
        let drained = connections.are_drained() && (settled.is_zero() || drain.is_idle());
        // This must hold for the time `settled`: the last connection is only counted when its task first runs.
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
            warn!(
                open_connections,
                ?grace_period,
                "stopped with connections open (proxy.shutdown_timeout_secs)"
            );
            return;
        }
    }
}

fn signal_name(signal: i32) -> &'static str {
    if signal == SIGINT { "SIGINT" } else { "SIGTERM" }
}

/// Shutdown signal for Pingora. It always asks for a graceful stop.
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
