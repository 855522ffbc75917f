//! Limits of h2 for a client. The gateway sets each of them, because a default of a library is not a limit to rely
//! on. `docs/src/limits.md` says what the limits add up to.

use pingora::protocols::http::v2::server::{H2Options, default_h2_options};

use super::frame::MAX_PAYLOAD;
use super::hpack::{MAX_LIST, MAX_TABLE};

/// Maximum number of concurrent requests of a client (RFC 9113 6.5.2 recommends at least 100).
pub(super) const MAX_STREAMS: u32 = 100;

/// Number of body bytes of a request that a client may send before they are read.
const STREAM_WINDOW: u32 = 64 * 1024;

/// Number of body bytes that a client may send before they are read, for all requests of a connection together. If it
/// were no larger than `STREAM_WINDOW`, one upload that a backend does not read would stop all other uploads.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Number of bytes of a response that are held for a client that does not read, in addition to the bytes that Pingora
/// holds.
const SEND_BUFFER: usize = 32 * 1024;

/// Maximum number of streams that are reset before Pingora has accepted them. The ledger counts them too.
const UNSEEN_RESETS: usize = 100;

/// Maximum number of streams that h2 itself resets before it ends the connection. h2 never lowers this count, and
/// also counts the streams that it refuses because there are too many. So this limit is only a last resort after the
/// ledger.
const LOCAL_RESETS: usize = 1000;

/// Number of reset streams that h2 remembers, so that frames which are still on their way for them are not an error.
const REMEMBERED_RESETS: usize = 100;

/// Maximum total size of small body chunks that have not been read. h2 counts 256 bytes for each chunk.
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
