//! A client's stream, between its socket and Pingora: what is no valid request over HTTP/1 does not pass ([`http1`]),
//! reads can have a [`deadline`], what has been written goes out while Pingora waits for a backend, and a WebSocket
//! takes it over.
//!
//! Pingora leaves the parts of a body of known length in a buffer until that is full, or the body whole; a backend
//! that sends a little at a time would be silent for its client. But while it waits for the backend it also reads
//! from the client, to see whether it leaves, and by those reads the stream knows that nothing more is there to be
//! written for now.

pub mod deadline;
pub mod http1;
mod passing;

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pingora::protocols::Stream;
use pingora::proxy::Session;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::deadline::Deadline;
use self::http1::Inspector;
pub use self::http1::Refusal;
use crate::policy::head_size::HeadSize;
use crate::reply::Problem;
use crate::websocket::ClientSide;

/// How long, and how much, is read of what nobody wants before the connection is closed. A close with something
/// unread would be a reset, and might take the answer with it (RFC 9112 9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// What bounds the head of a request that a client sends over HTTP/1.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How large it may be, whichever route it takes.
    pub size: HeadSize,
    /// How long it may take, from its first byte.
    pub time: Duration,
}

/// Tells the bounds that hold at the time.
#[derive(Clone)]
pub struct Terms(Arc<dyn Fn() -> Bounds + Send + Sync>);

impl Terms {
    /// Those that `tell` tells.
    pub fn new(tell: impl Fn() -> Bounds + Send + Sync + 'static) -> Self {
        Terms(Arc::new(tell))
    }
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Terms")
    }
}

/// A client's stream.
#[derive(Debug)]
pub struct ClientStream {
    inner: Stream,
    deadline: Deadline,
    /// Whether something written may still be in the buffer.
    unflushed: bool,
    /// How many bytes must come before its first deadline.
    awaited: usize,
    /// Whether HTTP/2 is spoken on it, though nobody has agreed on that in TLS.
    prior_knowledge: bool,
    /// What looks at requests; `None` where HTTP/2 is spoken.
    http1: Option<Http1>,
    /// The client's side of a WebSocket, where one is asked for.
    websocket: ClientSide,
    /// How much may still be read to be dropped, once all has been said.
    farewell: Option<usize>,
}

#[derive(Debug)]
struct Http1 {
    inspector: Inspector,
    terms: Terms,
    /// Whether the deadline is that of a head.
    is_timed: bool,
}

impl ClientStream {
    /// A stream without a deadline so far, on which nothing is looked at.
    pub fn new(inner: Stream) -> Self {
        ClientStream {
            inner,
            deadline: Deadline::never(),
            unflushed: false,
            awaited: 0,
            prior_knowledge: false,
            http1: None,
            websocket: ClientSide::default(),
            farewell: None,
        }
    }

    /// One on which HTTP/1 is spoken, on these terms.
    #[must_use]
    pub fn with_http1(self, terms: Terms) -> Self {
        let http1 = Http1 { inspector: Inspector::default(), terms, is_timed: false };
        ClientStream { http1: Some(http1), ..self }
    }

    /// One whose first request is refused, whatever it is.
    #[must_use]
    pub fn refusing(mut self, refusal: Refusal) -> Self {
        if let Some(http1) = &mut self.http1 {
            http1.inspector.refuse(refusal);
        }
        self
    }

    /// One on which the first `bytes` must come within `patience`: Pingora waits for the preface of HTTP/2 for ever.
    #[must_use]
    pub fn awaiting(self, bytes: usize, patience: Duration) -> Self {
        self.deadline.set(patience);
        ClientStream { awaited: bytes, ..self }
    }

    /// One on which HTTP/2 is spoken with prior knowledge (RFC 9113 3.3).
    #[must_use]
    pub fn with_http2(self) -> Self {
        ClientStream { prior_knowledge: true, ..self }
    }

    /// Takes note of bytes, of which some may have been awaited.
    fn came(&mut self, bytes: usize) {
        self.awaited = self.awaited.saturating_sub(bytes);
        if self.awaited == 0 {
            self.deadline.lift();
        }
    }

    /// Reads what is for Pingora, however long that takes.
    fn poll_inside(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(http1) = &mut self.http1 else { return Pin::new(&mut self.inner).poll_read(cx, buf) };
        if self.websocket.is_concerned() {
            let held = || http1.inspector.take_held();
            if let Some(end) = self.websocket.poll_tunnel(&mut self.inner, held, cx) {
                return end.map(Ok);
            }
        }
        let terms = &http1.terms;
        let read = http1.inspector.poll_read(&mut self.inner, cx, buf, || terms.0().size);
        let is_within_head = read.is_pending() && http1.inspector.is_within_head();
        if is_within_head != http1.is_timed {
            http1.is_timed = is_within_head;
            if is_within_head { self.deadline.set(terms.0().time) } else { self.deadline.lift() }
        }
        read
    }

