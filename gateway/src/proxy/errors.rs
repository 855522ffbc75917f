//! Local replies for errors of Pingora: each error gets a status and an error type of RFC 9209 (Proxy-Status) 2.3. This
//! file also defines the gateway's own errors, which end a request or an attempt.

use http::{HeaderValue, StatusCode, header};
use pingora::prelude::*;

use crate::downstream::stream::Refusal as Refused;
use crate::policy::body_limit;
use crate::reply::{Problem, Reply};
use crate::telemetry::Limit;
use crate::upstream::NoBackend;
use crate::upstream::connection::{MalformedResponse, SPEAKS_HTTP2};
use crate::util::http1::Fault;

/// Value of `Retry-After`, in seconds, if the time until a backend is usable is unknown.
const RETRY_AFTER_SECS: u32 = 5;

/// Returns the reply to a request for which no backend can be chosen.
pub fn no_backend(refusal: NoBackend) -> Reply {
    let (reply, secs) = match refusal {
        NoBackend::NoneUsable(after) => {
            let reply = Reply::new(Problem::NoBackend, "every backend of this service is down");
            let secs = after.map_or(RETRY_AFTER_SECS, |after| after.as_secs_f64().ceil() as u32);
            (reply.proxy_error("destination_unavailable"), secs)
        }
        NoBackend::AllBusy => {
            let detail = "every backend of this service has as many requests as its limit allows";
            (Reply::new(Problem::LimitReached, detail).proxy_error("connection_limit_reached"), 1)
        }
    };
    reply.field(header::RETRY_AFTER, HeaderValue::from(secs.max(1)))
}

/// Creates the error that ends a request if no backend is left for another attempt.
pub fn no_backend_left(refusal: NoBackend) -> Box<Error> {
    match refusal {
        NoBackend::NoneUsable(_) => Error::explain(NO_BACKEND_LEFT, "no backend is left"),
        NoBackend::AllBusy => Error::explain(ALL_BUSY, "every backend that is left is busy"),
    }
}

const NO_BACKEND_LEFT: ErrorType = ErrorType::new("NoBackendLeft");
const ALL_BUSY: ErrorType = ErrorType::new("AllBackendsBusy");

/// Creates the error that discards a response because of its status, so that another attempt begins.
pub fn retry_on_status(status: StatusCode) -> Box<Error> {
    let mut error = Error::explain(RETRY_ON_STATUS, format!("answered with {status}")).into_up();
    error.set_retry(true);
    error
}

const RETRY_ON_STATUS: ErrorType = ErrorType::new("RetryOnStatus");

/// Returns true for the error of [`retry_on_status`].
pub fn is_retry_on_status(error: &Error) -> bool {
    *error.etype() == RETRY_ON_STATUS
}

/// Returns true if the backend refused an HTTP/2 request before processing it (RFC 9113 8.7). A request with any method
/// may then be sent again.
pub fn is_unprocessed(error: &Error) -> bool {
    *error.etype() == H2Error && matches!(error.retry, RetryType::Decided(true))
}

/// Creates the error that ends an attempt because HTTP/2 is required and the backend does not speak it.
pub fn no_http2() -> Box<Error> {
    Error::explain(H2Downgrade, "the backend does not speak HTTP/2").into_up()
}

/// Returns the reply to a request that is not valid HTTP. The reply closes the connection, because the gateway cannot
/// tell where the next request begins.
pub fn refused(refusal: Refused) -> Reply {
    Reply::new(refusal.problem, refusal.detail).and_close()
}

/// Returns the reply to a client that sent WebSocket frames before it received the 101 response (RFC 6455 4.1).
pub fn ahead_of_upgrade() -> Reply {
    let detail = "the client did not wait for the response to its WebSocket request";
    // The bytes that follow may be frames, which must not be read as a request.
    Reply::new(Problem::BadRequest, detail).and_close()
}

/// Creates the error for a backend's 101 on a connection that cannot become a tunnel.
pub fn no_tunnel() -> Box<Error> {
    Error::explain(InvalidHTTPHeader, "101, on a connection that cannot become a tunnel").into_up()
}

/// Creates the error that ends an attempt because the backend chose HTTP/1.1. The next attempt inspects the response.
pub fn speaks_http1() -> Box<Error> {
    Error::explain(SPEAKS_HTTP1, "the backend now speaks HTTP/1.1").into_up()
}

const SPEAKS_HTTP1: ErrorType = ErrorType::new("BackendSpeaksHttp1");

/// Returns true if the backend chose another HTTP version than before. The request has not been sent then.
pub fn is_other_version(error: &Error) -> bool {
    matches!(*error.etype(), SPEAKS_HTTP1 | SPEAKS_HTTP2)
}

