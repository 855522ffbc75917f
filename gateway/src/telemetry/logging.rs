//! The process log, and the writer that it shares with the access log.
//!
//! Lines are handed to a thread of their own over a bounded queue and written there in batches, so that no
//! request ever waits for a disk or a terminal. When the queue is full, lines are dropped and counted, as are those
//! that cannot be written.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::Ordering;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use super::AccessLog;
use super::log_output::{Output, Shared};
use crate::config::{LogFormat, LogOutput, Logging};

/// The lines of libraries below this are about their inner life, or about what clients do, who could fill a log with
/// them: resets of streams (`h2`), an answer that comes before the request is whole (`pingora_proxy::proxy_h1`, `_h2`).
/// What becomes of a request says the access log. Of `pingora_core::connectors` the line is that a connection was closed
/// as it was about to be used again, and another one is made; what a backend sends unasked `pingora_pool` tells as well.
/// What of DNS fails is said once, by ourselves. Of `pingora_core::apps` there is one line: that a client that agreed on
/// HTTP/2 does not speak it, which is an error of its own.
const LIBRARIES: &str = "pingora_core=warn,pingora_core::apps=off,pingora_core::connectors=off,pingora_proxy=warn,\
                         pingora_proxy::proxy_h1=error,pingora_proxy::proxy_h2=error,h2=error,\
                         pingora_load_balancing=warn,hickory_net=error,hickory_resolver=error";

/// Keeps the log's thread alive; what is still queued is written when this is dropped.
pub struct LogGuard {
    _worker: WorkerGuard,
    handle: LogHandle,
}

impl LogGuard {
    /// What the rest of the process can ask of the log.
    pub fn handle(&self) -> LogHandle {
        self.handle.clone()
    }
}

/// What the rest of the process can ask of the log.
#[derive(Clone)]
pub struct LogHandle {
    writer: NonBlocking,
    refused: ErrorCounter,
    shared: Shared,
}

impl LogHandle {
    /// Has the log's thread open its file again, because the one that it has was renamed. Returns at once.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        // Nothing to write: it only wakes the thread. Where the queue is full the thread is awake, and looks by itself.
        let _ = self.writer.clone().write(b"");
    }

    /// Returns the number of lines that were lost since the start: dropped because the queue was full, or not written.
    pub fn lost_lines(&self) -> usize {
        self.refused.dropped_lines().saturating_add(self.shared.unwritten.load(Ordering::Relaxed))
    }
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The file cannot be opened for appending.
    #[error("cannot open the log file {path} (logging.file_path): {source}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The filter cannot be read.
    #[error("cannot read the log filter '{level}' (logging.level): {source}")]
    Level {
        /// The filter.
        level: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something else logs in this process already.
    #[error("cannot start logging: {0}")]
    Taken(Box<dyn std::error::Error + Send + Sync>),
}

/// Starts the process log, and the access log where it is switched on.
///
/// # Errors
/// See [`LoggingError`]; nothing has been started then.
pub fn start(config: &Logging) -> Result<(LogGuard, Option<AccessLog>), LoggingError> {
    let filter = EnvFilter::builder()
        .parse(filter(&config.level))
        .map_err(|source| LoggingError::Level { level: config.level.clone(), source })?;
    let shared = Shared::default();
    let (writer, worker) = queue(output(config, shared.clone())?);
    let handle = LogHandle { writer: writer.clone(), refused: writer.error_counter(), shared };
    let access_log = config.access_log.then(|| AccessLog::new(config.format, writer.clone()));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || writer.clone())
        .with_ansi(false);
    let started = match config.format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    started.map_err(LoggingError::Taken)?;
    Ok((LogGuard { _worker: worker, handle }, access_log))
}

/// A plain level is about the gateway; the lines of its libraries come with a filter, which is taken as it is.
fn filter(level: &str) -> String {
    match level {
        "info" | "debug" | "trace" => format!("{level},{LIBRARIES}"),
        _ => level.to_owned(),
    }
}

fn output(config: &Logging, shared: Shared) -> Result<Output, LoggingError> {
    let path = &config.file_path;
    match config.output {
        LogOutput::Console => Ok(Output::console(shared)),
        LogOutput::File => Output::file(Path::new(path), shared)
            .map_err(|source| LoggingError::File { path: path.clone(), source }),
    }
}

fn queue(output: Output) -> (NonBlocking, WorkerGuard) {
    // The thread flushes whenever its queue is empty, so nothing stays in the batch.
    NonBlockingBuilder::default().lossy(true).thread_name("log").finish(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_levels_leave_the_libraries_inner_life_out() {
        assert_eq!(filter("debug"), format!("debug,{LIBRARIES}"));
        assert_eq!(filter("error"), "error");
        assert_eq!(filter("info,pingora_proxy=debug"), "info,pingora_proxy=debug");
    }
}
