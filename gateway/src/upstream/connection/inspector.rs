//! Inspector of the responses on an HTTP/1 connection to a backend: the counterpart of the inspector of requests. It
//! is needed because Pingora's reader treats an empty line as the last chunk, so the client would get half a body as a
//! complete one. With the inspector, Pingora gets only bytes that are part of a strictly valid response.
//!
//! A response is checked in Pingora's own buffer, without a copy. Only a head that arrives in pieces is kept here
//! until it is complete.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pingora::protocols::Stream;
use tokio::io::{AsyncRead, ReadBuf};

use super::head::{Framing, Head, HeadLimits, HeadReader};
use crate::util::http1::Fault;
use crate::util::http1::body::Body;
use crate::util::http1::chunked::Chunked;
use crate::util::http1::read_ahead::ReadAhead;

/// Size in bytes of a read into the inspector's buffer instead of Pingora's.
const CHUNK: usize = 4 * 1024;

/// Maximum number of interim responses (1xx) before a final one. Limited because each restarts Pingora's read timeout.
const MAX_INTERIM: u32 = 32;

/// Error of a response that is not valid HTTP/1.
#[derive(Debug, thiserror::Error)]
#[error("the backend's response is not valid HTTP/1: {0}")]
pub struct MalformedResponse(pub Fault);

impl From<MalformedResponse> for io::Error {
    fn from(malformed: MalformedResponse) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, malformed)
    }
}

/// Inspector of the responses on one connection.
#[derive(Debug, Default)]
pub(super) struct ResponseInspector {
    state: ResponseState,
    head: HeadReader,
    /// Bytes that have been read and not yet been given to Pingora.
    held: ReadAhead,
    /// Number of held bytes that have been checked and may be given to Pingora.
    verified: usize,
    /// True if the current request has the method HEAD.
    is_head: bool,
    /// Number of interim responses since the request began.
    interim: u32,
    /// True if the connection must not be used for another request.
    is_last: bool,
}

#[derive(Debug, Default)]
enum ResponseState {
    /// No response is expected, and the backend had sent nothing at the last read.
    #[default]
    Idle,
    /// A head is expected.
    Head,
    /// A body is expected, and its end is known from a length or chunks.
    Body(Body),
    /// A body is expected that ends when the connection is closed.
    Close,
    /// The response has been read to its end.
    Done,
    /// The backend has switched to another protocol: no later byte is HTTP.
    Switched,
    /// The response is not valid.
    Broken,
}

impl ResponseInspector {
    /// Notes that `bytes` are about to be written to the backend. The first bytes on an idle connection begin a
    /// request.
    pub(super) fn on_write(&mut self, bytes: &[u8]) {
        if matches!(self.state, ResponseState::Idle) && !bytes.is_empty() {
            self.state = ResponseState::Head;
            self.is_head = bytes.starts_with(b"HEAD ");
            self.interim = 0;
        }
    }

    /// Returns true once the head of a 101 has been read.
    pub(super) fn has_switched(&self) -> bool {
        matches!(self.state, ResponseState::Switched)
    }

    /// Returns the bytes that were read after the head of a 101.
    pub(super) fn take_held(&mut self) -> Vec<u8> {
        self.held.take()
    }

