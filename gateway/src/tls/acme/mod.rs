//! Certificates by themselves, from an ACME server (RFC 8555): ordered where there is none, renewed before they
//! end.
//!
//! A configuration is compiled to an [`AcmePlan`]: which names, from which server. The [`AcmeService`] follows the
//! plan; when a name is due it has one order made, which shows the server through [`Challenges`] that the name leads
//! here, and leaves a key and its chain in a file of the [`Cache`]. The rest of the gateway sees nothing of all
//! this but the files, and a call when one of them is another one. An order that fails changes no file: the old
//! certificate serves on, and [`Statuses`] say what is wrong.

mod account;
mod cache;
mod certificate;
mod challenges;
mod client;
mod manager;
mod order;
mod orders;
mod plan;
mod private_file;
mod problem;
mod schedule;
mod service;
mod status;
mod tls_alpn;

pub use cache::{Cache, CacheError};
pub use certificate::{BadCertificate, Certificate};
pub use challenges::{Challenges, Published};
pub use plan::{AcmePlan, BadRoots, Server, Wanted};
pub use schedule::Timing;
pub use service::AcmeService;
pub use status::{AcmeState, AcmeStatus, Statuses};
pub(super) use tls_alpn::ACME_TLS;
pub use tls_alpn::ValidationError;
