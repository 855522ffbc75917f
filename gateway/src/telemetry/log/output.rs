//! Output of log lines: standard output, or a file. The file is opened again when the operator asks for it, and when it
//! was renamed or removed, as logrotate does. The log's thread writes to the output.
//!
//! A line that cannot be written (a full disk, a reader that has closed the pipe) is lost, and counted. Standard
//! error reports the start and the end of such an outage. The log also reports it, as soon as a line can be written
//! again.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

/// Time between two looks if the file was renamed or removed.
const LOOK: Duration = Duration::from_millis(500);

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

/// Output of the log's queue. It never fails: lines that cannot be written are counted.
pub(super) struct Output {
    target: Target,
    shared: Shared,
    /// True if the last write ended in the middle of a line.
    is_torn: bool,
    outage: Option<Outage>,
    /// Function that reports to the operator on standard error, when the log cannot be used.
    tell: fn(&str),
    quiet: Duration,
    /// Time of the last look if the file was renamed or removed.
    looked_at: Instant,
    /// True if the file could not be opened again after it was renamed or removed. This is reported once.
    is_homeless: bool,
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
        Output {
            target,
            shared,
            is_torn: false,
            outage: None,
            tell: tell_on_stderr,
            quiet: QUIET,
            looked_at: Instant::now(),
            is_homeless: false,
        }
    }

    /// Opens the file again if the operator has asked for it, or if the file was renamed or removed. The next lines are
    /// written to the new file.
    pub(super) fn prepare(&mut self) {
        let is_asked_for = self.shared.reopen.swap(false, Ordering::AcqRel);
        if is_asked_for || self.has_lost_its_path() {
            self.reopen(is_asked_for);
        }
    }

    /// Returns true if the path no longer leads to the file. Looks at most once in [`LOOK`].
    fn has_lost_its_path(&mut self) -> bool {
        let Target::File { path, file } = &self.target else { return false };
        if self.looked_at.elapsed() < LOOK {
            return false;
        }
        self.looked_at = Instant::now();
        let Ok(open) = file.metadata() else { return false };
        std::fs::metadata(path).map_or(true, |named| (named.dev(), named.ino()) != (open.dev(), open.ino()))
    }

    fn reopen(&mut self, is_asked_for: bool) {
        let Target::File { path, file } = &mut self.target else {
            info!("the log goes to standard output: there is no file to open again");
            return;
        };
        let shown = path.display();
        match open(path) {
            Ok(new) => {
                *file = new;
                self.is_torn = false;
                self.is_homeless = false;
                info!("the log file {shown} was opened again");
            }
            Err(_) if self.is_homeless && !is_asked_for => {}
            Err(error) => {
                self.is_homeless = true;
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

    /// Writes `lines`.
    pub(super) fn write(&mut self, lines: &[u8]) {
        // A newline ends a line that was cut off, so that the next line does not look like its rest.
        let (mended, failed) = if self.is_torn { self.target.write_all(b"\n") } else { (0, None) };
        self.is_torn &= mended == 0;
        let (written, failed) = match failed {
            None => self.target.write_all(lines),
            Some(error) => (0, Some(error)),
        };
        if let Some(last) = written.checked_sub(1) {
            self.is_torn = lines.get(last) != Some(&b'\n');
        }
        let lost = memchr::memchr_iter(b'\n', lines.get(written..).unwrap_or_default()).count();
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
