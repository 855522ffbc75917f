//! WebSockets through the gateway.

mod bytes;
mod http2;
mod kept;
mod life;
mod messages;
pub(crate) mod raw;
mod refusals;
mod stopping;

use std::net::SocketAddr;

use futures::{SinkExt, StreamExt};
use testkit::DEADLINE;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use crate::support::{Gateway, Setup};

/// A backend that echoes messages, and reports the events of its sockets.
struct Echo {
    address: SocketAddr,
    events: UnboundedReceiver<Event>,
}

/// Event of a backend's socket.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    /// A Close frame with its code.
    Close(Option<u16>),
    /// A pong with this payload.
    Pong(Vec<u8>),
    /// The end of the connection.
    End,
}

impl Echo {
    async fn start() -> Echo {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, events) = unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let tell = tell.clone();
                tokio::spawn(async move {
                    let Ok(mut socket) = accept_async(stream).await else { return };
                    while let Some(Ok(message)) = socket.next().await {
                        match message {
                            Message::Text(_) | Message::Binary(_) => {
                                let _ = socket.send(message).await;
                            }
                            Message::Close(frame) => {
                                let _ = tell.send(Event::Close(frame.map(|frame| frame.code.into())));
                            }
                            Message::Pong(payload) => {
                                let _ = tell.send(Event::Pong(payload.to_vec()));
                            }
                            _ => {}
                        }
                    }
                    let _ = tell.send(Event::End);
                });
            }
        });
        Echo { address, events }
    }

    async fn event(&mut self) -> Event {
        timeout(DEADLINE, self.events.recv()).await.unwrap().unwrap()
    }
}

/// Starts a gateway over `backend`, without health checks.
pub(crate) async fn over(backend: SocketAddr, proxy: &str, tables: &str) -> Gateway {
    let tables = format!("[health_check]\nenabled = false\n{tables}");
    Gateway::start_over(&[backend], Setup { proxy, tables: &tables }).await
}

/// Opens a WebSocket through `gateway`.
async fn connect(gateway: &Gateway) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    shake_hands(stream, "ws://web.test/ws").await
}

async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(stream: S, url: &str) -> WebSocketStream<S> {
    timeout(DEADLINE, client_async(url, stream)).await.unwrap().unwrap().0
}

/// Returns the next message, which must arrive in time; `None` if the connection has ended.
async fn next<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) -> Option<Message> {
    timeout(DEADLINE, socket.next()).await.unwrap().and_then(Result::ok)
}

/// Sends `message` and checks that it comes back.
async fn echoed<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>, message: Message) {
    socket.send(message.clone()).await.unwrap();
    assert_eq!(next(socket).await, Some(message));
}

fn close(code: u16, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame { code: code.into(), reason: reason.into() }))
}