    /// Has a head that takes too long be answered.
    fn refuse_late_head(&mut self) -> bool {
        let Some(http1) = self.http1.as_mut().filter(|http1| http1.is_timed) else { return false };
        http1.is_timed = false;
        self.deadline.lift();
        let detail = "the header did not arrive whole in time (proxy.header_timeout_secs)";
        http1.inspector.refuse(Refusal { problem: Problem::RequestTimeout, detail });
        true
    }

    /// All has been said: reads for a while what the client still sends.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(left) = self.farewell {
            let mut chunk = [const { MaybeUninit::uninit() }; 4096];
            let mut read = ReadBuf::uninit(&mut chunk);
            match Pin::new(&mut self.inner).poll_read(cx, &mut read) {
                Poll::Pending => return self.deadline.poll(cx),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) if read.filled().is_empty() => return Poll::Ready(()),
                Poll::Ready(Ok(())) => self.farewell = left.checked_sub(read.filled().len()),
            }
        }
        Poll::Ready(())
    }
}

/// Why the request of `session` is refused, where what has come is none (over HTTP/1).
pub fn refusal(session: &Session) -> Option<Refusal> {
    stream_of(session)?.http1.as_ref()?.inspector.refusal()
}

/// Whether the request of `session` is not the one that has come, but stands for one that is refused.
pub fn is_in_place(session: &Session) -> bool {
    let http1 = stream_of(session).and_then(|stream| stream.http1.as_ref());
    http1.is_some_and(|http1| http1.inspector.is_in_place())
}

/// Whether the request of `session` was refused in the middle of its body.
pub fn is_broken_off(session: &Session) -> bool {
    refusal(session).is_some() && !is_in_place(session)
}

/// The request of `session` is over: what its client sends now belongs to the next one.
pub fn request_over(session: &Session) {
    if let Some(http1) = stream_of(session).and_then(|stream| stream.http1.as_ref()) {
        http1.inspector.request_over();
    }
}

/// Whether the client of `session` has sent something behind its request.
pub fn is_ahead(session: &Session) -> bool {
    let http1 = stream_of(session).and_then(|stream| stream.http1.as_ref());
    http1.is_some_and(|http1| http1.inspector.is_ahead())
}

/// The client's side of a WebSocket of `session`; `None` where its stream can have none (one of HTTP/2 cannot).
pub fn websocket(session: &Session) -> Option<&ClientSide> {
    stream_of(session).map(|stream| &stream.websocket)
}

