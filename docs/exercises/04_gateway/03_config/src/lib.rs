//! Yours to write is `exercise.rs`; with the feature `solution` it is `solution.rs` that is compiled.

#[cfg_attr(feature = "solution", path = "solution.rs")]
mod exercise;

pub use exercise::*;
