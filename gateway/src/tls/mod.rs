//! TLS towards clients: certificates and their files, the choice of the certificate for a client, and the
//! handshake.
//!
//! A configuration is compiled to [`Certificates`], which are looked up by the name that a client asks for (SNI, RFC
//! 6066 3). The [`Acceptor`] makes handshakes with these certificates. The result of a handshake is a [`Handshake`],
//! which is stored with the connection. The gateway can also order certificates itself ([`acme`]).

mod acceptor;
pub mod acme;
mod certificate;
mod certificates;
mod client_authority;
mod client_hello;
pub mod self_signed;

pub use acceptor::{Acceptor, Handshake};
pub use certificate::{BadPair, Certificate, Pair};
pub use certificates::{Certificates, HostCertificates};
pub use client_authority::{ClientAuthority, ClientIdentity};
pub use client_hello::{Hello, classify, server_name};
pub use self_signed::{SelfSignedError, self_signed};