/// The stream of `session`, where it has one of its own.
fn stream_of(session: &Session) -> Option<&ClientStream> {
    session.as_downstream().stream().and_then(|stream| stream.as_ref().as_any().downcast_ref())
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = self.poll_inside(cx, buf);
        if read.is_ready() {
            if self.awaited > 0 {
                self.came(buf.filled().len().saturating_sub(before));
            }
            return read;
        }
        if self.unflushed && Pin::new(&mut self.inner).poll_flush(cx)?.is_ready() {
            self.unflushed = false;
        }
        ready!(self.deadline.poll(cx));
        if self.refuse_late_head() {
            return self.poll_inside(cx, buf);
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.unflushed = flushed.is_pending();
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.farewell.is_none() {
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
            if !self.http1.as_ref().is_some_and(|http1| http1.inspector.has_unread()) {
                return Poll::Ready(Ok(()));
            }
            self.deadline.set(LINGER);
            self.farewell = Some(LINGER_BYTES);
        }
        self.poll_farewell(cx).map(Ok)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{Instant, timeout};

    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const OTHER: &[u8] =
        b"POST /other HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
    const LONG: Duration = Duration::from_secs(3600);

    fn over_http1() -> (ClientStream, DuplexStream) {
        let (ours, theirs) = duplex(4096);
        let size = HeadSize { uri: 100, bytes: 1000, fields: 10 };
        let terms = Terms::new(move || Bounds { size, time: Duration::from_secs(10) });
        (ClientStream::new(Box::new(ours)).with_http1(terms), theirs)
    }

    /// What one read gives, with room for so many bytes.
    async fn read(stream: &mut ClientStream, room: usize) -> Vec<u8> {
        let mut bytes = vec![0; room];
        let length = stream.read(&mut bytes).await.unwrap();
        bytes.truncate(length);
        bytes
    }

    fn over(stream: &ClientStream) {
        stream.http1.as_ref().unwrap().inspector.request_over();
    }

    fn refusal(stream: &ClientStream) -> Option<u16> {
        let refusal = stream.http1.as_ref().unwrap().inspector.refusal();
        refusal.map(|refusal| refusal.problem.status().as_u16())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_bytes_must_come_in_time_and_the_others_need_not() {
        for (sent, is_in_time) in [(&b""[..], false), (b"abc", false), (b"abcd", true), (b"abcde", true)] {
            let (client, mut other) = duplex(64);
            let mut stream = ClientStream::new(Box::new(client)).awaiting(4, Duration::from_secs(10));
            other.write_all(sent).await.unwrap();
            let mut read = vec![0; sent.len()];
            stream.read_exact(&mut read).await.unwrap();
            let next = timeout(Duration::from_secs(60), stream.read_u8()).await;
            assert_eq!(next.is_err(), is_in_time, "{sent:?}: {next:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_a_request_waits_until_that_is_over() {
        for room in [1, 7, 4096] {
            let (mut stream, mut client) = over_http1();
            client.write_all(&[GET, OTHER, GET].concat()).await.unwrap();
            for request in [GET, OTHER, GET] {
                let mut got = Vec::new();
                while got.len() < request.len() {
                    got.extend(read(&mut stream, room).await);
                }
                assert_eq!(got, request);
                assert!(timeout(LONG, read(&mut stream, 1)).await.is_err());
                over(&stream);
            }
            drop(client);
            assert_eq!(read(&mut stream, room).await, b"");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_is_noticed_while_it_waits() {
        let (mut stream, mut client) = over_http1();
        client.write_all(GET).await.unwrap();
        assert_eq!(read(&mut stream, 4096).await, GET);
        drop(client);
        assert_eq!(timeout(LONG, read(&mut stream, 1)).await, Ok(Vec::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn something_harmless_stands_for_a_head_that_is_refused_or_late() {
        for (sent, stands, status) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "- /", 400),
            (b"HEAD / HTTP/1.1\r\n\r\n", "HEAD /", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx", "- /", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\n", "- /", 408),
        ] {
            let (mut stream, mut client) = over_http1();
            client.write_all(sent).await.unwrap();
            let start = Instant::now();
            let got = String::from_utf8(read(&mut stream, 4096).await).unwrap();
            assert!(got.starts_with(stands) && got.ends_with("Connection: close\r\n\r\n"), "{got}");
            assert_eq!(
                (refusal(&stream), start.elapsed().as_secs()),
                (Some(status), if status == 408 { 10 } else { 0 })
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_line_behind_a_request_is_not_waited_upon() {
        let (mut stream, mut client) = over_http1();
        client.write_all(&[GET, b"\r\n"].concat()).await.unwrap();
        assert_eq!(read(&mut stream, 4096).await, GET);
        over(&stream);
        assert!(timeout(LONG, read(&mut stream, 4096)).await.is_err());
        client.write_all(GET).await.unwrap();
        assert_eq!(read(&mut stream, 4096).await, [b"\r\n", GET].concat());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_goes_wrong_is_an_error_and_stays_one() {
        let (mut stream, mut client) = over_http1();
        client.write_all(&OTHER[..OTHER.len() - 5]).await.unwrap();
        assert_eq!(read(&mut stream, 4096).await, OTHER[..OTHER.len() - 5]);
        client.write_all(b"0\n\n").await.unwrap();
        for _ in 0..2 {
            let failed = stream.read(&mut [0; 10]).await.unwrap_err();
            assert_eq!((failed.kind(), refusal(&stream)), (io::ErrorKind::InvalidData, Some(400)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_waits_for_the_client_where_something_is_unread_and_not_for_ever() {
        for (sent, secs) in [(GET.to_vec(), 0), ([GET, b"x"].concat(), 2), (b"x y\r\n".to_vec(), 2)] {
            let (mut stream, mut client) = over_http1();
            client.write_all(&sent).await.unwrap();
            read(&mut stream, 4096).await;
            let start = Instant::now();
            stream.shutdown().await.unwrap();
            assert_eq!(start.elapsed().as_secs(), secs, "{sent:?}");
        }
        let (mut stream, mut client) = over_http1();
        client.write_all(b"x y\r\n").await.unwrap();
        read(&mut stream, 4096).await;
        drop(client);
        let start = Instant::now();
        stream.shutdown().await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 0);
    }
}
