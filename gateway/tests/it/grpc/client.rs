//! A tonic client of [`Echo`](super::service::Echo), over any transport.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::{Stream, stream};
use http::uri::PathAndQuery;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

use super::service::Text;

/// Returns a client of the service at `address`, on one HTTP/2 connection with prior knowledge.
pub(crate) async fn client(address: SocketAddr) -> Calls<Channel> {
    Calls::new(Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap())
}

/// A client with one function for each method of the service.
#[derive(Clone)]
pub(crate) struct Calls<T>(Grpc<T>);

impl<T> Calls<T>
where
    T: GrpcService<Body> + Clone,
    T::Error: std::fmt::Debug,
    T::ResponseBody: tonic::transport::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as tonic::transport::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(crate) fn new(service: T) -> Self {
        Calls(Grpc::new(service))
    }

    /// Creates a client on a transport that has no scheme and authority, with those of `origin`.
    pub(crate) fn with_origin(service: T, origin: &str) -> Self {
        Calls(Grpc::with_origin(service, origin.parse().unwrap()))
    }

    async fn ready(&mut self) -> &mut Grpc<T> {
        self.0.ready().await.unwrap();
        &mut self.0
    }

    pub(crate) async fn unary(&mut self, request: Request<String>) -> Result<Response<String>, Status> {
        self.ready().await.unary(request, path("Unary"), Text).await
    }

    pub(crate) async fn say(&mut self, message: &str) -> Result<String, Status> {
        Ok(self.unary(Request::new(message.to_owned())).await?.into_inner())
    }

    pub(crate) async fn wait(&mut self, request: Request<String>) -> Result<Response<String>, Status> {
        self.ready().await.unary(request, path("Wait"), Text).await
    }

    pub(crate) async fn missing(&mut self) -> Status {
        let request = Request::new(String::new());
        self.ready().await.unary::<String, String, _>(request, path("Missing"), Text).await.unwrap_err()
    }

    pub(crate) async fn count(&mut self, order: &str) -> Result<Streaming<String>, Status> {
        let request = Request::new(order.to_owned());
        Ok(self.ready().await.server_streaming(request, path("Count"), Text).await?.into_inner())
    }

    pub(crate) async fn watch(&mut self, first: &str) -> Result<Streaming<String>, Status> {
        let request = Request::new(first.to_owned());
        Ok(self.ready().await.server_streaming(request, path("Watch"), Text).await?.into_inner())
    }

    pub(crate) async fn join(&mut self, messages: &[&str]) -> Result<String, Status> {
        let messages: Vec<String> = messages.iter().map(|message| (*message).to_owned()).collect();
        let request = Request::new(stream::iter(messages));
        Ok(self.ready().await.client_streaming(request, path("Join"), Text).await?.into_inner())
    }

    pub(crate) async fn chat(
        &mut self,
        messages: impl Stream<Item = String> + Send + 'static,
    ) -> Result<Streaming<String>, Status> {
        let request = Request::new(messages);
        Ok(self.ready().await.streaming(request, path("Chat"), Text).await?.into_inner())
    }
}

fn path(method: &str) -> PathAndQuery {
    format!("/test.Echo/{method}").parse().unwrap()
}

/// Returns all messages of a stream, and the status with which it ended.
pub(crate) async fn all(mut messages: Streaming<String>) -> (Vec<String>, Option<Status>) {
    let mut all = Vec::new();
    loop {
        match messages.message().await {
            Ok(Some(message)) => all.push(message),
            Ok(None) => return (all, None),
            Err(status) => return (all, Some(status)),
        }
    }
}
