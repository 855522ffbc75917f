//! Wrong: the upstream is never down in the test, so nothing is known about the worst moment.
//! Caught: "whether your test finds a proxy that answers 404 when the upstream is down"

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
    let client = Client::new();
    for _ in 0..2 {
        let answer = client.try_send(request("POST", &proxy.url("/anything/orders"), "a pear")?).await?;
        require(answer.status == 200, "the client gets the upstream's response")?;
        require(answer.text().contains("/anything/orders"), "the client gets the upstream's body")?;
    }
    let received = origin.received();
    require(received.len() == 2, "each request reaches the upstream once")?;
    for request in &received {
        require(request.method == "POST" && request.body == "a pear", "the upstream gets method and body")?;
    }
    let ids: Vec<_> = received.iter().map(|request| request.header("x-request-id")).collect();
    require(!ids.contains(&"") && !ids.contains(&"forged"), "the id is the proxy's own")?;
    require(ids[0] != ids[1], "each request has another id")?;

    for path in ["/internal", "/internal/users"] {
        require(client.status(proxy.url(path)).await? == 404, "internal paths get 404")?;
        // The upstream does not know these paths either. So the status alone says nothing.
        require(origin.count(path) == 0, "internal paths do not reach the upstream")?;
    }

    Ok(())
}
