//! Queue of log lines, between the threads that log and the log's thread.
//!
//! A thread appends its lines to a *lane*, a buffer that it shares with few other threads. The log's thread takes all
//! lanes after at most [`DELAY`], and writes each of them at once. So a thread that logs does not wait for a disk, and
//! wakes no other thread: only the first line after a silence and a lane that has become long wake the log's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};
use std::{io, mem};

use parking_lot::{Condvar, Mutex};

use super::output::Output;
use crate::config::WhenFull;

/// Maximum time for which a line waits while the log can be written.
const DELAY: Duration = Duration::from_millis(50);
/// Length of a lane, in bytes, at which the log's thread is woken before the end of [`DELAY`].
const LONG: usize = 64 * 1024;
/// Maximum length of a lane, in bytes. Lines wait longer than [`DELAY`] only if the disk or the terminal is slow.
const FULL: usize = 4 * 1024 * 1024;
/// Time between two looks at the log's thread by a thread that waits for a flush.
const LOOK: Duration = Duration::from_millis(1);
/// Maximum number of lanes: together they hold at most 64 MiB.
const MOST_LANES: usize = 16;

thread_local! {
    /// Number of this thread, which decides its lane.
    static THREAD: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Ordering::Relaxed)
    };
}

/// Queue of log lines.
pub(super) struct Queue {
    lanes: Box<[Lane]>,
    when_full: WhenFull,
    /// True while the log's thread sleeps until it is woken. Otherwise it looks at the lanes by itself.
    is_idle: AtomicBool,
    has_ended: AtomicBool,
    /// Number of times that the log's thread has written all lanes.
    passes: AtomicUsize,
    /// Number of lines that were dropped because their lane was full.
    dropped: AtomicUsize,
}

/// Lines of a few threads that have not been written yet.
#[derive(Default)]
struct Lane {
    lines: Mutex<Vec<u8>>,
    /// Notified when the lane has been taken.
    taken: Condvar,
}

/// Sending end of a queue. Each write is one or more whole lines.
#[derive(Clone)]
pub(super) struct Sender {
    queue: Arc<Queue>,
    /// The log's thread.
    writer: Thread,
}

/// The log's thread. When this is dropped, the thread writes the lines that are left, and ends.
pub(super) struct Writer {
    sender: Sender,
    thread: Option<JoinHandle<()>>,
}

/// Starts the log's thread.
///
/// # Errors
/// Returns the system's error if it has no thread left.
pub(super) fn start(output: Output, when_full: WhenFull) -> io::Result<(Sender, Writer)> {
    let threads = thread::available_parallelism().map_or(MOST_LANES, usize::from);
    let lanes = std::iter::repeat_with(Lane::default).take((2 * threads).min(MOST_LANES)).collect();
    let queue = Arc::new(Queue {
        lanes,
        when_full,
        is_idle: AtomicBool::new(false),
        has_ended: AtomicBool::new(false),
        passes: AtomicUsize::new(0),
        dropped: AtomicUsize::new(0),
    });
    let written = queue.clone();
    let thread = thread::Builder::new().name("log".to_owned()).spawn(move || written.run(output))?;
    let sender = Sender { queue, writer: thread.thread().clone() };
    Ok((sender.clone(), Writer { sender, thread: Some(thread) }))
}

impl Sender {
    /// Appends lines to this thread's lane. If it is full, the lines are dropped and counted, or the thread waits, as
    /// configured.
    pub(super) fn send(&self, lines: &[u8]) {
        let Queue { lanes, when_full, is_idle, dropped, .. } = &*self.queue;
        let Some(lane) = lanes.get(THREAD.with(|number| number % lanes.len())) else { return };
        let mut waiting = lane.lines.lock();
        while waiting.len() + lines.len() > FULL {
            // The log's thread itself must not wait for itself.
            if *when_full == WhenFull::Drop || thread::current().id() == self.writer.id() {
                dropped.fetch_add(memchr::memchr_iter(b'\n', lines).count(), Ordering::Relaxed);
                return;
            }
            lane.taken.wait(&mut waiting);
        }
        let before = waiting.len();
        waiting.extend_from_slice(lines);
        let became_long = before < LONG && waiting.len() >= LONG;
        drop(waiting);
        // The log's thread sets the flag before it looks at the lanes for the last time, each under its lock. So either
        // it sees the lines, or the flag is seen here.
        if became_long || (is_idle.load(Ordering::Relaxed) && is_idle.swap(false, Ordering::Relaxed)) {
            self.wake();
        }
    }

    /// Wakes the log's thread.
    pub(super) fn wake(&self) {
        self.writer.unpark();
    }

    /// Waits until the lines that were sent before are written, at most for `longest`.
    pub(super) fn flush(&self, longest: Duration) {
        let end = Instant::now() + longest;
        let passes = || self.queue.passes.load(Ordering::Acquire);
        // The pass that is running now may have looked at the lane already. The next one has not.
        let enough = passes() + 2;
        while passes() < enough && Instant::now() < end {
            self.wake();
            thread::sleep(LOOK);
        }
    }

    /// Returns the number of lines that were dropped because the queue was full.
    pub(super) fn dropped(&self) -> usize {
        self.queue.dropped.load(Ordering::Relaxed)
    }
}

