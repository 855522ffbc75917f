//! # Body rewrite
//!
//! A body can be larger than memory, so a proxy sees it piece by piece, as it arrives, and passes each piece on
//! before it has the next. Pieces end anywhere: of the word `origin`, one may end with `ori`, and the next one
//! begin with `gin`.
//!
//! **Your task**: write `push`, which replaces `FROM` by `TO` wherever it stands, across pieces too. Keep back
//! only what may be the beginning of a match.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::*;

/// What is replaced.
pub const FROM: &[u8] = b"origin";
/// What it is replaced by.
pub const TO: &[u8] = b"backend";

/// Replaces `FROM` by `TO` in a stream of pieces.
#[derive(Default)]
pub struct Rewriter {
    /// The end of what has come so far: it may be the beginning of a match.
    held: Vec<u8>,
}

impl Rewriter {
    /// Takes the next piece, the last one if `end` is true, and returns what can be passed on now.
    pub fn push(&mut self, piece: &[u8], end: bool) -> Vec<u8> {
        // TODO: replace, and keep back what is needed. So far everything is passed on as it is.
        self.held.extend_from_slice(piece);
        let _ = end;
        std::mem::take(&mut self.held)
    }
}

/// Forwards every request to one upstream, and replaces a word in what it answers.
pub struct BodyRewrite {
    /// Where to.
    pub upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for BodyRewrite {
    type CTX = Rewriter;
    fn new_ctx(&self) -> Rewriter {
        Rewriter::default()
    }

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut Rewriter) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    /// The upstream must not compress: no word could be found in that.
    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        _ctx: &mut Rewriter,
    ) -> Result<()> {
        request.remove_header("Accept-Encoding");
        Ok(())
    }

    /// How long the body will be is not known now, when the header is sent: so it goes in chunks. Where there was
    /// no Content-Length it does so already, or there is no body at all, as in a 204.
    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        _ctx: &mut Rewriter,
    ) -> Result<()> {
        if response.remove_header("Content-Length").is_some() {
            response.insert_header("Transfer-Encoding", "chunked")?;
        }
        Ok(())
    }

    /// Called for each piece of the body; what is left in `body` goes to the client.
    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        rewriter: &mut Rewriter,
    ) -> Result<Option<Duration>> {
        let piece = body.take().unwrap_or_default();
        *body = Some(rewriter.push(&piece, end_of_stream).into());
        Ok(None)
    }
}
