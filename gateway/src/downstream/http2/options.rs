//! Limits that h2 enforces on a client. The gateway sets each of them, because a default of a library may change.
//! `docs/src/limits.md` says what the limits add up to.

use pingora::protocols::http::v2::server::{H2Options, default_h2_options};

use super::frame::MAX_PAYLOAD;
use super::hpack::{MAX_LIST, MAX_TABLE};

/// Maximum number of concurrent requests on a connection (RFC 9113 6.5.2 recommends at least 100).
pub(super) const MAX_STREAMS: u32 = 100;

/// Maximum number of unread body bytes of a request.
const STREAM_WINDOW: u32 = 64 * 1024;

/// Maximum number of unread body bytes of all requests on a connection together. If it were no larger than
/// `STREAM_WINDOW`, one upload that a backend does not read would stop all other uploads.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Maximum number of response bytes that h2 holds for a client that does not read. Pingora holds further bytes.
const SEND_BUFFER: usize = 32 * 1024;

/// Maximum number of streams that a client resets before Pingora has accepted them. The ledger counts these resets too.
const UNSEEN_RESETS: usize = 100;

/// Maximum number of streams that h2 itself resets before it ends the connection. h2 never lowers this count, and
/// includes the streams that it refuses because there are too many. Therefore the ledger has lower limits, and this
/// limit is only a last resort.
const LOCAL_RESETS: usize = 1000;

/// Number of reset streams that h2 remembers, so that frames for them which are still on their way are no error.
const REMEMBERED_RESETS: usize = 100;

/// Maximum total size of unread small body chunks. h2 counts 256 bytes for each chunk.
const SMALL_PARTS: usize = 256 * 1024;

/// Returns the options of an h2 connection.
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
