//! Crate of the exercise, and the whole gateway. The file for you to write in is `exercise.rs`: it is the
//! module `live`. With the feature `solution`, `solution.rs` is compiled instead. The modules with a path come
//! from the steps before, and the next one is new: all are finished. `main.rs` puts them together.

#[path = "../../02_when_backends_fail/src/breaker.rs"]
pub mod breaker;
#[path = "../../01_routes_over_pools/src/solution.rs"]
pub mod config;
#[path = "../../01_routes_over_pools/src/connection.rs"]
pub mod connection;
#[path = "../../04_telemetry_and_drain/src/drain.rs"]
pub mod drain;
#[path = "../../02_when_backends_fail/src/health.rs"]
pub mod health;
#[path = "../../02_when_backends_fail/src/pool.rs"]
pub mod pool;
#[path = "../../04_telemetry_and_drain/src/solution.rs"]
pub mod proxy;
#[path = "../../03_admission/src/rate_limit.rs"]
pub mod rate_limit;
#[path = "../../03_admission/src/reply.rs"]
pub mod reply;
#[path = "../../01_routes_over_pools/src/route.rs"]
pub mod route;
#[path = "../../04_telemetry_and_drain/src/telemetry.rs"]
pub mod telemetry;

pub mod reload;

#[cfg_attr(feature = "solution", path = "solution.rs")]
#[cfg_attr(not(feature = "solution"), path = "exercise.rs")]
pub mod live;
