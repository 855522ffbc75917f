//! Local replies: responses that the gateway makes itself, as problem reports (RFC 9457).

use bytes::Bytes;
use pingora::http::{Method, ResponseHeader};
use pingora::prelude::*;

/// Response that the gateway makes itself.
pub struct Reply {
    /// Status of the response.
    pub status: u16,
    /// Explanation for the client, in one sentence.
    pub detail: &'static str,
    /// Number of seconds after which a client may try again; 0 tells none.
    pub retry_after: u64,
}

impl Reply {
    /// Returns a reply; `detail` says what happened.
    pub fn new(status: u16, detail: &'static str) -> Reply {
        Reply { status, detail, retry_after: 0 }
    }

    /// Returns the reply for an error that ended a request; `None` if the client is gone.
    fn from_error(error: &Error) -> Option<Reply> {
        Some(match (error.etype(), error.esource()) {
            (ReadError | WriteError | ConnectionClosed, ErrorSource::Downstream) => return None,
            (HTTPStatus(503), _) => Reply { retry_after: 1, ..Reply::new(503, "no backend is usable") },
            (ConnectTimedout | ReadTimedout, ErrorSource::Upstream) => {
                Reply::new(504, "the backend is too slow")
            }
            (_, ErrorSource::Upstream) => Reply::new(502, "the backend has failed"),
            (_, ErrorSource::Downstream) => Reply::new(400, "the request is not valid or not complete"),
            _ => Reply::new(500, "the gateway could not handle the request"),
        })
    }

    /// Sends the reply. Its length is always announced, so that the connection can serve the next request.
    pub async fn send(&self, session: &mut Session) -> Result<()> {
        let Reply { status, detail, retry_after } = self;
        let body = format!(r#"{{"type":"about:blank","status":{status},"detail":"{detail}"}}"#);
        let mut head = ResponseHeader::build(*status, None)?;
        head.insert_header("Content-Type", "application/problem+json")?;
        head.insert_header("Content-Length", body.len())?;
        if *retry_after > 0 {
            head.insert_header("Retry-After", *retry_after)?;
        }
        if session.req_header().headers.contains_key("Expect") {
            // The client may still send its body, or may not. Nothing tells that body from another request.
            session.set_keepalive(None);
        }
        let is_head = session.req_header().method == Method::HEAD;
        session.write_response_header(Box::new(head), is_head).await?;
        let body = (!is_head).then(|| Bytes::from(body));
        session.write_response_body(body, true).await
    }

    /// Replies to a request that has failed, unless its response has begun. Returns the status; 0 for no reply.
    pub async fn send_for_error(error: &Error, session: &mut Session) -> u16 {
        let Some(reply) = Reply::from_error(error).filter(|_| session.response_written().is_none()) else {
            return 0;
        };
        session.set_keepalive(None);
        // A close with unread bytes of the body would be a reset, which might destroy the reply on its way. If
        // one of the two fails, the client has left, and cannot be told.
        if reply.send(session).await.is_ok() {
            let _ = session.drain_request_body().await;
        }
        reply.status
    }
}
