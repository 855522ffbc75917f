//! # Testing a proxy
//!
//! A proxy is tested from outside: a real client sends a request, a real upstream records what arrives, and the test
//! compares both with what was promised. The crate `testkit` has what this needs. `Client` sends requests and never
//! waits for ever. `Origin` is an upstream: `received()` returns all its requests, `count(path)` the number of
//! requests for a path, and `die()` takes it down. It answers `/anything/…` with 200 and a description of the request,
//! and paths that it does not know with 404.
//!
//! This time you write the test. It runs against a proxy that keeps these promises, and against others that break one:
//!
//! 1. A request reaches the upstream once, with its method, path and body. The client gets the response.
//! 2. `/internal` and all paths below it get 404, and never reach the upstream.
//! 3. The upstream gets an X-Request-Id that the proxy has made, another one for each request. A client's own is lost.
//! 4. If the upstream is down, the client gets 502.
//!
//! **Your task**: write `check`. It returns an error that names the first broken promise (`require` makes one).

use bytes::Bytes;
use http::Request;
use testkit::{Client, Origin, ServedProxy};

/// Returns a request with the client's own X-Request-Id.
///
/// # Errors
/// Returns an error if the URL is not valid.
pub fn request(method: &str, url: &str, body: &'static str) -> Result<Request<Bytes>, String> {
    let request = Request::builder().method(method).uri(url).header("x-request-id", "forged");
    request.body(Bytes::from_static(body.as_bytes())).map_err(|error| error.to_string())
}

/// Returns an error with this text if `is_kept` is false.
///
/// # Errors
/// The promise that is broken.
pub fn require(is_kept: bool, promise: &str) -> Result<(), String> {
    if is_kept { Ok(()) } else { Err(promise.to_owned()) }
}

/// Tests a proxy in front of `origin`.
///
/// # Errors
/// The first promise that the proxy breaks.
pub async fn check(origin: &mut Origin, proxy: &ServedProxy) -> Result<(), String> {
    // TODO: send requests to proxy.url(…), and `require` what the proxy has promised. For now, one look at promise 1.
    let answer = Client::new().try_send(request("POST", &proxy.url("/anything/orders"), "a pear")?).await?;
    require(answer.status == 501 && origin.received().is_empty(), "the test is not written yet")
}
