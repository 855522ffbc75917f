//! How the listeners for operators are served: few connections at a time, and an end to whatever a client may
//! draw out, so that nobody who asks about the gateway takes from it what traffic needs.

use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::warn;

/// Connections that are open at a time; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 128;
/// How long a request's head may take, from the end of the one before.
const HEAD: Duration = Duration::from_secs(15);
/// How long a connection may be used.
const CONNECTION: Duration = Duration::from_secs(600);

/// Serves `app` to the end of the process. Handlers find their client's address in [`ConnectInfo`].
///
/// # Errors
/// Where the listener cannot be used at all.
pub(super) async fn serve(listener: TcpListener, app: Router) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let app = app.clone().layer(Extension(ConnectInfo(peer)));
                tokio::spawn(async move {
                    converse(stream, app).await;
                    drop(place);
                });
            }
            Err(error) => {
                // There may be no file for it at the moment.
                warn!(%error, "a connection of an operator cannot be accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, app: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)));
    // How a client leaves is its own affair.
    if let Err(_too_long) = timeout(CONNECTION, connection.as_mut()).await {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(HEAD, connection).await;
    }
}