    /// Reads bytes for Pingora. A read ends after the head of a 101, so that it has no byte of the tunnel.
    pub(super) fn poll_read(
        &mut self,
        backend: &mut Stream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        limits: impl Fn() -> HeadLimits,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.verified > 0 {
                self.verified -= self.held.give(self.verified, buf);
                return Poll::Ready(Ok(()));
            }
            match &mut self.state {
                ResponseState::Head => match ready!(self.poll_head(backend, cx, buf, &limits))? {
                    ResponseHeadRead::Head => {}
                    ResponseHeadRead::InPlace | ResponseHeadRead::End => return Poll::Ready(Ok(())),
                },
                ResponseState::Body(_) if !self.held.is_empty() => {
                    let ResponseState::Body(body) = &mut self.state else { return Poll::Pending };
                    match body.pass(self.held.bytes()) {
                        Ok((passed, is_whole)) => {
                            self.verified = passed;
                            self.end_if(is_whole);
                        }
                        Err(fault) => return Poll::Ready(Err(self.refuse(fault))),
                    }
                }
                ResponseState::Body(_) => return self.poll_body(backend, cx, buf),
                ResponseState::Close | ResponseState::Switched if !self.held.is_empty() => {
                    self.verified = self.held.bytes().len();
                }
                ResponseState::Close | ResponseState::Switched => {
                    return Pin::new(backend).poll_read(cx, buf);
                }
                ResponseState::Idle | ResponseState::Done => return self.poll_idle(backend, cx, buf),
                ResponseState::Broken => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            }
        }
    }

    /// Waits until a head is complete, or the backend closes the connection. A head that arrives in one piece stays
    /// in Pingora's buffer.
    fn poll_head(
        &mut self,
        backend: &mut Stream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        limits: &impl Fn() -> HeadLimits,
    ) -> Poll<io::Result<ResponseHeadRead>> {
        if self.held.is_empty() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut *backend).poll_read(cx, buf))?;
            let read = &buf.filled()[before..];
            if read.is_empty() {
                return Poll::Ready(Ok(ResponseHeadRead::End));
            }
            match self.head.read(read, &limits()).and_then(|head| self.begin(head, read)) {
                Ok(Some(passed)) => {
                    let rest = read.get(passed..).unwrap_or_default();
                    if self.has_more_to_say() {
                        self.held.keep(rest);
                    } else {
                        self.is_last |= !rest.is_empty();
                    }
                    buf.set_filled(before + passed);
                    return Poll::Ready(Ok(ResponseHeadRead::InPlace));
                }
                Ok(None) => self.held.keep(read),
                Err(fault) => return Poll::Ready(Err(self.refuse(fault))),
            }
            buf.set_filled(before);
        }
        loop {
            let held = std::mem::take(&mut self.held);
            let found =
                self.head.read(held.bytes(), &limits()).and_then(|head| self.begin(head, held.bytes()));
            self.held = held;
            match found {
                Ok(Some(passed)) => {
                    self.verified = passed;
                    return Poll::Ready(Ok(ResponseHeadRead::Head));
                }
                Ok(None) => {
                    if ready!(poll_chunk(backend, cx, &mut self.held))? == 0 {
                        self.held.clear();
                        return Poll::Ready(Ok(ResponseHeadRead::End));
                    }
                }
                Err(fault) => return Poll::Ready(Err(self.refuse(fault))),
            }
        }
    }

    /// Begins the response whose head is at the front of `bytes`. Returns how many of the bytes are part of the
    /// response; `None` if the head is incomplete.
    fn begin(&mut self, head: Option<Head>, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let Some(head) = head else { return Ok(None) };
        self.head = HeadReader::default();
        self.is_last |= head.closes;
        match (head.status, head.framing) {
            (101, _) => self.state = ResponseState::Switched,
            (100..=199, _) => {
                self.interim += 1;
                if self.interim > MAX_INTERIM {
                    return Err("there are too many interim responses");
                }
            }
            (204 | 304, _) => self.state = ResponseState::Done,
            (_, framing) if self.is_head => {
                // With GET, the end of the connection would end the body. So the backend may close the connection
                // after this response to HEAD too.
                self.is_last |= framing == Framing::Close;
                self.state = ResponseState::Done;
            }
            (_, Framing::Close) => {
                self.state = ResponseState::Close;
                return Ok(Some(bytes.len()));
            }
            (_, Framing::Length(length)) => return self.begin_body(Body::Length(length), head.length, bytes),
            (_, Framing::Chunked) => {
                return self.begin_body(Body::Chunked(Chunked::default()), head.length, bytes);
            }
        }
        Ok(Some(head.length))
    }

    fn begin_body(&mut self, mut body: Body, head: usize, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let (passed, is_whole) = body.pass(&bytes[head..])?;
        self.state = ResponseState::Body(body);
        self.end_if(is_whole);
        Ok(Some(head + passed))
    }

    fn end_if(&mut self, is_whole: bool) {
        if is_whole {
            self.state = ResponseState::Done;
        }
    }

    /// Returns true if more bytes are expected from the backend: a response, a part of one, or the tunnel's bytes.
    fn has_more_to_say(&self) -> bool {
        !matches!(self.state, ResponseState::Done)
    }

    /// Reads the body into Pingora's buffer, and checks it there.
    fn poll_body(
        &mut self,
        backend: &mut Stream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(backend).poll_read(cx, buf))?;
        let ResponseState::Body(body) = &mut self.state else { return Poll::Ready(Ok(())) };
        let read = &buf.filled()[before..];
        match body.pass(read) {
            Ok((passed, is_whole)) => {
                // No request has asked for bytes after the response. Pingora would read them as the next response.
                self.is_last |= passed < read.len();
                buf.set_filled(before + passed);
                self.end_if(is_whole);
                Poll::Ready(Ok(()))
            }
            Err(fault) => {
                buf.set_filled(before);
                Poll::Ready(Err(self.refuse(fault)))
            }
        }
    }

    /// Reads from the backend although no response is expected. If the connection must not be used again, the read
    /// reports a closed connection, so that Pingora's pool does not keep it.
    fn poll_idle(
        &mut self,
        backend: &mut Stream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_last || !self.held.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(backend).poll_read(cx, buf);
        if read.is_pending() {
            self.state = ResponseState::Idle;
        }
        read
    }

    fn refuse(&mut self, fault: Fault) -> io::Error {
        self.state = ResponseState::Broken;
        self.is_last = true;
        MalformedResponse(fault).into()
    }
}

/// Result of waiting for a head.
enum ResponseHeadRead {
    /// The head is in Pingora's buffer.
    InPlace,
    /// The head is among the held bytes.
    Head,
    /// The backend has closed the connection.
    End,
}

