//! Process log and access log.
//!
//! Lines go through a bounded queue (`queue.rs`) to a separate thread, which writes them in batches. So no request waits
//! for a disk or a terminal. If the queue is full, lines are dropped and counted, or the thread that logs waits, as
//! configured. Lines that cannot be written are counted too.

mod access;
mod output;
mod queue;
mod timestamp;
mod values;

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

pub use self::access::AccessLog;
use self::output::{Output, Shared};
use self::queue::{Sender, Writer};
use crate::config::{LogFormat, LogOutput, Logging};

/// Log filter for libraries. It hides lines about a library's internals, and lines that clients cause. Clients could
/// otherwise fill the log. Reasons for the stricter entries:
/// - `h2`: resets of streams by clients.
/// - `pingora_proxy::proxy_h1` and `proxy_h2`: a response that arrives before the request is complete. The access log
///   has the result of each request.
/// - `pingora_core::connectors`: a connection was closed just as it was to be reused, and another one is opened. Data
///   that a backend sends without a request is reported by `pingora_pool` too.
/// - `hickory_net` and `hickory_resolver`: the gateway itself reports a DNS failure, once.
/// - `pingora_core::apps`: a client that agreed on HTTP/2 does not speak it, which is an error of the client. The
///   module has no other line.
const LIBRARIES: &str = "pingora_core=warn,pingora_core::apps=off,pingora_core::connectors=off,pingora_proxy=warn,\
                         pingora_proxy::proxy_h1=error,pingora_proxy::proxy_h2=error,h2=error,\
                         pingora_load_balancing=warn,hickory_net=error,hickory_resolver=error";

/// Maximum time for which a flush waits for a slow disk or terminal.
const FLUSHED_WITHIN: Duration = Duration::from_secs(1);

/// Guard that keeps the threads alive that write the log. When the guard is dropped, the queued lines are written.
pub struct LogGuard {
    _writers: Vec<Writer>,
    handle: LogHandle,
}

impl LogGuard {
    /// Returns the handle by which the rest of the process controls the log.
    pub fn handle(&self) -> LogHandle {
        self.handle.clone()
    }
}

/// Handle by which the rest of the process controls the log.
#[derive(Clone)]
pub struct LogHandle(Vec<Destination>);

/// Output of a log, with its queue.
#[derive(Clone)]
struct Destination {
    sender: Sender,
    shared: Shared,
}

impl LogHandle {
    /// Makes the threads of the log open their files again, because the files were renamed. Does not wait for them.
    pub fn reopen(&self) {
        for Destination { sender, shared } in &self.0 {
            shared.reopen.store(true, Ordering::Release);
            sender.wake();
        }
    }

    /// Waits until the lines of this thread so far are written, at most a second for each output.
    pub fn flush(&self) {
        self.0.iter().for_each(|to| to.sender.flush(FLUSHED_WITHIN));
    }

    /// Returns the number of lines lost since the start, because a queue was full or an output could not be written.
    pub fn lost_lines(&self) -> usize {
        let lost = |to: &Destination| to.sender.dropped() + to.shared.unwritten.load(Ordering::Relaxed);
        self.0.iter().map(lost).sum()
    }
}

/// Reason why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The file cannot be opened for appending.
    #[error("cannot open the log file {path} (logging.file_path): {source}")]
    File {
        /// Path of the file.
        path: String,
        /// Error of the system.
        source: io::Error,
    },
    /// The format of the access log is not valid.
    #[error("cannot read the format of the access log (logging.access_format): {0}")]
    Format(String),
    /// The filter cannot be read.
    #[error("cannot read the log filter '{level}' (logging.level): {source}")]
    Level {
        /// Text of the filter.
        level: String,
        /// Error in the filter.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The system has no thread left for the log.
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(io::Error),
    /// Another logger is already set in this process.
    #[error("cannot start logging: {0}")]
    Taken(Box<dyn std::error::Error + Send + Sync>),
}

/// Starts the process log, and the access log if it is enabled.
///
/// # Errors
/// Returns a [`LoggingError`] if logging cannot start. The log's settings then have no effect.
pub fn start(config: &Logging) -> Result<(LogGuard, Option<AccessLog>), LoggingError> {
    let filter = EnvFilter::builder()
        .parse(filter(&config.level))
        .map_err(|source| LoggingError::Level { level: config.level.clone(), source })?;
    let format = config.access_format().map_err(LoggingError::Format)?;
    let (process, writer) = open(config, &config.file_path)?;
    let (mut destinations, mut writers) = (vec![process.clone()], vec![writer]);
    let mut access = process.sender.clone();
    if config.access_log && !config.access_file_path.is_empty() {
        let with_file = Logging { output: LogOutput::File, ..config.clone() };
        let (own, writer) = open(&with_file, &config.access_file_path)?;
        access = own.sender.clone();
        destinations.push(own);
        writers.push(writer);
    }
    let access_log = config.access_log.then(|| AccessLog::new(config, format, access));
    let sender = process.sender;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || sender.clone())
        .with_ansi(false);
    let started = match config.format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    started.map_err(LoggingError::Taken)?;
    Ok((LogGuard { _writers: writers, handle: LogHandle(destinations) }, access_log))
}

/// Returns the filter for `level`. A plain level is for the gateway, so the filter for libraries is added to it. Any
/// other text is used unchanged.
fn filter(level: &str) -> String {
    match level {
        "info" | "debug" | "trace" => format!("{level},{LIBRARIES}"),
        _ => level.to_owned(),
    }
}

/// Opens an output, standard output or the file at `path`, and starts its thread.
fn open(config: &Logging, path: &str) -> Result<(Destination, Writer), LoggingError> {
    let shared = Shared::default();
    let output = match config.output {
        LogOutput::Console => Output::console(shared.clone()),
        LogOutput::File => Output::file(Path::new(path), shared.clone())
            .map_err(|source| LoggingError::File { path: path.to_owned(), source })?,
    };
    let (sender, writer) = queue::start(output, config.when_full).map_err(LoggingError::Thread)?;
    Ok((Destination { sender, shared }, writer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_log_level_adds_filter_for_libraries() {
        assert_eq!(filter("debug"), format!("debug,{LIBRARIES}"));
        assert_eq!(filter("error"), "error");
        assert_eq!(filter("info,pingora_proxy=debug"), "info,pingora_proxy=debug");
    }
}
