//! HTTP/2 towards clients, tested with real clients and with raw frames.

mod abuse;
mod answers;
mod floods;
mod idle;
mod messages;

use std::net::SocketAddr;
use std::pin::Pin;

use openssl::ssl::{SslConnector, SslMethod};
use testkit::Origin;
use testkit::tls::{Authority, Identity};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use crate::support::{Gateway, Setup};

/// Enables HTTP/2 without TLS on the plain listener.
const CLEARTEXT: &str = "http2_cleartext = true\n";

async fn start(origin: &Origin, tables: &str) -> Gateway {
    let tables = format!("[health_check]\nenabled = false\n{tables}");
    Gateway::start(&[origin], Setup { proxy: CLEARTEXT, tables: &tables }).await
}

/// Starts a gateway that also listens for HTTPS, and returns the address of that listener.
async fn start_tls(backend: SocketAddr, identity: &Identity, tables: &str) -> (Gateway, SocketAddr) {
    let proxy = format!("{CLEARTEXT}listen_addr = \"127.0.0.1:0\"\n");
    let host = format!(
        "[[virtual_hosts]]\ndomain = \"web.test\"\nenabled_backends_tag = \"all\"\ncert_file = \"{}\"\n\
         key_file = \"{}\"\n",
        identity.certificate_file().display(),
        identity.key_file().display()
    );
    let tables = format!("[health_check]\nenabled = false\n{tables}{host}");
    let gateway = Gateway::start_over(&[backend], Setup { proxy: &proxy, tables: &tables }).await;
    let line = gateway.process.line("listening on https://").await;
    let https = line.rsplit('/').next().unwrap().parse().unwrap();
    (gateway, https)
}

/// Opens a TLS connection for web.test to `address`, with one of these protocols (ALPN wire format: each name
/// after its length).
pub(crate) async fn connect_tls(
    address: SocketAddr,
    authority: &Authority,
    protocols: &[u8],
) -> SslStream<TcpStream> {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
    builder.cert_store_mut().add_cert(authority.certificate()).unwrap();
    builder.set_alpn_protos(protocols).unwrap();
    let ssl = builder.build().configure().unwrap().into_ssl("web.test").unwrap();
    let mut stream = SslStream::new(ssl, TcpStream::connect(address).await.unwrap()).unwrap();
    Pin::new(&mut stream).connect().await.unwrap();
    stream
}
