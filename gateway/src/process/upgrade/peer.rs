//! The process at the other end of a Unix socket. The kernel reports it, so no process can pretend to be another one.

use std::io;
use std::os::unix::net::UnixStream;

use nix::unistd::Uid;

/// Process at the other end, as it was when it connected or began to listen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) uid: Uid,
    /// Process id, if the system reports it.
    pub(super) pid: Option<u32>,
}

impl Peer {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let peer = rustix::net::sockopt::socket_peercred(stream)?;
        let pid = u32::try_from(peer.pid.as_raw_nonzero().get()).ok();
        Ok(Peer { uid: Uid::from_raw(peer.uid.as_raw()), pid })
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let (uid, _) = nix::unistd::getpeereid(stream)?;
        Ok(Peer { uid, pid: None })
    }

    /// Returns true if the process may hand listeners over or receive them. Root may, and so may the users that this
    /// process is or will be.
    pub(super) fn is_one_of_us(self, ours: &[Uid]) -> bool {
        self.uid.is_root() || ours.contains(&self.uid)
    }
}