/// Returns the fault in a backend's response that caused `error`; `None` if `error` has another cause.
pub fn malformed_response(error: &Error) -> Option<Fault> {
    let io = error.root_cause().downcast_ref::<std::io::Error>()?;
    io.get_ref()?.downcast_ref::<MalformedResponse>().map(|malformed| malformed.0)
}

/// Returns true if the backend closed a reused connection while the request was on its way, so that it has not read the
/// request. `answered` is true if a part of a response has arrived.
pub fn is_race(error: &Error, reused: bool, answered: bool) -> bool {
    let closed = matches!(error.etype(), ConnectionClosed | ReadError | WriteError);
    let is_closed = closed && malformed_response(error).is_none();
    reused && is_closed && !answered && *error.esource() == ErrorSource::Upstream
}

/// Returns true if the backend timed out because it had not received the whole request: the client is at fault.
pub fn is_clients_fault(error: &Error, request_sent: bool) -> bool {
    *error.esource() == ErrorSource::Upstream && *error.etype() == ReadTimedout && !request_sent
}

/// Creates the error that ends a request whose body is longer than allowed.
pub fn body_too_long() -> Box<Error> {
    Error::explain(BODY_TOO_LONG, body_limit::TOO_LONG).into_down()
}

const BODY_TOO_LONG: ErrorType = ErrorType::new("BodyTooLong");

/// Returns true for the error of [`body_too_long`].
pub fn is_body_too_long(error: &Error) -> bool {
    *error.etype() == BODY_TOO_LONG
}

/// Creates the error that ends a request of which more arrives after its response is complete. The client gets no reply
/// to this error: see `early_response`.
pub fn answered_early() -> Box<Error> {
    Error::explain(ANSWERED_EARLY, "answered before the request was complete").into_down()
}

const ANSWERED_EARLY: ErrorType = ErrorType::new("AnsweredEarly");

/// Creates the error that ends a request whose body arrives too slowly.
pub fn body_too_slow() -> Box<Error> {
    Error::explain(ReadTimedout, "the body arrives too slowly").into_down()
}

/// Returns the limit that the client exceeded; `None` if `reply`, sent before any backend got the request, has another
/// cause.
pub fn limit_of_reply(reply: &Reply) -> Option<Limit> {
    match reply.problem()? {
        Problem::UriTooLong => Some(Limit::Uri),
        Problem::HeadTooLarge => Some(Limit::Header),
        // Before any backend got the request, only its head can have been too late.
        Problem::RequestTimeout => Some(Limit::HeaderTimeout),
        Problem::ContentTooLarge => Some(Limit::RequestBody),
        _ => None,
    }
}

/// Returns the limit that the client exceeded; `None` if `error` has another cause.
pub fn limit(error: &Error) -> Option<Limit> {
    let by_client = *error.esource() == ErrorSource::Downstream;
    match *error.etype() {
        BODY_TOO_LONG => Some(Limit::RequestBody),
        ReadTimedout if by_client => Some(Limit::BodyRate),
        WriteTimedout if by_client => Some(Limit::SendRate),
        _ => None,
    }
}

/// Creates the error that ends a request because the backend waited for the client in vain.
pub fn request_timeout() -> Box<Error> {
    Error::explain(ReadTimedout, "the client stopped sending its request").into_down()
}

/// Creates the error that ends a request whose client left before a backend got the request.
pub fn client_left() -> Box<Error> {
    Error::explain(ConnectionClosed, "the client has closed the connection").into_down()
}

/// Creates the error that ends a gRPC call at the deadline that its client has set.
pub fn deadline_exceeded() -> Box<Error> {
    Error::explain(DEADLINE_EXCEEDED, "the call took longer than its grpc-timeout").into_up()
}

const DEADLINE_EXCEEDED: ErrorType = ErrorType::new("DeadlineExceeded");

/// Returns true if the error is a timeout.
pub fn is_timeout(error: &Error) -> bool {
    matches!(error.etype(), ReadTimedout | WriteTimedout | ConnectTimedout | TLSHandshakeTimedout)
}

/// Returns the reply to a request whose response did not begin in time.
pub fn overdue() -> Reply {
    upstream(&ReadTimedout)
}

/// Returns the reply for an error that ended a request; `None` if the client can no longer receive one.
pub fn reply(error: &Error) -> Option<Reply> {
    match *error.etype() {
        NO_BACKEND_LEFT => return Some(no_backend(NoBackend::NoneUsable(None))),
        ALL_BUSY => return Some(no_backend(NoBackend::AllBusy)),
        DEADLINE_EXCEEDED => {
            return Some(Reply::new(Problem::DeadlineExceeded, "the call took longer than its grpc-timeout"));
        }
        _ => {}
    }
    match error.esource() {
        _ if is_body_too_long(error) => Some(Reply::new(Problem::ContentTooLarge, body_limit::TOO_LONG)),
        ErrorSource::Upstream if malformed_response(error).is_some() => Some(upstream(&InvalidHTTPHeader)),
        ErrorSource::Upstream => Some(upstream(error.etype())),
        ErrorSource::Downstream => downstream(error.etype()),
        ErrorSource::Internal | ErrorSource::Unset => Some(internal()),
    }
}

