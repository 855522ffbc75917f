//! Stream that limits the length of the responses that it reads. Without a limit, an endless response of Redis
//! would fill the memory, because the client library reads a response to its end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Minimum value of `left` after each query, for errors and for data that arrives before the first response.
const ALWAYS: usize = 64 * 1024;
/// Maximum value of `left`: more than the responses to all requests that may wait at the same time.
const MOST: usize = 1024 * 1024;

/// Stream from which only about as many bytes can be read as were written to it; further reads fail. A response
/// of the script is shorter than its call: a client's key in a call has 45 bytes, and a count in a response
/// some fourteen.
pub(super) struct Bounded<S> {
    inner: S,
    /// Number of bytes that may still be read.
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
            let detail = "its response is longer than the gateway accepts";
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
    async fn endless_response_is_an_error() {
        let mut stream = Bounded::new(tokio::io::repeat(b'1'));
        let mut read = Vec::new();
        assert!(stream.read_to_end(&mut read).await.is_err());
        assert!(read.len() <= 2 * ALWAYS, "{}", read.len());
    }

    #[tokio::test]
    async fn response_may_be_as_long_as_the_query() {
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
