//! Successor's side of an upgrade: waits for the listeners, and reports when it serves on them.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, geteuid};

use super::listeners::Listener;
use super::socket::Peer;
use super::wire::{Channel, Message, WireError};
use crate::process::upgrade::socket::{UpgradeSocket, UpgradeSocketError};
use crate::process::{parse_running, running_gateway};

/// Environment variable with the id of the service's main process (`systemd.exec(5)`).
const MAIN_PID: &str = "MAINPID";
/// Maximum time to wait for the old process.
const SIGQUIT_WITHIN: Duration = Duration::from_secs(30);
/// Interval between two checks for a connection of the old process.
const LOOK: Duration = Duration::from_millis(10);
/// Maximum time from the connection of a process to its first message.
const FIRST_WORD: Duration = Duration::from_secs(5);
/// Maximum time for the old process to answer that it stops. In this time both processes serve.
const GO_WITHIN: Duration = Duration::from_secs(60);

/// Reason why the listeners were not taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    /// The socket for the hand-over cannot be opened.
    #[error(transparent)]
    UpgradeSocket(#[from] UpgradeSocketError),
    /// No gateway has handed its listeners over in time.
    #[error(
        "--upgrade: no gateway has handed over its listeners within {} s; check that one is running with the same \
         proxy.upgrade_sock ({path}), and that it got SIGQUIT", SIGQUIT_WITHIN.as_secs()
    )]
    NobodyCame {
        /// Path of the socket.
        path: String,
    },
    /// The wait on the socket has failed.
    #[error("--upgrade: cannot wait on {path}: {error}")]
    Io {
        /// Path of the socket.
        path: String,
        /// Error of the system.
        error: io::Error,
    },
    /// The running gateway and this configuration share no listener.
    #[error(
        "--upgrade: the running gateway and this configuration have no listener in common; to take over, this \
         configuration must contain at least one of its addresses"
    )]
    NothingInCommon,
    /// The running gateway has aborted the hand-over and continues to serve.
    #[error("--upgrade: the running gateway continues to serve: {0}")]
    Aborted(String),
}

/// Answer of the old process to "ready".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// The old process stops.
    Stops,
    /// The old process has ended already.
    Ended,
    /// The old process does not answer.
    Silent,
}

/// Takeover in progress. This process has the listeners of the running gateway, but does not own them yet.
pub struct TakeOver {
    channel: Channel,
}

impl TakeOver {
    /// Waits at `path` until the running gateway hands its listeners over. If `pid_file` names that gateway, this
    /// process asks the gateway to do so. `uid` is the user that this process will run as.
    ///
    /// # Errors
    /// Returns an error for the reasons in [`TakeOverError`].
    pub fn wait(
        path: &Path,
        pid_file: Option<&Path>,
        uid: Uid,
    ) -> Result<(Self, Vec<Listener>), TakeOverError> {
        let failed = |error| TakeOverError::Io { path: path.display().to_string(), error };
        let place = UpgradeSocket::open(path, uid)?;
        ask(path, pid_file);
        let until = Instant::now() + SIGQUIT_WITHIN;
        while Instant::now() < until {
            match place.listener.accept() {
                Ok((stream, _)) => match receive(stream, &[geteuid(), uid]) {
                    Ok(taken) => return Ok(taken),
                    Err(why) => eprintln!("gateway: {}: {why}; still waiting", path.display()),
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(LOOK),
                Err(error) => return Err(failed(error)),
            }
        }
        Err(TakeOverError::NobodyCame { path: path.display().to_string() })
    }

    /// Reports that this process will not serve. The old process continues to serve.
    pub fn fail(self, why: &str) {
        // The old process may be gone.
        let _ = self.channel.send(&Message::Failed(why.to_owned()));
    }

    /// Reports that this process serves, and waits until the old process stops.
    ///
    /// # Errors
    /// Returns an error if the old process has given up waiting and serves on.
    pub fn confirm(mut self) -> Result<Confirmed, TakeOverError> {
        // If the old process has ended, its last message can still be read.
        let _ = self.channel.send(&Message::Ready);
        match self.channel.receive(GO_WITHIN) {
            Ok(Message::Go) => Ok(Confirmed::Stops),
            Ok(Message::Abort(why)) => Err(TakeOverError::Aborted(why)),
            // An old process that is told to stop ends without a message. If it does not end, both processes serve,
            // which is no outage.
            Err(WireError::Closed) => Ok(Confirmed::Ended),
            Ok(_) | Err(_) => Ok(Confirmed::Silent),
        }
    }
}

/// Asks the running gateway for its listeners by SIGQUIT, or tells the operator to send SIGQUIT.
fn ask(path: &Path, pid_file: Option<&Path>) {
    let wait = SIGQUIT_WITHIN.as_secs();
    let path = path.display();
    let asked = match pid_file {
        Some(file) => Some((file.display().to_string(), running_gateway(file))),
        // systemd sets the variable for a process that it starts for a reload.
        None => env::var(MAIN_PID).ok().map(|pid| (MAIN_PID.to_owned(), parse_running(&pid))),
    };
    match asked {
        Some((file, Some(pid))) => match kill(Pid::from_raw(pid), Signal::SIGQUIT) {
            Ok(()) => {
                eprintln!("gateway: asked the running gateway, process {pid} ({file}), for its listeners")
            }
            Err(error) => eprintln!(
                "gateway: cannot send SIGQUIT to the running gateway, process {pid} ({file}): {error}; waiting {wait} s \
                 on {path}: send SIGQUIT as a user who may, such as root (kill -QUIT {pid})"
            ),
        },
        Some((file, None)) => eprintln!(
            "gateway: {file} names no running gateway; waiting {wait} s on {path}: send SIGQUIT to the running \
             gateway (kill -QUIT PID)"
        ),
        None => eprintln!(
            "gateway: waiting {wait} s on {path}: send SIGQUIT to the running gateway (kill -QUIT PID)"
        ),
    }
}

/// Receives the listeners from a process that has connected.
///
/// # Errors
/// Returns the reason as a text if the process sends no listeners or is not permitted to.
fn receive(stream: UnixStream, ours: &[Uid]) -> Result<(TakeOver, Vec<Listener>), String> {
    let peer = Peer::of(&stream).map_err(|error| error.to_string())?;
    if !peer.is_one_of_us(ours) {
        return Err(format!("refused a connection from a process with user id {}", peer.uid));
    }
    let not_understood =
        |error: &dyn std::fmt::Display| format!("a connection does not come from a running gateway: {error}");
    let mut channel = Channel::new(stream).map_err(|error| not_understood(&error))?;
    match channel.receive_with(FIRST_WORD).map_err(|error| not_understood(&error))? {
        (Message::Listeners(named), sockets) if named.len() == sockets.len() => {
            let listeners = named.into_iter().zip(sockets);
            let listeners: io::Result<_> =
                listeners.map(|(named, socket)| Listener::received(named, socket)).collect();
            let takeover = TakeOver { channel };
            match listeners {
                Ok(listeners) => Ok((takeover, listeners)),
                Err(error) => {
                    takeover.fail(&error.to_string());
                    Err(not_understood(&error))
                }
            }
        }
        (other, sockets) => Err(not_understood(&format!("{other:?} with {} sockets", sockets.len()))),
    }
}