impl io::Write for Sender {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.send(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Queue {
    /// Writes lines until the end, as the log's thread.
    fn run(&self, mut output: Output) {
        let mut spare = Vec::new();
        while !self.has_ended.load(Ordering::Acquire) {
            if !self.write(&mut output, &mut spare) {
                self.is_idle.store(true, Ordering::Relaxed);
                if !self.write(&mut output, &mut spare) {
                    thread::park();
                }
                self.is_idle.store(false, Ordering::Relaxed);
            }
            thread::park_timeout(DELAY);
        }
        self.write(&mut output, &mut spare);
    }

    /// Takes and writes all lanes. Returns false if all of them were empty.
    fn write(&self, output: &mut Output, spare: &mut Vec<u8>) -> bool {
        output.prepare();
        let mut has_lines = false;
        for lane in &self.lanes {
            mem::swap(&mut *lane.lines.lock(), spare);
            if !spare.is_empty() {
                lane.taken.notify_all();
                output.write(spare);
                has_lines = true;
                spare.clear();
                spare.shrink_to(2 * LONG);
            }
        }
        self.passes.fetch_add(1, Ordering::Release);
        has_lines
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.sender.queue.has_ended.store(true, Ordering::Release);
        self.sender.wake();
        // A panic of the log's thread was reported on standard error.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, read_to_string};
    use std::io::Read;
    use std::path::Path;

    use super::*;
    use crate::telemetry::log::output::Shared;

    /// Starts a queue whose output is a pipe. Nothing is written beyond the pipe's room until a test reads from it.
    fn start_with_pipe(directory: &Path, when_full: WhenFull) -> (Sender, Writer, File) {
        let path = directory.join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Opened for reading and writing, a pipe needs no other end.
        let reader = File::options().read(true).write(true).open(&path).unwrap();
        let (sender, writer) = start(Output::file(&path, Shared::default()).unwrap(), when_full).unwrap();
        (sender, writer, reader)
    }

    /// Reads until the `last` bytes arrive.
    fn read_until(reader: &mut File, last: &[u8]) -> Vec<u8> {
        let (mut all, mut chunk) = (Vec::new(), vec![0; LONG]);
        while !all.ends_with(last) {
            let read = reader.read(&mut chunk).unwrap();
            all.extend_from_slice(&chunk[..read]);
        }
        all
    }

    #[test]
    fn lines_of_each_thread_arrive_once_and_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.log");
        let (sender, writer) =
            start(Output::file(&path, Shared::default()).unwrap(), WhenFull::Drop).unwrap();
        thread::scope(|scope| {
            for thread in 0..20 {
                let sender = sender.clone();
                scope.spawn(move || {
                    (0..500).for_each(|line| sender.send(format!("{thread} {line}\n").as_bytes()))
                });
            }
        });
        drop(writer);
        let text = read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 20 * 500);
        for thread in 0..20 {
            let prefix = format!("{thread} ");
            let lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
            assert!(lines.map(|line| line.parse::<usize>().unwrap()).eq(0..500), "thread {thread}");
        }
        assert_eq!(sender.dropped(), 0);
    }

    #[test]
    fn a_line_after_a_silence_is_written_unasked() {
        let directory = tempfile::tempdir().unwrap();
        let (sender, _writer, mut reader) = start_with_pipe(directory.path(), WhenFull::Drop);
        for line in ["one\n", "two\n", "three\n"] {
            sender.send(line.as_bytes());
            assert_eq!(read_until(&mut reader, line.as_bytes()), line.as_bytes());
        }
    }

    #[test]
    fn flushed_lines_are_in_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.log");
        let (sender, _writer) =
            start(Output::file(&path, Shared::default()).unwrap(), WhenFull::Drop).unwrap();
        for line in 1..=20 {
            sender.send(b"line\n");
            sender.flush(Duration::from_secs(60));
            assert_eq!(read_to_string(&path).unwrap().lines().count(), line);
        }
    }

    #[test]
    fn flush_returns_although_nobody_reads() {
        let directory = tempfile::tempdir().unwrap();
        let (sender, _writer, mut reader) = start_with_pipe(directory.path(), WhenFull::Drop);
        let lines = b"x".repeat(FULL);
        sender.send(&lines);
        sender.flush(Duration::from_millis(10));
        // They are still to come.
        assert_eq!(read_until(&mut reader, &lines).len(), FULL);
    }

    #[test]
    fn full_queue_drops_and_counts_lines_and_stays_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let (sender, _writer, mut reader) = start_with_pipe(directory.path(), WhenFull::Drop);
        let line = [b"x".repeat(1023).as_slice(), b"\n"].concat();
        const SENT: usize = 16 * 1024;
        (0..SENT).for_each(|_| sender.send(&line));
        let held: usize = sender.queue.lanes.iter().map(|lane| lane.lines.lock().len()).sum();
        assert!(held <= FULL && sender.dropped() > 0, "{held} {}", sender.dropped());
        // The last line fits as soon as the reader has made room.
        let end = thread::spawn({
            let sender = sender.clone();
            move || {
                let lane = || sender.queue.lanes.iter().all(|lane| lane.lines.lock().len() < LONG);
                while !lane() {
                    thread::yield_now();
                }
                sender.send(b"end\n");
            }
        });
        let read = read_until(&mut reader, b"end\n");
        end.join().unwrap();
        assert_eq!(memchr::memchr_iter(b'\n', &read).count() - 1 + sender.dropped(), SENT);
    }

    #[test]
    fn a_thread_waits_for_room_if_no_line_may_be_lost() {
        let directory = tempfile::tempdir().unwrap();
        let (sender, _writer, mut reader) = start_with_pipe(directory.path(), WhenFull::Wait);
        const SENT: usize = 16 * 1024;
        let sending = thread::spawn({
            let (sender, line) = (sender.clone(), [b"x".repeat(1023).as_slice(), b"\n"].concat());
            move || {
                (0..SENT).for_each(|_| sender.send(&line));
                sender.send(b"end\n");
            }
        });
        let read = read_until(&mut reader, b"end\n");
        sending.join().unwrap();
        assert_eq!((memchr::memchr_iter(b'\n', &read).count(), sender.dropped()), (SENT + 1, 0));
    }
}
