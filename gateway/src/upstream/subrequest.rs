//! Requests that the gateway makes itself, to probe a backend or to mirror a client's request. They use the same kind
//! of connection and the same settings as requests of clients.

use bytes::{Bytes, BytesMut};
use http::{StatusCode, Version, header};
use pingora::http::RequestHeader;
use pingora::prelude::*;
use pingora::upstreams::peer::HttpPeer;

use super::certificate::check_address;
use super::connection::HttpConnector;
use crate::upstream::response_check::switched_unasked;
use crate::util::status::is_interim;

/// Number of bytes of a response's body that are kept. The rest is read and dropped.
const KEPT_BODY: usize = 64 * 1024;

/// Response to a request that the gateway has made itself: its status, and the beginning of its body.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// Sends `request`, and reads the response to its end. Only the timeouts of `peer` apply, to each single read and
/// write. The caller must limit the total time.
pub(super) async fn call(
    connector: &HttpConnector,
    peer: &HttpPeer,
    mut request: RequestHeader,
    body: Bytes,
) -> Result<Answer> {
    let (mut session, _) = connector.get_http_session(peer).await?;
    check_address(session.digest(), peer)?;
    if session.as_http2().is_some() {
        for_http2(&mut request, peer)?;
    }
    session.set_read_timeout(peer.options.read_timeout);
    session.set_write_timeout(peer.options.write_timeout);
    session.write_request_header(Box::new(request)).await?;
    if !body.is_empty() {
        session.write_request_body(body, true).await?;
    }
    session.finish_request_body().await?;
    let status = loop {
        session.read_response_header().await?;
        let status = session.response_header().map(|response| response.status);
        let status = status.ok_or_else(|| Error::explain(H1Error, "an answer without a status"))?;
        match status {
            StatusCode::SWITCHING_PROTOCOLS => return Err(switched_unasked()),
            status if is_interim(status) => {}
            status => break status,
        }
    };
    let mut body = BytesMut::new();
    while let Some(part) = session.read_response_body().await? {
        let room = KEPT_BODY.saturating_sub(body.len()).min(part.len());
        body.extend_from_slice(&part[..room]);
    }
    connector.release_http_session(session, peer, peer.options.idle_timeout).await;
    Ok(Answer { status, body: body.freeze() })
}

/// Converts the request for HTTP/2, which has a scheme and an authority in place of Host (RFC 9113 8.3.1), and no
/// connection fields.
fn for_http2(request: &mut RequestHeader, peer: &HttpPeer) -> Result<()> {
    let host = request.remove_header(&header::HOST);
    let host = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
    let scheme = if peer.is_tls() { "https" } else { "http" };
    let uri = format!("{scheme}://{host}{path}").parse();
    request.set_uri(uri.or_err(InvalidHTTPHeader, "the request cannot be sent over HTTP/2")?);
    request.remove_header(&header::TRANSFER_ENCODING);
    request.remove_header(&header::CONNECTION);
    request.set_version(Version::HTTP_2);
    Ok(())
}
