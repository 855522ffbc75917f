//! The event loop of the main thread. It handles events while the process serves, until there is a reason to stop.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender};
use std::{io, thread};

use prometheus::IntCounter;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use tracing::{error, info, warn};

use crate::process::Announcer;
use crate::process::upgrade::{Confirmed, HandOverError, Listener, TakeOver, TakeOverError, hand_over};
use crate::telemetry::LogHandle;

/// Handlers of the signals. They are installed as long as this value exists.
pub struct CaughtSignals {
    signals: Signals,
}

impl CaughtSignals {
    /// Installs the handlers for the signals.
    ///
    /// # Errors
    /// Returns an error if the system refuses a handler.
    pub fn catch() -> io::Result<Self> {
        Ok(CaughtSignals { signals: Signals::new([SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1])? })
    }
}

/// Reason why a started server has ended without a request to stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The server ended by itself, because of a defect in Pingora or in the gateway.
    #[error("the server has ended by itself; see the log")]
    ServerEnded,
    /// The server does not accept connections on every address.
    #[error("the server does not accept connections on every listener; see the log")]
    NotListening,
    /// The process that was to be replaced continues to serve.
    #[error(transparent)]
    TakeOver(#[from] TakeOverError),
}

/// Predecessor and possible successor of this process in a binary upgrade.
pub struct UpgradeState {
    /// Process that owned the listeners before this process; `None` if none were taken over.
    pub predecessor: Option<TakeOver>,
    /// Path of the socket on which a successor waits.
    pub place: PathBuf,
    /// Duplicate of each listener, for a successor.
    pub listeners: Vec<Listener>,
    /// Counters of successful takeovers by this process, and of its failed hand-overs.
    pub counts: [IntCounter; 2],
}

/// Event that the main thread handles.
pub(super) enum Event {
    Signal(i32),
    /// The server has started. The value is false if an accept loop does not run.
    Started(bool),
    TakenOver(Result<Confirmed, TakeOverError>),
    HandedOver(Result<Option<u32>, HandOverError>),
    ServerEnded,
}

/// Reason why the process stops.
pub(super) enum Stop {
    Signal(i32),
    /// A successor has taken over the listeners, and serves.
    HandedOver,
    /// This process is not needed, because the predecessor continues to serve.
    NotNeeded(TakeOverError),
}

/// State of the main thread while the process serves.
pub(super) struct EventLoop {
    upgrade_state: UpgradeState,
    log: LogHandle,
    /// Sender of events to the main thread.
    event: Sender<Event>,
    /// True if this process serves and no predecessor serves at the same time.
    serves: bool,
    /// True if SIGQUIT arrived before this process served.
    asked: bool,
    handing_over: bool,
}

impl EventLoop {
    pub(super) fn new(upgrade_state: UpgradeState, log: LogHandle, event: Sender<Event>) -> Self {
        EventLoop { upgrade_state, log, event, serves: false, asked: false, handing_over: false }
    }

    pub(super) fn until_stop(
        &mut self,
        events: &Receiver<Event>,
        announcer: &mut Announcer,
        on_sighup: impl Fn(),
    ) -> Result<Stop, RunError> {
        loop {
            match events.recv() {
                Ok(Event::Signal(SIGHUP)) => on_sighup(),
                Ok(Event::Signal(SIGQUIT)) => self.hand_over(),
                Ok(Event::Signal(signal)) => {
                    self.decline("it was told to stop");
                    return Ok(Stop::Signal(signal));
                }
                Ok(Event::Started(true)) => match self.upgrade_state.predecessor.take() {
                    Some(predecessor) => {
                        let tell = self.event.clone();
                        tell_later(tell, || Event::TakenOver(predecessor.confirm()));
                    }
                    None => self.serves(announcer),
                },
                Ok(Event::Started(false)) => {
                    self.decline(&RunError::NotListening.to_string());
                    return Err(RunError::NotListening);
                }
                Ok(Event::TakenOver(Ok(confirmed))) => self.taken_over(confirmed, announcer),
                Ok(Event::TakenOver(Err(error))) => return Ok(Stop::NotNeeded(error)),
                Ok(Event::HandedOver(Ok(successor))) => {
                    info!(successor, "the listeners were handed over");
                    return Ok(Stop::HandedOver);
                }
                Ok(Event::HandedOver(Err(error))) => {
                    self.handing_over = false;
                    let [_, failed] = &self.upgrade_state.counts;
                    failed.inc();
                    error!("SIGQUIT: this process continues to serve: {error}");
                }
                Ok(Event::ServerEnded) | Err(_) => {
                    self.decline(&RunError::ServerEnded.to_string());
                    return Err(RunError::ServerEnded);
                }
            }
        }
    }

    fn taken_over(&mut self, confirmed: Confirmed, announcer: &mut Announcer) {
        match confirmed {
            Confirmed::Stops => info!("the listeners were taken over from the previous process"),
            Confirmed::Ended => info!("the previous process has ended; its listeners were taken over"),
            Confirmed::Silent => {
                warn!("the previous process does not say whether it stops: both processes may serve");
            }
        }
        let [taken_over, _] = &self.upgrade_state.counts;
        taken_over.inc();
        self.serves(announcer);
    }

    fn serves(&mut self, announcer: &mut Announcer) {
        self.serves = true;
        // The service manager, and the user of `--daemon`, then find the lines of the start in the log.
        self.log.flush();
        announcer.announce();
        if std::mem::take(&mut self.asked) {
            self.hand_over();
        }
    }

    /// Tells a waiting predecessor that this process does not take over.
    fn decline(&mut self, why: &str) {
        if let Some(predecessor) = self.upgrade_state.predecessor.take() {
            predecessor.fail(why);
        }
    }

    /// Begins to hand the listeners over. The process continues to serve during the hand-over.
    fn hand_over(&mut self) {
        if !self.serves {
            self.asked = true;
        } else if self.handing_over {
            warn!("SIGQUIT: the listeners are already being handed over");
        } else {
            self.handing_over = true;
            let (place, listeners) = (self.upgrade_state.place.clone(), &self.upgrade_state.listeners);
            let duplicates: io::Result<Vec<Listener>> = listeners.iter().map(Listener::duplicate).collect();
            let handing_over = move || {
                let listeners = duplicates.map_err(HandOverError::NoDescriptor);
                Event::HandedOver(listeners.and_then(|listeners| hand_over(&place, listeners)))
            };
            tell_later(self.event.clone(), handing_over);
        }
    }
}

/// Guard that tells the main thread when the server's thread ends, even by a panic.
pub(super) struct TellOnDrop(pub(super) Sender<Event>);

impl Drop for TellOnDrop {
    fn drop(&mut self) {
        // The main thread stops listening only when the process ends.
        let _ = self.0.send(Event::ServerEnded);
    }
}

/// Runs `work` in a thread, and sends its result to the main thread.
pub(super) fn tell_later(tell: Sender<Event>, work: impl FnOnce() -> Event + Send + 'static) {
    thread::spawn(move || {
        // The main thread stops listening only when the process ends.
        let _ = tell.send(work());
    });
}

/// Turns signals into events. SIGUSR1 is the exception: it concerns only the log, so it is handled here. It has the
/// same effect at any time, even during a drain.
pub(super) fn forward(mut caught: CaughtSignals, log: LogHandle, event: Sender<Event>) {
    thread::spawn(move || {
        for signal in caught.signals.forever() {
            if signal == SIGUSR1 {
                log.reopen();
                continue;
            }
            // The main thread stops listening only when the process ends.
            let _ = event.send(Event::Signal(signal));
        }
    });
}
