//! HTTP/1 connection to a backend as Pingora uses it: a stream whose responses are inspected.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{Digest, Peek, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ResponseLimits;
use super::inspector::ResponseInspector;
use crate::util::stream_traits::forward_stream_traits;

/// HTTP/1 connection to a backend.
#[derive(Debug)]
pub struct BackendStream {
    inner: Stream,
    inspector: ResponseInspector,
    limits: ResponseLimits,
    read_size: Arc<ReadSize>,
    /// Digest that carries the read size to the request. Pingora leaves this part of a connection unused.
    digest: Option<Arc<ProxyDigest>>,
}

/// Maximum size of one read from a backend, in bytes. It limits memory, because Pingora buffers up to ten reads for a
/// client that reads slowly.
#[derive(Debug)]
pub struct ReadSize(AtomicUsize);

impl ReadSize {
    /// Size for a client of HTTP/1, which has one response at a time: as much as Pingora has room for.
    const WHOLE: usize = usize::MAX;

    /// Maximum size for a client of HTTP/2: the size of a frame.
    const OF_FRAME: usize = 16 * 1024;

    /// Total size for all concurrent responses on one HTTP/2 connection of a client. The responses share it, because
    /// otherwise a hundred responses would need a hundred times the memory of one.
    const OF_CONNECTION: usize = 256 * 1024;

    /// Minimum size for a client of HTTP/2, because smaller reads cost too much time.
    const LEAST: usize = 4 * 1024;

    /// Sets the read size of the connection with this digest. `streams` is the number of HTTP/2 streams that the
    /// client has open; `None` for HTTP/1.
    pub fn set(digest: Option<&Digest>, streams: Option<u32>) {
        let user_data = digest.and_then(|digest| digest.proxy_digest.as_ref()?.user_data.as_ref());
        if let Some(read_size) = user_data.and_then(|data| data.downcast_ref::<Arc<ReadSize>>()) {
            let share = |streams: u32| Self::OF_CONNECTION / usize::try_from(streams.max(1)).unwrap_or(1);
            let size =
                streams.map_or(Self::WHOLE, |streams| share(streams).clamp(Self::LEAST, Self::OF_FRAME));
            read_size.0.store(size, Ordering::Relaxed);
        }
    }
}

impl BackendStream {
    /// Returns a stream over `inner`, a connection on which no byte was sent or received.
    pub fn new(inner: Stream, limits: ResponseLimits) -> Self {
        let read_size = Arc::new(ReadSize(AtomicUsize::new(ReadSize::WHOLE)));
        let data = Box::new(read_size.clone()) as Box<dyn Any + Send + Sync>;
        let response = ResponseHeader::build(StatusCode::OK, Some(0)).ok();
        let digest = response.map(|response| Arc::new(ProxyDigest::new(Box::new(response), Some(data))));
        BackendStream { inner, inspector: ResponseInspector::default(), limits, read_size, digest }
    }

    /// Returns true once the backend has switched to another protocol, and the head of its 101 response has been
    /// read.
    pub fn has_switched(&self) -> bool {
        self.inspector.has_switched()
    }

    /// Ends HTTP on the connection. Returns the connection, and the bytes that were read after the head of the 101.
    pub fn into_tunnel(mut self) -> (Stream, Vec<u8>) {
        let held = self.inspector.take_held();
        (self.inner, held)
    }
}

impl AsyncRead for BackendStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let BackendStream { inner, inspector, limits, read_size, .. } = self.get_mut();
        let size = read_size.0.load(Ordering::Relaxed);
        if buf.remaining() <= size {
            return inspector.poll_read(inner, cx, buf, || limits.now());
        }
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(size));
        let read = inspector.poll_read(inner, cx, &mut part, || limits.now());
        let length = part.filled().len();
        buf.advance(length);
        read
    }
}

impl AsyncWrite for BackendStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.inspector.on_write(buf);
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inspector.on_write(bufs.iter().find(|buf| !buf.is_empty()).map_or(&[], |buf| buf));
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

forward_stream_traits!(BackendStream, |stream| stream.inner.selected_alpn_proto(), |stream| stream
    .inner
    .get_proxy_digest()
    .or_else(|| stream.digest.clone()));

#[async_trait]
impl Peek for BackendStream {}

#[cfg(test)]
mod tests {
    use pingora::protocols::GetProxyDigest;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::super::HeadLimits;
    use super::*;

    #[tokio::test]
    async fn http2_client_read_is_bounded_by_frame_and_share() {
        const BODY: usize = 200_000;
        for (streams, most) in
            [(None, 64 * 1024), (Some(1), 16 * 1024), (Some(32), 8 * 1024), (Some(100), 4 * 1024)]
        {
            let (inner, mut backend) = duplex(1 << 20);
            let limits = ResponseLimits::new(|| HeadLimits { bytes: 1000, fields: 10 });
            let mut stream = BackendStream::new(Box::new(inner), limits);
            let digest = Digest { proxy_digest: stream.get_proxy_digest(), ..Digest::default() };
            ReadSize::set(Some(&digest), streams);
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n");
            backend.write_all(head.as_bytes()).await.unwrap();
            backend.write_all(&vec![b'x'; BODY]).await.unwrap();
            let (mut all, mut largest) = (Vec::new(), 0);
            while all.len() < head.len() + BODY {
                let mut part = Vec::with_capacity(64 * 1024);
                largest = largest.max(stream.read_buf(&mut part).await.unwrap());
                all.extend(part);
            }
            assert_eq!(largest, most);
            assert!(all.starts_with(head.as_bytes()) && all.ends_with(&vec![b'x'; BODY]));
        }
    }
}
