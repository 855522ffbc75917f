//! Accept loop of an HTTP/2 connection. Pingora's own loop closes an idle connection without a GOAWAY. Then a client
//! cannot know whether it may repeat a request that it has just sent (RFC 9113 9.1). Pingora's loop also never ends a
//! connection because of abuse.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Accept, HttpSession, handshake};
use pingora::protocols::{Digest, GetProxyDigest, GetSocketDigest, GetTimingDigest, Ssl, Stream};
use pingora::server::ShutdownWatch;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::ledger::{Abuse, Budget, FAULTS};
use super::options::{MAX_STREAMS, options};
use super::streams::OpenStreams;
use crate::downstream::stream::{ClientStream, LINGER};

/// Maximum number of a connection's requests that are processed at the same time. It is larger than the number of
/// streams, because the task of a reset request may go on, for example while it connects to a backend.
const MAX_TASKS: usize = 2 * MAX_STREAMS as usize;

/// Time for an idle client to close its connection after the GOAWAY.
const GOODBYE: Duration = Duration::from_secs(1);

type Connection = h2::server::Connection<Stream, Bytes>;

/// Serves the requests on `stream` with `app` until the connection is over. Sends a GOAWAY when no request has been in
/// flight for `idle`, or when `ends` becomes true. Returns the abuse if abuse has ended the connection.
pub async fn serve<A>(
    stream: ClientStream,
    app: &Arc<A>,
    mut ends: ShutdownWatch,
    idle: Duration,
) -> Option<Abuse>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let http2 = stream.http2.as_ref()?;
    let (verdict, streams) = (http2.verdict(), http2.streams());
    let digest = digest(&stream);
    let mut connection = handshake(Box::new(stream), Some(options())).await.ok()?;
    let in_flight = Arc::new(InFlight::new(streams));
    let mut rejected = Budget::new(FAULTS);
    let (shutdown, mut is_leaving, mut was_idle) = (ends.clone(), false, false);
    loop {
        tokio::select! {
            biased;
            (reason, abuse) = verdict.wait() => {
                end(connection, digest, reason).await;
                return Some(abuse);
            }
            () = is_over(&mut ends), if !is_leaving => {
                connection.graceful_shutdown();
                is_leaving = true;
            }
            () = in_flight.idle_for(idle), if !is_leaving => {
                connection.graceful_shutdown();
                (is_leaving, was_idle) = (true, true);
            }
            () = in_flight.idle_for(GOODBYE), if was_idle => return None,
            accepted = HttpSession::from_h2_conn(&mut connection, digest.clone()) => match accepted {
                Ok(Some(H2Accept::Session(session))) => dispatch(session, app, &in_flight, &shutdown),
                Ok(Some(H2Accept::Rejected)) if rejected.spend() => {}
                Ok(Some(H2Accept::Rejected)) => {
                    end(connection, digest, h2::Reason::ENHANCE_YOUR_CALM).await;
                    return Some(Abuse::Faults);
                }
                Ok(None) => return None,
                Err(error) => return abuse_of(&error),
            },
        }
    }
}

/// Starts a task in which `app` answers a request.
fn dispatch<A>(mut session: HttpSession, app: &Arc<A>, in_flight: &Arc<InFlight>, shutdown: &ShutdownWatch)
where
    A: HttpServerApp + Send + Sync + 'static,
{
    if session.idle().now_or_never().is_some() {
        // The request has been reset already, so no backend needs to receive it.
        return;
    }
    let Some(guard) = in_flight.enter() else {
        // REFUSED_STREAM allows the client to send the request again (RFC 9113 8.7).
        return session.shutdown_with_reason(h2::Reason::REFUSED_STREAM);
    };
    let (app, shutdown) = (app.clone(), shutdown.clone());
    tokio::spawn(async move {
        let _guard = guard;
        app.process_new_http(ServerSession::new_http2(session), &shutdown).await;
    });
}

/// Ends a connection with `reason`, and gives the client time to read the GOAWAY.
async fn end(mut connection: Connection, digest: Arc<Digest>, reason: h2::Reason) {
    connection.abrupt_shutdown(reason);
    let closing = async {
        while let Ok(Some(_dropped)) = HttpSession::from_h2_conn(&mut connection, digest.clone()).await {}
    };
    // The stream lingers for `LINGER` after the last write.
    let _closed_or_too_late = timeout(2 * LINGER, closing).await;
}

async fn is_over(ends: &mut ShutdownWatch) {
    if ends.wait_for(|over| *over).await.is_err() {
        std::future::pending().await
    }
}

/// Returns the abuse because of which h2 has ended the connection; `None` if h2 ended it for another reason.
fn abuse_of(error: &pingora::Error) -> Option<Abuse> {
    let cause = error.cause.as_ref()?.downcast_ref::<h2::Error>()?;
    if !(cause.is_go_away() && cause.is_library()) {
        return None;
    }
    let is_flood = cause.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
    Some(if is_flood { Abuse::Frames } else { Abuse::Connection })
}

fn digest(stream: &ClientStream) -> Arc<Digest> {
    Arc::new(Digest {
        ssl_digest: stream.get_ssl_digest(),
        timing_digest: stream.get_timing_digest(),
        proxy_digest: stream.get_proxy_digest(),
        socket_digest: stream.get_socket_digest(),
    })
}

/// Count of the requests that a connection processes now.
struct InFlight {
    streams: Arc<OpenStreams>,
    count: AtomicUsize,
    is_idle: Notify,
}

impl InFlight {
    fn new(streams: Arc<OpenStreams>) -> Self {
        InFlight { streams, count: AtomicUsize::new(0), is_idle: Notify::new() }
    }

    /// Counts a request until the guard is dropped. Returns `None` if there are too many requests on this connection,
    /// or too many streams on all connections together.
    fn enter(self: &Arc<Self>) -> Option<Guard> {
        if self.streams.are_too_many() {
            return None;
        }
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        let guard = Guard(self.clone());
        (before < MAX_TASKS).then_some(guard)
    }

    /// Waits until no request has been in flight for `time`.
    async fn idle_for(&self, time: Duration) {
        while self.count.load(Ordering::Relaxed) > 0 {
            self.is_idle.notified().await;
        }
        sleep(time).await;
    }
}

struct Guard(Arc<InFlight>);

impl Drop for Guard {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.is_idle.notify_one();
        }
    }
}
