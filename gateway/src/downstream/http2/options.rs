//! What h2 allows a client. A default of a library is no bound: each of these is set, and `docs/src/limits.md` says what
//! they come to.

use pingora::protocols::http::v2::server::{H2Options, default_h2_options};

use super::frame::MAX_PAYLOAD;
use super::hpack::{MAX_LIST, MAX_TABLE};

/// How many requests a client may have at once (RFC 9113 6.5.2 recommends no fewer than 100).
pub(super) const MAX_STREAMS: u32 = 100;

/// How much of a request's body a client may send before it is read.
const STREAM_WINDOW: u32 = 64 * 1024;

/// The same for all requests of a connection together. Were it no larger, one upload that a backend does not read would
/// stop all others.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How much of a response is held for a client that does not take it, besides what Pingora holds.
const SEND_BUFFER: usize = 32 * 1024;

/// How many requests may be reset before Pingora has heard of them. The ledger counts them too.
const UNSEEN_RESETS: usize = 100;

/// How many streams h2 resets, of its own accord, before it ends the connection. It never forgets one, and counts those
/// that it refuses because there are too many: so this is no more than a last resort behind the ledger.
const LOCAL_RESETS: usize = 1000;

/// How many streams that were reset h2 remembers, so that what is still on its way for them is no error.
const REMEMBERED_RESETS: usize = 100;

/// What small parts of bodies may take that are not read: h2 counts 256 bytes for each.
const SMALL_PARTS: usize = 256 * 1024;

/// Returns the options of a connection.
pub(super) fn options() -> H2Options {
    let mut options = default_h2_options();
    options
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_LIST).unwrap_or(u32::MAX))
        .header_table_size(u32::try_from(MAX_TABLE).unwrap_or(u32::MAX))
        .max_frame_size(u32::try_from(MAX_PAYLOAD).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(UNSEEN_RESETS)
        .max_local_error_reset_streams(Some(LOCAL_RESETS))
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .reset_stream_duration(std::time::Duration::from_secs(1))
        .data_frame_budget(SMALL_PARTS);
    options
}
