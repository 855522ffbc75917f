//! Crate of the exercise. The file for you to write in is `exercise.rs`: it is the module `config`. With the
//! feature `solution`, `solution.rs` is compiled instead. The other modules are finished, and worth a read.

pub mod connection;
pub mod live;
pub mod pool;
pub mod proxy;
pub mod route;

#[cfg_attr(feature = "solution", path = "solution.rs")]
#[cfg_attr(not(feature = "solution"), path = "exercise.rs")]
pub mod config;
