//! The successor's side: wait for the listeners, and say when they are served.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, geteuid};

use super::listeners::Listener;
use super::peer::Peer;
use super::wire::{Channel, Message, WireError};
use crate::process::upgrade::socket::{PlaceError, UpgradeSocket};
use crate::process::{parse_running, running_gateway};

/// The variable with the id of the service's main process (`systemd.exec(5)`).
const MAIN_PID: &str = "MAINPID";
/// How long the old process is waited for.
const SIGQUIT_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(10);
/// How long whoever connects may take to say what it wants.
const FIRST_WORD: Duration = Duration::from_secs(5);
/// How long the old process may take to say that it stops. It serves as well meanwhile.
const GO_WITHIN: Duration = Duration::from_secs(60);

/// Why the listeners were not taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    /// Nobody can be waited for.
    #[error(transparent)]
    UpgradeSocket(#[from] PlaceError),
    /// Nobody came.
    #[error(
        "--upgrade: no gateway has handed its listeners over within {} s; is one running, with the same \
         proxy.upgrade_sock ({path}), and has it got SIGQUIT?", SIGQUIT_WITHIN.as_secs()
    )]
    NobodyCame {
        /// Where it was waited for.
        path: String,
    },
    /// It cannot be waited on.
    #[error("--upgrade: cannot wait on {path}: {error}")]
    Io {
        /// The socket.
        path: String,
        /// What the system said.
        error: io::Error,
    },
    /// It has other listeners.
    #[error(
        "--upgrade: not one listener of the running gateway is in this configuration; to take over from it, both \
         must share at least one address"
    )]
    NothingInCommon,
    /// It serves on.
    #[error("--upgrade: the running gateway serves on: {0}")]
    Aborted(String),
}

/// How the old process has answered to "ready".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// It stops.
    Stops,
    /// It has ended already.
    Ended,
    /// It does not answer.
    Silent,
}

/// Listeners of another process that this one has, and does not own yet.
pub struct TakeOver {
    channel: Channel,
}

impl TakeOver {
    /// Waits at `path` until the running gateway hands its listeners over. Where `pid_file` names it, it is asked
    /// to. `uid` is the user that this process will be.
    ///
    /// # Errors
    /// See [`TakeOverError`].
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

    /// Says that this process will not serve. The old one goes on.
    pub fn fail(self, why: &str) {
        // It may be gone.
        let _ = self.channel.send(&Message::Failed(why.to_owned()));
    }

    /// Says that this process serves, and waits until the old one stops.
    ///
    /// # Errors
    /// Where the old one has given up waiting and serves on.
    pub fn confirm(mut self) -> Result<Confirmed, TakeOverError> {
        // What it said before it was gone can still be read.
        let _ = self.channel.send(&Message::Ready);
        match self.channel.receive(GO_WITHIN) {
            Ok(Message::Go) => Ok(Confirmed::Stops),
            Ok(Message::Abort(why)) => Err(TakeOverError::Aborted(why)),
            // Told to stop, it ends without a word. If it does not, both serve, which is no outage.
            Err(WireError::Closed) => Ok(Confirmed::Ended),
            Ok(_) | Err(_) => Ok(Confirmed::Silent),
        }
    }
}

/// Sends SIGQUIT to the running gateway, or says who has to.
fn ask(path: &Path, pid_file: Option<&Path>) {
    let wait = SIGQUIT_WITHIN.as_secs();
    let path = path.display();
    let asked = match pid_file {
        Some(file) => Some((file.display().to_string(), running_gateway(file))),
        // systemd says it to what it starts for a reload.
        None => env::var(MAIN_PID).ok().map(|pid| (MAIN_PID.to_owned(), parse_running(&pid))),
    };
    match asked {
        Some((file, Some(pid))) => match kill(Pid::from_raw(pid), Signal::SIGQUIT) {
            Ok(()) => {
                eprintln!("gateway: the running gateway, process {pid} ({file}), is asked for its listeners")
            }
            Err(error) => eprintln!(
                "gateway: cannot send SIGQUIT to the running gateway, process {pid} ({file}): {error}; waiting {wait} s \
                 on {path} for somebody who can (kill -QUIT {pid})"
            ),
        },
        Some((file, None)) => eprintln!(
            "gateway: {file} names no running gateway; waiting {wait} s on {path}: send SIGQUIT to it (kill -QUIT PID)"
        ),
        None => eprintln!(
            "gateway: waiting {wait} s on {path}: send SIGQUIT to the running gateway (kill -QUIT PID)"
        ),
    }
}

/// What somebody who has connected hands over, or why that is nothing.
fn receive(stream: UnixStream, ours: &[Uid]) -> Result<(TakeOver, Vec<Listener>), String> {
    let peer = Peer::of(&stream).map_err(|error| error.to_string())?;
    if !peer.is_one_of_us(ours) {
        return Err(format!("a process of the user with the id {} has connected, who may not", peer.uid));
    }
    let not_understood =
        |error: &dyn std::fmt::Display| format!("a connection is no running gateway's: {error}");
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