fn upstream(error: &ErrorType) -> Reply {
    let (problem, proxy_error, detail) = match error {
        ConnectTimedout => (
            Problem::GatewayTimeout,
            "connection_timeout",
            "the backend did not accept the connection in time",
        ),
        TLSHandshakeTimedout => (
            Problem::GatewayTimeout,
            "connection_timeout",
            "the backend did not complete the TLS handshake in time",
        ),
        ReadTimedout => {
            (Problem::GatewayTimeout, "http_response_timeout", "the backend did not answer in time")
        }
        WriteTimedout => (
            Problem::GatewayTimeout,
            "connection_write_timeout",
            "the backend did not read the request in time",
        ),
        ConnectRefused => (Problem::BadGateway, "connection_refused", "the backend refused the connection"),
        ConnectNoRoute => {
            (Problem::BadGateway, "destination_ip_unroutable", "there is no network route to the backend")
        }
        TLSHandshakeFailure | HandshakeError => {
            (Problem::BadGateway, "tls_protocol_error", "the TLS handshake with the backend failed")
        }
        InvalidCert => {
            (Problem::BadGateway, "tls_certificate_error", "the backend's certificate is not valid")
        }
        H2Error => (
            Problem::BadGateway,
            "http_protocol_error",
            "the backend reset the stream, or what it sent is not valid HTTP/2",
        ),
        InvalidHTTPHeader | H1Error | InvalidH2 | H2Downgrade | Custom("InvalidChunk") => {
            (Problem::BadGateway, "http_protocol_error", "the backend's response is not valid HTTP")
        }
        ReadError | WriteError | ConnectionClosed => (
            Problem::BadGateway,
            "connection_terminated",
            "the backend closed the connection before its response",
        ),
        _ => (Problem::BadGateway, "destination_unavailable", "the backend cannot be reached"),
    };
    Reply::new(problem, detail).proxy_error(proxy_error)
}

fn downstream(error: &ErrorType) -> Option<Reply> {
    match error {
        // The connection to the client is gone.
        ReadError | WriteError | ConnectionClosed | WriteTimedout => None,
        // The client's connection or stream is gone. Bytes that are not HTTP/2 never become a request.
        H2Error => None,
        ReadTimedout => {
            Some(Reply::new(Problem::RequestTimeout, "the complete request did not arrive in time"))
        }
        _ => Some(Reply::new(Problem::BadRequest, "the request is not valid HTTP")),
    }
}

fn internal() -> Reply {
    Reply::new(Problem::Internal, "the gateway could not handle the request; its log says more")
        .proxy_error("proxy_internal_error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_status_and_error_type() {
        for (error, source, status, reason) in [
            (ConnectRefused, ErrorSource::Upstream, 502, "connection_refused"),
            (ConnectTimedout, ErrorSource::Upstream, 504, "connection_timeout"),
            (ReadTimedout, ErrorSource::Upstream, 504, "http_response_timeout"),
            (ConnectionClosed, ErrorSource::Upstream, 502, "connection_terminated"),
            (InvalidHTTPHeader, ErrorSource::Upstream, 502, "http_protocol_error"),
            (SocketError, ErrorSource::Upstream, 502, "destination_unavailable"),
            (NO_BACKEND_LEFT, ErrorSource::Unset, 503, "destination_unavailable"),
            (InvalidHTTPHeader, ErrorSource::Downstream, 400, "bad_request"),
            (ReadTimedout, ErrorSource::Downstream, 408, "request_timeout"),
            (BODY_TOO_LONG, ErrorSource::Downstream, 413, "content_too_large"),
            (DEADLINE_EXCEEDED, ErrorSource::Upstream, 504, "deadline_exceeded"),
            (InternalError, ErrorSource::Internal, 500, "proxy_internal_error"),
        ] {
            let mut failed = Error::new(error);
            failed.esource = source;
            let reply = reply(&failed).unwrap();
            assert_eq!((reply.status(), reply.reason()), (status, Some(reason)), "{failed}");
        }
    }

    #[test]
    fn no_reply_once_the_client_is_gone() {
        for gone in [ConnectionClosed, H2Error] {
            let mut error = Error::new(gone);
            error.as_down();
            assert!(reply(&error).is_none(), "{error}");
        }
    }
}
