//! The process's signals, and stopping well: on SIGTERM or SIGINT nothing more is accepted, what is in flight is answered, and the
//! process ends as soon as nothing is left, at the latest after the configured time. A second signal ends
//! it at once. SIGHUP asks for the configuration to be read again.
//!
//! Pingora closes the listeners and idle connections, then sleeps its whole grace period even if nothing is
//! in flight. So its server runs in a thread of its own, and the main thread decides when it has been enough.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::admin::Readiness;
use crate::listener::Connections;

/// How often the main thread looks whether everything is answered.
const LOOK: Duration = Duration::from_millis(5);

/// The signals that the process answers to, caught from the moment this exists.
pub struct CaughtSignals {
    signals: Signals,
}

impl CaughtSignals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// Where the system does not let a handler be installed.
    pub fn catch() -> io::Result<Self> {
        Ok(CaughtSignals { signals: Signals::new([SIGTERM, SIGINT, SIGHUP])? })
    }
}

/// What happens to the main thread.
enum Event {
    Signal(i32),
    ServerEnded,
}

/// The server has ended although nobody asked it to: a defect, of Pingora or of ours.
#[derive(Debug, thiserror::Error)]
#[error("the server has ended by itself; the log says more")]
pub struct ServerEnded;

/// Tells the main thread when the server's thread ends, by a panic too.
struct TellOnDrop(Sender<Event>);

impl Drop for TellOnDrop {
    fn drop(&mut self) {
        // The main thread stops listening only when the process ends.
        let _ = self.0.send(Event::ServerEnded);
    }
}

/// Runs `server` until a signal ends it and all connections are drained, or `patience` is at its end. For each
/// SIGHUP until then, `on_sighup` is called.
///
/// # Errors
/// Where the server ends before any signal.
pub fn run_until_stopped(
    server: Server,
    mut signals: CaughtSignals,
    connections: &Arc<Connections>,
    readiness: &Readiness,
    patience: Duration,
    on_sighup: impl Fn(),
) -> Result<(), ServerEnded> {
    let (stop, stopped) = watch::channel(false);
    let (event, events) = mpsc::channel();
    let ended = TellOnDrop(event.clone());
    thread::spawn(move || {
        for signal in signals.signals.forever() {
            // The main thread stops listening only when the process ends.
            let _ = event.send(Event::Signal(signal));
        }
    });
    thread::spawn(move || {
        let _tells = ended;
        server.run(RunArgs { shutdown_signal: Box::new(Requested(stopped)) });
    });

    let signal = loop {
        match events.recv() {
            Ok(Event::Signal(SIGHUP)) => on_sighup(),
            Ok(Event::Signal(signal)) => break signal,
            Ok(Event::ServerEnded) | Err(_) => return Err(ServerEnded),
        }
    };
    readiness.drain();
    info!(signal = signal_name(signal), open_connections = connections.open(), "stopping");
    // The receiver lives as long as the server.
    let _ = stop.send(true);
    drain(&events, connections, patience);
    Ok(())
}

fn drain(events: &Receiver<Event>, connections: &Connections, patience: Duration) {
    let until = Instant::now() + patience;
    let mut drained_before = false;
    loop {
        match events.recv_timeout(LOOK) {
            Ok(Event::Signal(SIGHUP)) => {}
            Ok(Event::Signal(signal)) => {
                let open_connections = connections.open();
                warn!(signal = signal_name(signal), open_connections, "stopping at once");
                return;
            }
            Ok(Event::ServerEnded) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        // Looked at twice: a connection accepted last is counted only when its task first runs.
        let drained = connections.are_drained();
        if drained && drained_before {
            info!("stopped; everything was answered");
            return;
        }
        drained_before = drained;
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
