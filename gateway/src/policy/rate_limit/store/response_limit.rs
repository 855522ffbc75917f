//! A stream whose other side may only say as much as it was asked for. The client library reads an answer to its end,
//! however long: a Redis that never ends one would fill the memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What may always be said: errors, and what comes before the first question is answered.
const ALWAYS: usize = 64 * 1024;
/// The most that is ever waited for: the answers to all requests that may wait at once, and more.
const MOST: usize = 1024 * 1024;

/// A stream that ends with an error where more is read from it than follows from what was written to it. The answer of
/// the script is shorter than the call: a client's key has 64 digits, and its count some fourteen.
pub(super) struct Bounded<S> {
    inner: S,
    /// What may still be read.
    left: usize,
}

impl<S> Bounded<S> {
    pub(super) fn new(inner: S) -> Self {
        Bounded { inner, left: ALWAYS }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let read = buf.filled().len().saturating_sub(before);
        let Some(left) = self.left.checked_sub(read) else {
            buf.set_filled(before);
            let detail = "it answers with more than was asked for";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, detail)));
        };
        self.left = left;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.left = self.left.saturating_add(written).clamp(ALWAYS, MOST);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn who_never_ends_is_ended() {
        let mut stream = Bounded::new(tokio::io::repeat(b'1'));
        let mut read = Vec::new();
        assert!(stream.read_to_end(&mut read).await.is_err());
        assert!(read.len() <= 2 * ALWAYS, "{}", read.len());
    }

    #[tokio::test]
    async fn who_is_asked_may_answer_and_no_more() {
        let (ours, mut theirs) = tokio::io::duplex(ALWAYS);
        let mut stream = Bounded::new(ours);
        let (mut answer, mut question) = (vec![0; ALWAYS / 2], vec![0; ALWAYS / 2]);
        for _ in 0..10 {
            stream.write_all(&question).await.unwrap();
            theirs.read_exact(&mut question).await.unwrap();
            theirs.write_all(&answer).await.unwrap();
            stream.read_exact(&mut answer).await.unwrap();
        }
        let mut left = 0;
        let why = loop {
            theirs.write_all(&answer).await.unwrap();
            match stream.read_exact(&mut answer).await {
                Ok(read) => left += read,
                Err(error) => break error,
            }
        };
        assert!(left <= ALWAYS && why.kind() == io::ErrorKind::InvalidData, "{left} {why}");
    }
}
