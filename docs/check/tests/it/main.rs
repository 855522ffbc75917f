//! Tests that this repository keeps the promises of its pages and manifests. Each module is a kind of
//! promise. The unit tests of the checks show that the checks can fail.

#![allow(clippy::panic, clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod code;
mod exercises;
mod pages;
mod transcripts;
