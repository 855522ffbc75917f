//! UDP sockets of the DNS resolver.
//!
//! A server that cannot read a query (for example one with an EDNS record that the server does not know) may answer
//! with a header and nothing else. Such a response does not repeat the question, so the library treats it as forged
//! and waits until the timeout. This module inserts the question into the response, so that the library accepts it.
//! This is safe: the sender, the port and the id are checked, and such a response can only report an error.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hickory_resolver::net::runtime::{DnsUdpSocket, RuntimeProvider, TokioRuntimeProvider};
use tokio::net::UdpSocket;

/// Length of a header in bytes (RFC 1035 4.1.1).
const HEADER: usize = 12;

/// Runtime of the resolver, with the sockets of this module.
#[derive(Clone, Default)]
pub(super) struct Runtime(TokioRuntimeProvider);

impl RuntimeProvider for Runtime {
    type Handle = <TokioRuntimeProvider as RuntimeProvider>::Handle;
    type Timer = <TokioRuntimeProvider as RuntimeProvider>::Timer;
    type Udp = Socket;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.0.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        bind: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        self.0.connect_tcp(server, bind, timeout)
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Socket>>>> {
        let socket = self.0.bind_udp(local, server);
        Box::pin(async move { Ok(Socket { socket: socket.await?, question: OnceLock::new() }) })
    }
}

/// Socket for one query.
pub(super) struct Socket {
    socket: UdpSocket,
    /// Question section of the query that was sent.
    question: OnceLock<Vec<u8>>,
}

impl DnsUdpSocket for Socket {
    type Time = <TokioRuntimeProvider as RuntimeProvider>::Timer;

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let (length, from) = ready!(DnsUdpSocket::poll_recv_from(&self.socket, cx, buffer))?;
        let question = self.question.get().map_or(&[][..], Vec::as_slice);
        Poll::Ready(Ok((with_question(buffer, length, question), from)))
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        message: &[u8],
        target: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        if let Some(question) = question_of(message) {
            self.question.get_or_init(|| question.to_vec());
        }
        self.socket.poll_send_to(cx, message, target)
    }
}

/// Returns the question section of `message`; `None` unless the message has exactly one question.
fn question_of(message: &[u8]) -> Option<&[u8]> {
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let mut end = HEADER;
    loop {
        match *message.get(end)? {
            0 => break,
            // A question has no compression pointer, because no name comes before it.
            length if length < 64 => end += 1 + usize::from(length),
            _ => return None,
        }
    }
    // Five more bytes: the end of the name (1), the type (2) and the class (2).
    message.get(HEADER..end + 5)
}

/// Inserts `question` into a response of `length` bytes in `buffer`, if the response is an error that does not repeat
/// the question. Returns the new length.
fn with_question(buffer: &mut [u8], length: usize, question: &[u8]) -> usize {
    let Some(header) = buffer.first_chunk::<HEADER>().filter(|_| length >= HEADER) else { return length };
    let is_error = header[2] & 0x80 != 0 && header[3] & 0x0f != 0;
    let repeats_none = header[4..6] == [0, 0];
    let completed = length + question.len();
    if !is_error || !repeats_none || question.is_empty() || completed > buffer.len() {
        return length;
    }
    buffer.copy_within(HEADER..length, HEADER + question.len());
    buffer[HEADER..HEADER + question.len()].copy_from_slice(question);
    buffer[5] = 1;
    completed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Query with id 7 and one question: the address of "a.b".
    const QUESTION: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x01a\x01b\0\0\x01\0\x01";

    #[test]
    fn question_of_sent_query_is_found() {
        assert_eq!(question_of(QUESTION), Some(&b"\x01a\x01b\0\0\x01\0\x01"[..]));
        let with_edns = [QUESTION, b"\0\0\x29\x04\xd0\0\0\0\0\0\0"].concat();
        assert_eq!(question_of(&with_edns), Some(&b"\x01a\x01b\0\0\x01\0\x01"[..]));
        for end in 0..QUESTION.len() {
            assert_eq!(question_of(&QUESTION[..end]), None, "{end} bytes");
        }
        assert_eq!(question_of(b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01"), None);
        assert_eq!(question_of(b"\0\x07\x01\0\0\0\0\0\0\0\0\0\0\0\x01\0\x01"), None);
    }

    #[test]
    fn error_response_without_question_gets_it() {
        let question = question_of(QUESTION).unwrap();
        let completed = |response: &[u8], room: usize| {
            let mut buffer = vec![0; room];
            buffer[..response.len()].copy_from_slice(response);
            let length = with_question(&mut buffer, response.len(), question);
            buffer.truncate(length);
            buffer
        };
        let formerr = b"\0\x07\x81\x81\0\0\0\0\0\0\0\0";
        assert_eq!(completed(formerr, 512), [b"\0\x07\x81\x81\0\x01\0\0\0\0\0\0", question].concat());
        let more = [&formerr[..], b"what follows"].concat();
        assert_eq!(
            completed(&more, 512),
            [b"\0\x07\x81\x81\0\x01\0\0\0\0\0\0", question, b"what follows"].concat()
        );
        let whole = [b"\0\x07\x81\x81\0\x01\0\0\0\0\0\0", question].concat();
        for other in
            [&whole[..], b"\0\x07\x81\x80\0\0\0\0\0\0\0\0", b"\0\x07\x01\x81\0\0\0\0\0\0\0\0", b"\0\x07", b""]
        {
            assert_eq!(completed(other, 512), other, "it stays as it came");
        }
        assert_eq!(completed(formerr, formerr.len()), formerr, "there is no room");
    }
}
