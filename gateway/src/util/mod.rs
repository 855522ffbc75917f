//! What several rooms need and none of them owns: how header fields are read, files are written, servers are asked, and
//! rates are watched.

pub mod accept;
pub mod cache_control;
pub mod decimal;
pub mod field_list;
pub mod files;
pub mod http1;
pub mod http_client;
pub mod min_rate;
pub mod random;
pub mod secrets;
