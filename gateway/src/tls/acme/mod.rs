//! Automatic certificates from an ACME server (RFC 8555): they are ordered when they are missing, and renewed before
//! they expire.
//!
//! A configuration is compiled to an [`AcmePlan`]: the wanted names and the server. The [`AcmeService`] follows the
//! plan, and makes an order when a certificate is due. The order proves through [`Challenges`] that the gateway
//! controls the names, and writes the key and its chain to a file of the [`Cache`]. The rest of the gateway only uses
//! these files, and is notified when a file is replaced. An order that fails changes no file: the old certificate is
//! still served, and [`Statuses`] report the error.

mod cache;
mod certificate;
mod challenges;
mod client;
mod manager;
mod order;
mod orders;
mod plan;
mod schedule;
mod service;
mod status;
mod tls_alpn;

pub use cache::{Cache, CacheError};
pub use certificate::{BadCertificate, Certificate};
pub use challenges::{Challenges, Published};
pub use plan::{AcmePlan, BadRoots, PlannedCertificate, Server};
pub use schedule::Timing;
pub use service::AcmeService;
pub use status::{AcmeState, AcmeStatus, Statuses};
pub(super) use tls_alpn::ACME_TLS;
pub use tls_alpn::ValidationError;
