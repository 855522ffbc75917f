//! Crate of the exercise. It compiles `exercise.rs`, the file for you to write in. With the feature
//! `solution`, it compiles `solution.rs` instead. The peers come from `peer.rs`, which all exercises share.

#[path = "../../../peer.rs"]
pub mod peer;

#[cfg_attr(feature = "solution", path = "solution.rs")]
mod exercise;

pub use exercise::*;
