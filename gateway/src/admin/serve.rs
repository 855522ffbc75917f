//! How the listeners for operators are served: few connections at a time, and an end to whatever a client may
//! draw out, so that nobody who asks about the gateway takes from it what traffic needs.

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

/// Connections that are open at a time; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 128;
/// How long a request's head may take, from the end of the one before.
const HEAD: Duration = Duration::from_secs(15);
/// How long a connection may be used.
const CONNECTION: Duration = Duration::from_secs(600);

/// A listener for operators.
pub struct Door {
    /// Bound already.
    pub listener: TcpListener,
    /// Told when it is served.
    pub starts: Part,
    /// Says when it is another process's.
    pub leaving: Drain,
}

/// Serves `app` to the end of the process, or until the listener is another process's. Handlers find their
/// client's address in [`ConnectInfo`].
///
/// # Errors
/// Where the listener cannot be used at all.
pub(super) async fn serve(door: Door, app: Router) -> std::io::Result<()> {
    let Door { listener, starts, leaving } = door;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let app = app.layer(middleware::map_response_with_state(leaving.clone(), ask_to_leave));
    starts.listens();
    tokio::select! {
        () = accept(&listener, app, &leaving) => {}
        () = leaving.begun() => {}
    }
    Ok(())
}

async fn accept(listener: &tokio::net::TcpListener, app: Router, leaving: &Drain) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let app = app.clone().layer(Extension(ConnectInfo(peer)));
                let (leaving, staying) = (leaving.clone(), leaving.stay());
                tokio::spawn(async move {
                    converse(stream, app, &leaving).await;
                    drop((place, staying));
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

/// The next request shall come to the process that has the listener by then.
async fn ask_to_leave(State(leaving): State<Drain>, mut response: Response) -> Response {
    if leaving.has_begun() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn converse(stream: TcpStream, app: Router, leaving: &Drain) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)));
    let handed_over = async {
        leaving.begun().await;
        sleep(LINGER).await;
    };
    tokio::select! {
        biased;
        // How a client leaves is its own affair.
        _ = connection.as_mut() => return,
        () = sleep(CONNECTION) => {}
        () = handed_over => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(HEAD, connection).await;
}
