//! Serves the listeners for operators. The number of connections and the age of each connection are limited, so that
//! operators' requests do not take resources from traffic.

use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use axum::{Extension, Router, middleware};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::drain::{Drain, LINGER, Part};

/// Maximum number of open connections. A further connection waits until the gateway accepts it.
const MAX_CONNECTIONS: usize = 128;
/// Maximum time for a request head, measured from the end of the previous request.
const HEAD: Duration = Duration::from_secs(15);
/// Maximum age of a connection.
const CONNECTION: Duration = Duration::from_secs(600);

/// A listener for operators.
pub struct HttpListener {
    /// Socket, which is already bound.
    pub listener: TcpListener,
    /// Handle that tells the start-up that the listener accepts connections.
    pub starts: Part,
    /// Drain state, which reports that another process has taken over the listener.
    pub drain: Drain,
}

/// Serves `app` until the process ends or another process takes over the listener. Handlers find the client's
/// address in [`ConnectInfo`].
///
/// # Errors
/// Returns an error if the listener cannot be used at all.
pub(super) async fn serve(door: HttpListener, app: Router) -> std::io::Result<()> {
    let HttpListener { listener, starts, drain } = door;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let app = app.layer(middleware::map_response_with_state(drain.clone(), announce_close));
    starts.listens();
    tokio::select! {
        () = accept(&listener, app, &drain) => {}
        () = drain.begun() => {}
    }
    Ok(())
}

async fn accept(listener: &tokio::net::TcpListener, app: Router, drain: &Drain) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = permits.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let app = app.clone().layer(Extension(ConnectInfo(peer)));
                let (drain, staying) = (drain.clone(), drain.stay());
                tokio::spawn(async move {
                    converse(stream, app, &drain).await;
                    drop((place, staying));
                });
            }
            Err(error) => {
                // The process may have no free file descriptor at the moment.
                warn!(%error, "cannot accept a connection of an operator");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Adds `Connection: close` to a response during a hand-over. The client's next request then reaches the process that
/// has the listener at that time.
async fn announce_close(State(drain): State<Drain>, mut response: Response) -> Response {
    if drain.has_begun() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn converse(stream: TcpStream, app: Router, drain: &Drain) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)));
    let handed_over = async {
        drain.begun().await;
        sleep(LINGER).await;
    };
    tokio::select! {
        biased;
        // The result does not matter, because the connection is closed in any case.
        _ = connection.as_mut() => return,
        () = sleep(CONNECTION) => {}
        () = handed_over => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(HEAD, connection).await;
}
