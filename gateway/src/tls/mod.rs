//! TLS on the way in: certificates, and where they come from.

pub mod acme;
