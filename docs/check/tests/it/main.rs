//! This repository, held to everything that its pages and manifests promise. Each module is a kind of
//! promise; that the checks can fail is shown by the unit tests beside them.

#![allow(clippy::panic, clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod code;
mod exercises;
mod pages;
mod transcripts;
