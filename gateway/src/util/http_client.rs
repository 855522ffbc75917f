//! HTTP client for servers that are not backends: an ACME server, a token issuer, an external authorization service.
//! The client uses the same OpenSSL as the rest of the gateway, and trusts the roots that the configuration names.
//! The time and the size of a response are limited, so that such a server cannot hold up the gateway.

use std::error::Error as StdError;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_openssl::client::legacy::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use openssl::error::ErrorStack;
use openssl::ssl::{SslConnector, SslConnectorBuilder, SslMethod};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use tokio::time::timeout;

use crate::util::files;

/// HTTP client with a pool of connections. The client's clones share the pool. The client follows no redirects.
pub type Http<B> = Client<HttpsConnector<HttpConnector>, B>;

/// HTTP client for requests without a body.
pub type BodilessClient = Http<Empty<Bytes>>;

/// Root certificates that a server's certificate is verified with (DER); empty for the system's roots.
pub type Roots = Vec<Vec<u8>>;

/// Creates a client that trusts servers as [`tls`] does.
///
/// # Errors
/// Returns an error if OpenSSL refuses a root.
pub fn client<B>(roots: &[Vec<u8>]) -> Result<Http<B>, ErrorStack>
where
    B: hyper::body::Body + Send,
    B::Data: Send,
{
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    let connector = HttpsConnector::with_connector(connector, tls(roots)?)?;
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

/// Returns TLS settings that trust servers whose certificate was issued by one of `roots` (DER). If `roots`
/// is empty, the system's roots are trusted.
///
/// # Errors
/// Returns an error if OpenSSL refuses a root.
pub fn tls(roots: &[Vec<u8>]) -> Result<SslConnectorBuilder, ErrorStack> {
    let mut tls = SslConnector::builder(SslMethod::tls_client())?;
    if roots.is_empty() {
        // An OpenSSL that was built with the gateway does not know the path of this system's roots.
        let system = openssl_probe::probe();
        if system.cert_file.is_some() || system.cert_dir.is_some() {
            tls.load_verify_locations(system.cert_file.as_deref(), system.cert_dir.as_deref())?;
        }
    } else {
        let mut store = X509StoreBuilder::new()?;
        for root in roots {
            store.add_cert(X509::from_der(root)?)?;
        }
        tls.set_cert_store(store.build());
    }
    Ok(tls)
}

/// Reads the roots in `file` (PEM) and returns each as DER. Returns no roots if `file` is empty.
///
/// # Errors
/// Returns an error if the file cannot be read, or holds no certificate.
pub fn roots(file: &str) -> Result<Roots, String> {
    if file.is_empty() {
        return Ok(Vec::new());
    }
    let pem = files::read(Path::new(file))?;
    let parsed =
        X509::stack_from_pem(&pem).and_then(|roots| roots.iter().map(|root| root.to_der()).collect());
    match parsed {
        Ok(roots) if !Vec::is_empty(&roots) => Ok(roots),
        Ok(_) => Err(format!("'{file}' holds no certificate")),
        Err(error) => Err(format!("'{file}' holds no certificates in PEM format: {error}")),
    }
}

/// Response of a server.
pub struct Answer {
    /// Status of the response.
    pub status: StatusCode,
    /// Header fields of the response.
    pub headers: HeaderMap,
    /// Complete body of the response.
    pub body: Bytes,
}

/// Sends `request`, which has no body, and reads the whole response, within `limit` and up to `max_bytes`.
///
/// # Errors
/// Returns the reason on one line if there is no complete response within these limits.
pub async fn fetch(
    http: &BodilessClient,
    request: Request<Empty<Bytes>>,
    limit: Duration,
    max_bytes: usize,
) -> Result<Answer, String> {
    let exchange = async {
        let response = http.request(request).await.map_err(|error| chain(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, max_bytes).collect().await.map_err(|error| chain(&*error))?;
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    };
    let answered = timeout(limit, exchange).await;
    answered.unwrap_or_else(|_| Err(format!("no complete response within {limit:?}")))
}

/// Returns an error and its causes on one line.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Many errors repeat the text of their cause.
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
