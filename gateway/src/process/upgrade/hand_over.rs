//! The old process's side: send the listeners, and serve on until the successor serves.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::geteuid;

use super::listeners::Listener;
use super::peer::Peer;
use super::wire::{Channel, Message, WireError};
use crate::process::systemd;

/// How long a successor may take from the sockets to its accept loops: names are resolved meanwhile.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Why the listeners were not handed over. This process serves on.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// There is none to spare for it.
    #[error("cannot duplicate the listeners for a successor: {0}")]
    NoDescriptor(io::Error),
    /// Nobody wants them.
    #[error("nobody waits for the listeners on {}: start the successor first (gateway run --upgrade)", .0.display())]
    NobodyWaits(PathBuf),
    /// The successor cannot be reached.
    #[error("cannot reach the successor on {}: {error}", path.display())]
    Unreachable {
        /// Where it waits.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is somebody else's.
    #[error("the process that waits on {} belongs to the user with the id {uid}, who gets nothing", path.display())]
    Stranger {
        /// Where it waits.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// It cannot start.
    #[error("the successor has failed: {0}")]
    Failed(String),
    /// It does not do what it should.
    #[error("the successor has not taken over: {0}")]
    Wire(#[from] WireError),
}

/// Hands `listeners` to the process that waits at `path`, and returns its id (where the system tells it) when it
/// serves and has been told that this process stops.
///
/// # Errors
/// Where it does not come to that. The successor has been told, as far as it can be.
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
        // If this process is told to stop meanwhile, it keeps none of them open.
        drop(listeners);
        settle(&mut channel, peer)
    });
    if let Err(error) = &handed_over {
        // It may be gone.
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
        systemd::successor(pid);
    }
    channel.send(&Message::Go).map_err(|error| {
        systemd::successor(std::process::id());
        error.into()
    })
}
