//! Single direction of a tunnel: bytes are read from one side, and written to the other. Bytes that cannot be written
//! at once are kept.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use pingora::protocols::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::Frames;

/// Size of a read in bytes. A read as large as Pingora's buffer for data from a backend bypasses that buffer.
const CHUNK: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into());
}

/// Treatment of the bytes of a direction: forwarded, forwarded and followed as frames, or dropped.
pub(super) enum Follow<'f> {
    Nothing,
    Frames(&'f mut Frames),
    Drop,
}

/// Progress of a direction towards its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum DirectionState {
    #[default]
    Open,
    /// The sender has finished, and the other side has not been told yet.
    Closing,
    /// The sender has finished, and the other side has been told.
    Over,
}

/// State of one direction of a tunnel.
#[derive(Debug, Default)]
pub(super) struct Direction {
    /// Bytes that have been read and could not be written at once.
    pub(super) pending: Vec<u8>,
    /// Number of the pending bytes that have been written.
    written: usize,
    unflushed: bool,
    pub(super) state: DirectionState,
    /// Total number of bytes that have been written.
    pub(super) passed: u64,
}

/// Operation that has failed in a direction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Failed {
    Reading,
    Writing,
}

impl Direction {
    /// Creates a direction with `pending` as its first bytes.
    pub(super) fn beginning_with(pending: Vec<u8>) -> Self {
        Direction { pending, ..Direction::default() }
    }

    pub(super) fn is_ending(&self) -> bool {
        self.state != DirectionState::Open
    }

    pub(super) fn is_over(&self) -> bool {
        self.state == DirectionState::Over
    }

    /// Forwards bytes until a stream is not ready, or the direction is over.
    pub(super) fn poll(
        &mut self,
        from: &mut Stream,
        to: &mut Stream,
        cx: &mut Context<'_>,
        follow: &mut Follow<'_>,
    ) -> Result<(), Failed> {
        loop {
            if self.poll_pending(to, cx, follow)?.is_pending() {
                return Ok(());
            }
            match self.state {
                DirectionState::Open => {
                    if self.poll_chunk(from, to, cx, follow)?.is_pending() {
                        // Nothing more can be read for now, so the written bytes are flushed.
                        return self.poll_flush(to, cx).map(|_| ());
                    }
                }
                DirectionState::Closing => match Pin::new(&mut *to).poll_shutdown(cx) {
                    // If the shutdown fails, the other side is gone, and need not be told.
                    Poll::Ready(_) => self.state = DirectionState::Over,
                    Poll::Pending => return Ok(()),
                },
                DirectionState::Over => return Ok(()),
            }
        }
    }

    fn poll_pending(
        &mut self,
        to: &mut Stream,
        cx: &mut Context<'_>,
        follow: &mut Follow<'_>,
    ) -> Result<Poll<()>, Failed> {
        while self.written < self.pending.len() {
            match write(to, cx, &self.pending[self.written..])? {
                Poll::Ready(written) => {
                    let part = self.written..self.written + written;
                    if let Follow::Frames(frames) = follow {
                        frames.follow(&self.pending[part]);
                    }
                    self.count(written);
                    self.written += written;
                }
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        // The buffer is not kept for the next time, because most WebSockets are idle most of the time.
        (self.pending, self.written) = (Vec::new(), 0);
        Ok(Poll::Ready(()))
    }

    /// Reads once, and writes as many of the bytes as the other side accepts. The rest is kept.
    fn poll_chunk(
        &mut self,
        from: &mut Stream,
        to: &mut Stream,
        cx: &mut Context<'_>,
        follow: &mut Follow<'_>,
    ) -> Result<Poll<()>, Failed> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            match Pin::new(from).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) if is_close(&error) => {}
                Poll::Ready(Err(_)) => return Err(Failed::Reading),
                Poll::Pending => return Ok(Poll::Pending),
            }
            let mut chunk = read.filled();
            if chunk.is_empty() {
                self.state = DirectionState::Closing;
                return Ok(Poll::Ready(()));
            }
            if matches!(follow, Follow::Drop) {
                return Ok(Poll::Ready(()));
            }
            while !chunk.is_empty() {
                match write(to, cx, chunk)? {
                    Poll::Ready(written) => {
                        let (gone, left) = chunk.split_at(written);
                        if let Follow::Frames(frames) = follow {
                            frames.follow(gone);
                        }
                        self.count(written);
                        chunk = left;
                    }
                    Poll::Pending => {
                        self.pending = chunk.to_vec();
                        break;
                    }
                }
            }
            Ok(Poll::Ready(()))
        })
    }

    fn poll_flush(&mut self, to: &mut Stream, cx: &mut Context<'_>) -> Result<Poll<()>, Failed> {
        if self.unflushed {
            match Pin::new(to).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return Err(Failed::Writing),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        Ok(Poll::Ready(()))
    }

    fn count(&mut self, written: usize) {
        self.passed += written as u64;
        self.unflushed = true;
    }
}

fn write(to: &mut Stream, cx: &mut Context<'_>, bytes: &[u8]) -> Result<Poll<usize>, Failed> {
    match Pin::new(to).poll_write(cx, bytes) {
        Poll::Ready(Ok(written @ 1..)) => Ok(Poll::Ready(written)),
        Poll::Ready(_) => Err(Failed::Writing),
        Poll::Pending => Ok(Poll::Pending),
    }
}

/// Returns true if `error` says that a TLS connection was closed without `close_notify`. This counts as a normal
/// close, because the frames show whether a message was cut off.
fn is_close(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
}
