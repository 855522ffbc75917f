//! The old process's side of an upgrade: sends the listeners, and continues to serve until the successor serves.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::geteuid;

use super::listeners::Listener;
use super::socket::Peer;
use super::wire::{Channel, Message, WireError};
use crate::process::announce;

/// Maximum time from the transfer of the sockets until the successor's accept loops run. In this time, the successor
/// also resolves names.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Reason why the listeners were not handed over. This process continues to serve.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// No file descriptor is left to duplicate the listeners.
    #[error("cannot duplicate the listeners for a successor: {0}")]
    NoDescriptor(io::Error),
    /// No process waits for the listeners.
    #[error("no process waits for the listeners on {}: start the successor first (gateway run --upgrade)", .0.display())]
    NobodyWaits(PathBuf),
    /// The successor cannot be reached.
    #[error("cannot reach the successor on {}: {error}", path.display())]
    Unreachable {
        /// Path of the socket on which the successor waits.
        path: PathBuf,
        /// Error of the system.
        error: io::Error,
    },
    /// The waiting process belongs to another user.
    #[error("the process that waits on {} has user id {uid}, which may not take over the listeners", path.display())]
    Stranger {
        /// Path of the socket on which the process waits.
        path: PathBuf,
        /// Id of the other user.
        uid: u32,
    },
    /// The successor cannot start.
    #[error("the successor has failed: {0}")]
    Failed(String),
    /// The successor has not taken over, because the exchange of messages has failed.
    #[error("the successor has not taken over: {0}")]
    Wire(#[from] WireError),
}

/// Hands `listeners` to the process that waits at `path`. Returns when that process serves and has been told that
/// this process stops. The result is the id of that process; `None` if the system does not report it.
///
/// # Errors
/// Returns an error if the hand-over fails. The successor is told so, if it can be reached.
pub fn hand_over(path: &Path, listeners: Vec<Listener>) -> Result<Option<u32>, HandOverError> {
    let unreachable = |error| HandOverError::Unreachable { path: path.to_owned(), error };
    let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => HandOverError::NobodyWaits(path.to_owned()),
        _ => unreachable(error),
    })?;
    let peer = Peer::of(&stream).map_err(unreachable)?;
    if !peer.is_one_of_us(&[geteuid()]) {
        return Err(HandOverError::Stranger { path: path.to_owned(), uid: peer.uid.as_raw() });
    }
    let mut channel = Channel::new(stream).map_err(unreachable)?;
    let handed_over = send(&channel, &listeners).and_then(|()| {
        // If this process must stop during the hand-over, these duplicates must not keep the sockets open.
        drop(listeners);
        settle(&mut channel, peer)
    });
    if let Err(error) = &handed_over {
        // The successor may be gone.
        let _ = channel.send(&Message::Abort(error.to_string()));
    }
    handed_over.map(|()| peer.pid)
}

fn send(channel: &Channel, listeners: &[Listener]) -> Result<(), HandOverError> {
    let named = listeners.iter().map(Listener::named).collect();
    let sockets: Vec<BorrowedFd<'_>> = listeners.iter().map(|listener| listener.socket.as_fd()).collect();
    Ok(channel.send_with(&Message::Listeners(named), &sockets)?)
}

fn settle(channel: &mut Channel, peer: Peer) -> Result<(), HandOverError> {
    match channel.receive(READY_WITHIN)? {
        Message::Ready => {}
        Message::Failed(why) => return Err(HandOverError::Failed(why)),
        other => return Err(WireError::NotUnderstood(format!("{other:?} in place of \"ready\"")).into()),
    }
    if let Some(pid) = peer.pid {
        announce::successor(pid);
    }
    channel.send(&Message::Go).map_err(|error| {
        announce::successor(std::process::id());
        error.into()
    })
}
