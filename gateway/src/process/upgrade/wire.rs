//! Messages between the two processes of an upgrade: JSON, one message a line, with the sockets beside the first
//! message (`SCM_RIGHTS`). The two processes may have different versions, so unknown fields are ignored.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

/// Maximum number of sockets that Linux passes with one message (`SCM_MAX_FD`).
pub(super) const MAX_SOCKETS: usize = 253;
/// Maximum length of a message in bytes.
const MAX_BYTES: usize = 64 * 1024;
/// Maximum time until the other process reads a message.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Message between the two processes.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// From the old process: the list of the sockets that are sent with this message, in the same order.
    Listeners(Vec<Named>),
    /// From the successor: it serves.
    Ready,
    /// From the successor: it will not serve, for the given reason.
    Failed(String),
    /// From the old process: it stops, and the successor owns the listeners.
    Go,
    /// From the old process: it continues to serve, for the given reason.
    Abort(String),
}

/// Description of a socket.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Named {
    /// Configuration key of the socket's address.
    pub(super) key: String,
    /// Configured address; its port may be 0.
    pub(super) asked: SocketAddr,
    /// Address that the socket is bound to.
    pub(super) bound: SocketAddr,
}

/// Reason why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other process has closed the connection, most likely because it has ended.
    #[error("it has ended without a message")]
    Closed,
    /// The other process has sent nothing in time.
    #[error("it has sent nothing for {0:?}")]
    TimedOut(Duration),
    /// The other process has sent a message that this version does not understand.
    #[error("it has sent a message that this version does not understand: {0}")]
    NotUnderstood(String),
    /// The socket has failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Connection between the two processes.
pub(super) struct Channel {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Channel {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        Ok(Channel { stream, received: Vec::new() })
    }

    pub(super) fn send(&self, message: &Message) -> Result<(), WireError> {
        self.send_with(message, &[])
    }

    /// Sends a message. The sockets are attached to its first byte.
    pub(super) fn send_with(&self, message: &Message, sockets: &[BorrowedFd<'_>]) -> Result<(), WireError> {
        let mut text = serde_json::to_vec(message).map_err(io::Error::other)?;
        text.push(b'\n');
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if sockets.len() > MAX_SOCKETS || !beside.push(SendAncillaryMessage::ScmRights(sockets)) {
            let many =
                format!("{} sockets are more than the {MAX_SOCKETS} that can be passed", sockets.len());
            return Err(io::Error::other(many).into());
        }
        if sockets.is_empty() {
            beside.clear();
        }
        let mut rest = text.as_slice();
        while !rest.is_empty() {
            match sendmsg(&self.stream, &[IoSlice::new(rest)], &mut beside, flags()) {
                Ok(sent) => {
                    rest = rest.get(sent..).unwrap_or_default();
                    beside.clear();
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => return Err(WireError::Closed),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(())
    }

    pub(super) fn receive(&mut self, within: Duration) -> Result<Message, WireError> {
        self.receive_with(within).map(|(message, _)| message)
    }

    /// Receives the next message, and the sockets that came with it.
    pub(super) fn receive_with(&mut self, within: Duration) -> Result<(Message, Vec<OwnedFd>), WireError> {
        let until = Instant::now() + within;
        let (mut sockets, mut is_late) = (Vec::new(), false);
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                let message = serde_json::from_slice(&line);
                let message = message.map_err(|error| WireError::NotUnderstood(error.to_string()))?;
                return Ok((message, sockets));
            }
            if self.received.len() > MAX_BYTES {
                return Err(WireError::NotUnderstood(format!("a message of more than {MAX_BYTES} bytes")));
            }
            let left = until.saturating_duration_since(Instant::now());
            if is_late {
                return Err(WireError::TimedOut(within));
            }
            // One more read follows the deadline, because this process may have been suspended before it.
            is_late = left.is_zero();
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match self.read(&mut sockets) {
                Ok(0) => return Err(WireError::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(WireError::Closed),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn read(&mut self, sockets: &mut Vec<OwnedFd>) -> io::Result<usize> {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let read =
            recvmsg(&self.stream, &mut [IoSliceMut::new(&mut bytes)], &mut beside, RecvFlags::empty())?;
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                for descriptor in descriptors {
                    // No new program can inherit the descriptor before this call, because the process has one thread
                    // so far, and does not start a program in it.
                    fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
                    sockets.push(descriptor);
                }
            }
        }
        self.received.extend_from_slice(bytes.get(..read.bytes).unwrap_or_default());
        Ok(read.bytes)
    }
}

/// Returns the flags that turn a write to an ended process into an error. Without them, SIGPIPE would end this
/// process.
#[cfg(not(target_vendor = "apple"))]
fn flags() -> SendFlags {
    SendFlags::NOSIGNAL
}

/// Returns no flags: Rust's runtime ignores SIGPIPE anyway.
#[cfg(target_vendor = "apple")]
fn flags() -> SendFlags {
    SendFlags::empty()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn pair() -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().unwrap();
        (Channel::new(one).unwrap(), Channel::new(other).unwrap())
    }

    #[test]
    fn messages_come_in_order_with_their_sockets() {
        let (old, mut new) = pair();
        let listeners: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let bound = |listener: &TcpListener| listener.local_addr().unwrap();
        let named = |listener| Named { key: "a".to_owned(), asked: bound(listener), bound: bound(listener) };
        let message = Message::Listeners(listeners.iter().map(named).collect());
        let descriptors: Vec<BorrowedFd<'_>> = listeners.iter().map(AsFd::as_fd).collect();
        old.send_with(&message, &descriptors).unwrap();
        old.send(&Message::Abort("too slow".to_owned())).unwrap();

        let (received, sockets) = new.receive_with(SOON).unwrap();
        assert_eq!(received, message);
        let addresses: Vec<SocketAddr> =
            sockets.into_iter().map(|socket| bound(&TcpListener::from(socket))).collect();
        assert_eq!(addresses, listeners.iter().map(bound).collect::<Vec<_>>());
        assert_eq!(new.receive(SOON).unwrap(), Message::Abort("too slow".to_owned()));
        drop(old);
        assert!(matches!(new.receive(SOON), Err(WireError::Closed)));
        assert!(matches!(new.send(&Message::Ready), Err(WireError::Closed)));
    }

    #[test]
    fn silence_and_invalid_messages_are_errors() {
        let (old, mut new) = pair();
        assert!(matches!(new.receive(Duration::from_millis(10)), Err(WireError::TimedOut(_))));
        (&old.stream).write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert!(matches!(new.receive(SOON), Err(WireError::NotUnderstood(_))));

        let (old, mut new) = pair();
        std::thread::spawn(move || (&old.stream).write_all(&[b'a'; 2 * MAX_BYTES]));
        assert!(matches!(new.receive(SOON), Err(WireError::NotUnderstood(_))));
    }

    #[test]
    fn more_sockets_than_the_system_passes_are_an_error() {
        let (old, _new) = pair();
        let many = vec![old.stream.as_fd(); MAX_SOCKETS + 1];
        let error = old.send_with(&Message::Listeners(Vec::new()), &many).unwrap_err();
        assert_eq!(error.to_string(), "254 sockets are more than the 253 that can be passed");
    }
}
