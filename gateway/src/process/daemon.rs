//! `--daemon`: the command returns when the gateway serves, and the gateway goes on in the background.
//!
//! A process with threads cannot be forked safely, so the program is started again with the same arguments, in a
//! session of its own. Until it serves, its errors go where the command's go; then it lets go of the terminal
//! and says so, over a socket that it has got as its standard input.
//!
//! Between the command and the daemon is a launcher, which ends at once, so that the daemon is the child of the system's
//! first process before it is announced. systemd looks at that moment: it does not wait for a main process that is not
//! its child, and kills it right after SIGTERM when the service is stopped.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::Command;

use nix::unistd::setsid;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

/// Says to a process that was started again which one it is.
const CHILD: &str = "GATEWAY_DAEMON_CHILD";
const LAUNCHER: &str = "launcher";
const DAEMON: &str = "daemon";

/// Why there is no daemon.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The program cannot be started again.
    #[error("--daemon: cannot start in the background: {0}")]
    Start(io::Error),
    /// It was started, and has failed.
    #[error("--daemon: the gateway has not started; what it said stands above")]
    Failed,
    /// It has no session of its own.
    #[error("--daemon: cannot leave the terminal's session: {0}")]
    Session(nix::errno::Errno),
    /// Its log would go nowhere.
    #[error(
        "--daemon: the log has nowhere to go with logging.output = \"console\"; set logging.output = \"file\" and \
         logging.file_path"
    )]
    LogsToConsole,
}

/// Whether this process is the one in the background.
pub fn is_child() -> bool {
    is(DAEMON)
}

fn is(role: &str) -> bool {
    env::var_os(CHILD).is_some_and(|known| known == role)
}

/// Starts the gateway in the background, and returns when it serves.
///
/// # Errors
/// Where it cannot be started, or fails before it serves.
pub fn start() -> Result<(), DaemonError> {
    if is(LAUNCHER) {
        // The daemon gets this process's standard input, and with it the socket.
        return again(DAEMON)?.spawn().map(drop).map_err(DaemonError::Start);
    }
    let (mut ready, its_end) = UnixStream::pair().map_err(DaemonError::Start)?;
    // The command is dropped at the end of this, and with it our hold on the other end.
    let launched = again(LAUNCHER)?.stdin(OwnedFd::from(its_end)).status().map_err(DaemonError::Start)?;
    match ready.read(&mut [0]) {
        Ok(1..) if launched.success() => Ok(()),
        _ => Err(DaemonError::Failed),
    }
}

/// This program, with the same arguments, in another role.
fn again(role: &str) -> Result<Command, DaemonError> {
    let mut command = Command::new(env::current_exe().map_err(DaemonError::Start)?);
    command.args(env::args_os().skip(1)).env(CHILD, role);
    Ok(command)
}

/// The daemon's hold on the terminal and on the command that started it.
pub struct Terminal(());

impl Terminal {
    /// Leaves the terminal's session: its end, and Ctrl-C, are no affair of this process any more.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn leave_session() -> Result<Self, DaemonError> {
        setsid().map_err(DaemonError::Session)?;
        Ok(Terminal(()))
    }

    /// Lets go of the terminal, and ends the command that waits.
    ///
    /// # Errors
    /// Where `/dev/null` cannot be opened.
    pub fn let_go(self) -> io::Result<()> {
        let nowhere = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        if !goes_to_journal(1) {
            dup2_stdout(&nowhere)?;
        }
        if !goes_to_journal(2) {
            dup2_stderr(&nowhere)?;
        }
        let command = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        dup2_stdin(&nowhere)?;
        // Who started it may have been interrupted.
        let _ = (&command).write_all(b"!");
        Ok(())
    }
}

/// Whether what is written on standard output outlives the terminal: where systemd reads it.
pub fn console_outlives_terminal() -> bool {
    goes_to_journal(1)
}

/// Whether this descriptor is the stream to systemd's journal that `JOURNAL_STREAM` names (`systemd.exec(5)`).
fn goes_to_journal(descriptor: u32) -> bool {
    let Some(stream) = env::var_os("JOURNAL_STREAM") else { return false };
    let found = std::fs::metadata(format!("/proc/self/fd/{descriptor}"));
    found.is_ok_and(|found| format!("{}:{}", found.dev(), found.ino()).as_str() == stream)
}
