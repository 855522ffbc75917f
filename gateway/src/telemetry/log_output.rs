//! Output of log lines: standard output, or a file. The file is opened again when the operator asks for it, because
//! logrotate has renamed the file. The log's thread writes to the output.
//!
//! A line that cannot be written (a full disk, a reader that has closed the pipe) is lost, and counted. Standard
//! error reports the start and the end of such an outage. The log also reports it, as soon as a line can be written
//! again.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

/// Maximum size of a batch, in bytes. Lines that arrive faster than they can be written are collected in a batch.
const BATCH_BYTES: usize = 64 * 1024;

/// Time without a failed write after which an outage is over. On an almost full disk, short lines can be written
/// while long lines fail. Without this time, each long line would cause two messages on standard error.
const QUIET: Duration = Duration::from_secs(2);

/// State that the log's thread shares with the rest of the process.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared {
    /// True after the operator's signal. The log's thread clears the flag and opens the file again.
    pub(super) reopen: Arc<AtomicBool>,
    /// Number of lines that could not be written.
    pub(super) unwritten: Arc<AtomicUsize>,
}

/// Writer that receives the lines of the log's queue. It never fails: lines that cannot be written are counted.
pub(super) struct Output {
    target: Target,
    shared: Shared,
    batch: Vec<u8>,
    /// True if the last write ended in the middle of a line.
    is_torn: bool,
    outage: Option<Outage>,
    /// Function that reports to the operator on standard error, when the log cannot be used.
    tell: fn(&str),
    quiet: Duration,
}

enum Target {
    Console,
    File { path: PathBuf, file: File },
}

/// Period in which lines are lost.
struct Outage {
    began: Instant,
    last_failure: Instant,
    lines: usize,
}

impl Output {
    /// Returns a writer to standard output.
    pub(super) fn console(shared: Shared) -> Self {
        Output::new(Target::Console, shared)
    }

    /// Returns a writer that appends to the file at `path`.
    ///
    /// # Errors
    /// Returns the system's error if the file cannot be opened or created.
    pub(super) fn file(path: &Path, shared: Shared) -> io::Result<Self> {
        let target = Target::File { path: path.to_owned(), file: open(path)? };
        Ok(Output::new(target, shared))
    }

    fn new(target: Target, shared: Shared) -> Self {
        let batch = Vec::with_capacity(BATCH_BYTES);
        Output { target, shared, batch, is_torn: false, outage: None, tell: tell_on_stderr, quiet: QUIET }
    }

    /// Opens the file again if the operator has asked for it. The lines in the batch are written to the new file.
    fn reopen(&mut self) {
        if !self.shared.reopen.swap(false, Ordering::AcqRel) {
            return;
        }
        let Target::File { path, file } = &mut self.target else {
            info!("the log goes to standard output: there is no file to open again");
            return;
        };
        let shown = path.display();
        match open(path) {
            Ok(new) => {
                *file = new;
                self.is_torn = false;
                info!("the log file {shown} was opened again");
            }
            Err(error) => {
                error!(
                    "cannot open the log file {shown} again (logging.file_path): {error}; the old file is still used"
                );
                (self.tell)(&format!(
                    "gateway: cannot open the log file {shown} again (logging.file_path): {error}; lines still go to \
                     the old file. Make its directory writable for the gateway's user, or have logrotate `create` the \
                     file for that user, and send SIGUSR1 again"
                ));
            }
        }
    }

    fn write_batch(&mut self) {
        self.reopen();
        if self.batch.is_empty() {
            return;
        }
        // A newline ends a line that was cut off, so that the next line does not look like its rest.
        let mended = usize::from(self.is_torn);
        if self.is_torn {
            self.batch.insert(0, b'\n');
        }
        let (written, failed) = self.target.write_all(&self.batch);
        if let Some(last) = written.checked_sub(1) {
            self.is_torn = self.batch.get(last) != Some(&b'\n');
        }
        let rest = self.batch.get(written.max(mended)..).unwrap_or_default();
        let lost = memchr::memchr_iter(b'\n', rest).count();
        self.batch.clear();
        match failed {
            Some(error) => self.failed(&error, lost),
            None => self.succeeded(),
        }
    }

    fn failed(&mut self, error: &io::Error, lost: usize) {
        self.shared.unwritten.fetch_add(lost, Ordering::Relaxed);
        let now = Instant::now();
        match &mut self.outage {
            Some(outage) => {
                outage.last_failure = now;
                outage.lines += lost;
            }
            None => {
                self.outage = Some(Outage { began: now, last_failure: now, lines: lost });
                (self.tell)(&format!(
                    "gateway: cannot write the log to {}: {error}; lines are lost until this is fixed \
                     (proxy_log_lines_dropped counts them)",
                    self.target.name()
                ));
            }
        }
    }

    fn succeeded(&mut self) {
        let Some(outage) = self.outage.take_if(|outage| outage.last_failure.elapsed() >= self.quiet) else {
            return;
        };
        let (lines, secs) = (outage.lines, outage.began.elapsed().as_secs());
        let target = self.target.name();
        warn!(lines, secs, "log lines are missing here: {target} could not be written");
        (self.tell)(&format!(
            "gateway: the log is written to {target} again; {lines} lines were lost in {secs} s"
        ));
    }
}

impl Write for Output {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if self.batch.len() + lines.len() > BATCH_BYTES {
            self.write_batch();
        }
        self.batch.extend_from_slice(lines);
        Ok(lines.len())
    }

    /// Writes the batch. The log's thread calls this when the queue is empty, so that no line stays in the batch.
    fn flush(&mut self) -> io::Result<()> {
        self.write_batch();
        Ok(())
    }
}

impl Target {
    fn name(&self) -> String {
        match self {
            Target::Console => "standard output".to_owned(),
            Target::File { path, .. } => path.display().to_string(),
        }
    }

    /// Writes as much of `bytes` as possible. Returns the number of written bytes, and the error if bytes are left.
    fn write_all(&mut self, bytes: &[u8]) -> (usize, Option<io::Error>) {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.write(rest) {
                Ok(0) => return (written, Some(ErrorKind::WriteZero.into())),
                Ok(more) => written += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return (written, Some(error)),
            }
        }
        (written, None)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            // This bypasses the standard library's buffer, which would keep lines that could not be written.
            Target::Console => Ok(rustix::io::write(io::stdout(), bytes)?),
            Target::File { file, .. } => file.write(bytes),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn tell_on_stderr(what: &str) {
    // If standard error fails too, the message cannot be reported anywhere.
    let _ = writeln!(io::stderr(), "{what}");
}

#[cfg(test)]
mod tests;