/// Reads from the backend, and appends the bytes to `held`. Returns their number; 0: the connection is closed.
fn poll_chunk(backend: &mut Stream, cx: &mut Context<'_>, held: &mut ReadAhead) -> Poll<io::Result<usize>> {
    let mut chunk = [const { MaybeUninit::uninit() }; CHUNK];
    let mut read = ReadBuf::uninit(&mut chunk);
    ready!(Pin::new(backend).poll_read(cx, &mut read))?;
    held.keep(read.filled());
    Poll::Ready(Ok(read.filled().len()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 1000, fields: 10 };

    /// Sends `response` to a request with `method`, in pieces of `size` bytes. Returns the bytes that Pingora reads,
    /// and true if the connection can be used again; `None` if the response is refused.
    async fn read(method: &str, response: &str, size: usize) -> Option<(String, bool)> {
        let (mut backend, ours) = duplex(64 * 1024);
        let mut ours: Stream = Box::new(ours);
        let mut inspector = ResponseInspector::default();
        inspector.on_write(format!("{method} / HTTP/1.1\r\n").as_bytes());
        let mut got = Vec::new();
        let mut pieces = response.as_bytes().chunks(size);
        while !matches!(inspector.state, ResponseState::Done | ResponseState::Idle) {
            match look(&mut inspector, &mut ours).await {
                Poll::Ready(Err(_)) => return None,
                Poll::Ready(Ok(part)) => got.extend(part),
                Poll::Pending => match pieces.next() {
                    Some(piece) => backend.write_all(piece).await.unwrap(),
                    None => break,
                },
            }
        }
        for piece in pieces {
            backend.write_all(piece).await.unwrap();
        }
        // Pingora's pool makes such a read when a connection is given back.
        let is_reusable = look(&mut inspector, &mut ours).await.is_pending();
        Some((String::from_utf8(got).unwrap(), is_reusable && matches!(inspector.state, ResponseState::Idle)))
    }

    /// Reads once, without waiting.
    async fn look(inspector: &mut ResponseInspector, ours: &mut Stream) -> Poll<io::Result<Vec<u8>>> {
        let mut room = [0; 300];
        let mut buf = ReadBuf::new(&mut room);
        let poll = std::future::poll_fn(|cx| Poll::Ready(inspector.poll_read(ours, cx, &mut buf, || LIMITS)));
        poll.await.map_ok(|()| buf.filled().to_vec())
    }

    #[tokio::test]
    async fn valid_response_passes_unchanged_without_extra_bytes() {
        for (method, response, rest, is_reusable) in [
            ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "", true),
            ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", true),
            ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 200 OK\r\n", false),
            (
                "GET",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n",
                "",
                true,
            ),
            (
                "GET",
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
                "",
                true,
            ),
            ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "", true),
            ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "", true),
            ("HEAD", "HTTP/1.1 200 OK\r\n\r\n", "", false),
            ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "hello", false),
            (
                "GET",
                "HTTP/1.1 200 OK\r\nConnection: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                "",
                false,
            ),
            ("GET", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "", false),
            ("GET", "HTTP/1.1 200 OK\r\n\r\nuntil the end", "", false),
        ] {
            for size in [1, 7, 1000] {
                let (got, reusable) = read(method, &format!("{response}{rest}"), size).await.unwrap();
                assert_eq!(
                    (got.as_str(), reusable),
                    (response, is_reusable),
                    "{method}, in pieces of {size}"
                );
            }
        }
    }

    #[tokio::test]
    async fn malformed_response_is_refused() {
        let chunked =
            |body: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n{body}");
        for response in [
            chunked("\r\n"),
            chunked(";x=y\r\n"),
            chunked(" \r\n"),
            chunked("0x5\r\n"),
            chunked("-1\r\n"),
            chunked("5\nworld"),
            chunked("2\r\nworld\r\n"),
            chunked("0\r\nContent-Length: 5\r\n\r\n"),
            chunked("0\r\n:path: /\r\n\r\n"),
            "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(33),
            format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(1000)),
            "hello".repeat(500),
        ] {
            for size in [1, 7, 10_000] {
                assert_eq!(read("GET", &response, size).await, None, "{response:?} in pieces of {size}");
            }
        }
    }

    #[tokio::test]
    async fn bytes_after_101_pass_and_its_head_comes_alone() {
        let (mut backend, ours) = duplex(1000);
        let mut ours: Stream = Box::new(ours);
        let head = "HTTP/1.1 101 Switching Protocols\r\n\r\n";
        backend.write_all(format!("HTTP/1.1 103 Early Hints\r\n\r\n{head}\n\n\0").as_bytes()).await.unwrap();
        let mut inspector = ResponseInspector::default();
        inspector.on_write(b"GET / HTTP/1.1\r\n");
        let mut got = Vec::new();
        while !inspector.has_switched() {
            let mut room = [0; 100];
            let mut buf = ReadBuf::new(&mut room);
            std::future::poll_fn(|cx| inspector.poll_read(&mut ours, cx, &mut buf, || LIMITS)).await.unwrap();
            got.extend_from_slice(buf.filled());
        }
        assert!(got.ends_with(head.as_bytes()), "{}", got.escape_ascii());
        assert_eq!(inspector.take_held(), b"\n\n\0");
        let mut nothing = [0; 1];
        drop(backend);
        assert_eq!(ours.read(&mut nothing).await.unwrap(), 0);
    }
}
