//! How servers are asked that are no backends: an ACME server, an issuer of tokens, somebody who says who may pass.
//! HTTP over the same OpenSSL as everything else, with the roots that the configuration names, and with a limit to
//! everything that a server could do without end.

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

/// A client with connections that it keeps. Cloning it shares them. It follows no redirect.
pub type Http<B> = Client<HttpsConnector<HttpConnector>, B>;

/// The same for requests without a body.
pub type BodilessClient = Http<Empty<Bytes>>;

/// Roots that certificates are believed by (DER); none: those of the system.
pub type Roots = Vec<Vec<u8>>;

/// A client that believes a server as [`tls`] does.
///
/// # Errors
/// Where OpenSSL takes none of the roots.
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

/// TLS that believes a server whose certificate comes from one of `roots` (DER), or from one of the system's where
/// there are none.
///
/// # Errors
/// Where OpenSSL takes none of them.
pub fn tls(roots: &[Vec<u8>]) -> Result<SslConnectorBuilder, ErrorStack> {
    let mut tls = SslConnector::builder(SslMethod::tls_client())?;
    if roots.is_empty() {
        // An OpenSSL that was built here does not know where this system has them.
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

/// The roots in `file` (PEM), each as DER; none where there is no file.
///
/// # Errors
/// Where it cannot be read, or holds no certificate.
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
        Err(error) => Err(format!("'{file}' holds no certificates in PEM: {error}")),
    }
}

/// What a server has answered.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body, whole.
    pub body: Bytes,
}

/// Sends `request`, which has no body, and reads the answer to its end: within `limit`, and up to `max_bytes`.
///
/// # Errors
/// Why there is none, on one line.
pub async fn ask(
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
    answered.unwrap_or_else(|_| Err(format!("no whole answer within {limit:?}")))
}

/// An error and what caused it, on one line.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Many an error repeats what caused it.
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
