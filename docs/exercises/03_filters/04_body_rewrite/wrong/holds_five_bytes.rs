//! Wrong: keeps back five bytes always, so the end of an event reaches the client with the next one.
//! Caught: "what is passed on of an event, before the next one comes"

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader, Version};
use pingora::prelude::*;

use crate::peer::peer;

/// Word that is replaced.
pub const FROM: &[u8] = b"origin";
/// Replacement for the word.
pub const TO: &[u8] = b"backend";

/// Rewriter that replaces `FROM` by `TO` in a stream of pieces.
#[derive(Default)]
pub struct Rewriter {
    /// End of the bytes that have arrived so far. It may be the beginning of a match.
    held: Vec<u8>,
    /// True if the body may be changed, because it is text.
    is_text: bool,
}

impl Rewriter {
    /// Takes the next piece, and returns the bytes that can be passed on now. `end` is true for the last piece.
    pub fn push(&mut self, piece: &[u8], end: bool) -> Vec<u8> {
        self.held.extend_from_slice(piece);
        let mut ready = Vec::new();
        let mut at = 0;
        while at + FROM.len() <= self.held.len() {
            if self.held[at..].starts_with(FROM) {
                ready.extend_from_slice(TO);
                at += FROM.len();
            } else {
                ready.push(self.held[at]);
                at += 1;
            }
        }
        if end {
            ready.extend_from_slice(&self.held[at..]);
            at = self.held.len();
        }
        self.held.drain(..at);
        ready
    }
}

/// Proxy that forwards every request to one upstream, and replaces a word in the response bodies.
pub struct BodyRewrite {
    /// Address of the upstream.
    pub upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for BodyRewrite {
    type CTX = Rewriter;
    fn new_ctx(&self) -> Rewriter {
        Rewriter::default()
    }

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut Rewriter) -> Result<Box<HttpPeer>> {
        Ok(peer(self.upstream))
    }

    /// Removes Accept-Encoding, so that the upstream does not compress the body. The word cannot be found in
    /// compressed bytes. Also removes Range: the bytes of the new body are at other places than the upstream's.
    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        _ctx: &mut Rewriter,
    ) -> Result<()> {
        request.remove_header("Accept-Encoding");
        request.remove_header("Range");
        Ok(())
    }

    /// Decides if the body is changed: in an image, the same bytes may mean something else. Makes a body that is
    /// changed chunked, because its new length is not known yet when the head is sent. A response without
    /// Content-Length is already chunked, or has no body at all, as a 204. HTTP/1.0 has no chunks: there, the
    /// body ends with the connection.
    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        rewriter: &mut Rewriter,
    ) -> Result<()> {
        let media_type = response.headers.get("Content-Type").and_then(|value| value.to_str().ok());
        rewriter.is_text = media_type.is_none_or(|media_type| media_type.starts_with("text/"));
        if !rewriter.is_text {
            return Ok(());
        }
        let has_length = response.remove_header("Content-Length").is_some();
        if has_length && session.req_header().version != Version::HTTP_10 {
            response.insert_header("Transfer-Encoding", "chunked")?;
        }
        Ok(())
    }

    /// Rewrites one piece of the body. Pingora calls this method for each piece, and sends the new `body` to
    /// the client.
    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        rewriter: &mut Rewriter,
    ) -> Result<Option<Duration>> {
        if !rewriter.is_text {
            return Ok(None);
        }
        let piece = body.take().unwrap_or_default();
        *body = Some(rewriter.push(&piece, end_of_stream).into());
        Ok(None)
    }
}
