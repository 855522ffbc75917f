//! Helpers that several modules share: parsers for header fields, access to files, an HTTP client, timers, and
//! delays between attempts.

pub mod accept;
pub mod backoff;
pub mod cache_control;
pub mod clock;
pub mod decimal;
pub mod directory_watch;
pub mod field_list;
pub mod files;
pub mod gauge;
pub mod http1;
pub mod http_client;
pub mod ip_text;
pub mod min_rate;
pub mod random;
pub mod secrets;
pub mod status;
pub mod stream_traits;
pub mod timers;
