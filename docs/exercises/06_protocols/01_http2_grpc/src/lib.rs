//! Crate of the exercise. It compiles `exercise.rs`, the file for you to write in. With the feature
//! `solution`, it compiles `solution.rs` instead.

#[cfg_attr(feature = "solution", path = "solution.rs")]
mod exercise;

pub use exercise::*;
