//! The `--daemon` option: the command returns when the gateway serves, and the gateway continues in the background.
//!
//! A process with threads cannot be forked safely, so the program is started again with the same arguments, in a new
//! session: the daemon. Until the daemon serves, it writes its errors to the command's standard error. Then it closes
//! the terminal, and tells the command so over a socket, which the daemon received as its standard input.
//!
//! The command starts a launcher process, which starts the daemon and ends at once. So the daemon is a child of the
//! system's first process before the daemon is announced. systemd checks the parent at that moment. It does not wait
//! for a main process that is not its child, but kills such a process right after SIGTERM when the service is
//! stopped.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::Command;

use nix::unistd::setsid;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

/// Environment variable that tells a restarted process its role.
const CHILD: &str = "GATEWAY_DAEMON_CHILD";
const LAUNCHER: &str = "launcher";
const DAEMON: &str = "daemon";

/// Reason why the gateway does not run in the background.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The program cannot be started again.
    #[error("--daemon: cannot start in the background: {0}")]
    Start(io::Error),
    /// The gateway was started in the background and has failed.
    #[error("--daemon: the gateway has not started; its messages above say why")]
    Failed,
    /// The process cannot leave the session of the terminal.
    #[error("--daemon: cannot leave the session of the terminal: {0}")]
    Session(nix::errno::Errno),
    /// The log would be lost, because a daemon has no console.
    #[error(
        "--daemon: a background process has no console for the log (logging.output = \"console\"); set \
         logging.output = \"file\" and logging.file_path"
    )]
    LogsToConsole,
}

/// Returns true if this process is the daemon.
pub fn is_child() -> bool {
    is(DAEMON)
}

fn is(role: &str) -> bool {
    env::var_os(CHILD).is_some_and(|known| known == role)
}

/// Starts the gateway in the background, and returns when the gateway serves.
///
/// # Errors
/// Returns an error if the gateway cannot be started, or fails before it serves.
pub fn start() -> Result<(), DaemonError> {
    if is(LAUNCHER) {
        // The daemon inherits this process's standard input, and with it the socket.
        return again(DAEMON)?.spawn().map(drop).map_err(DaemonError::Start);
    }
    let (mut ready, its_end) = UnixStream::pair().map_err(DaemonError::Start)?;
    // The `Command` is dropped at the end of this statement, and closes this process's copy of the other end.
    let launched = again(LAUNCHER)?.stdin(OwnedFd::from(its_end)).status().map_err(DaemonError::Start)?;
    match ready.read(&mut [0]) {
        Ok(1..) if launched.success() => Ok(()),
        _ => Err(DaemonError::Failed),
    }
}

/// Returns a command that runs this program with the same arguments in another role.
fn again(role: &str) -> Result<Command, DaemonError> {
    let mut command = Command::new(env::current_exe().map_err(DaemonError::Start)?);
    command.args(env::args_os().skip(1)).env(CHILD, role);
    Ok(command)
}

/// Connection of the daemon to the terminal, and to the command that started the daemon.
pub struct Terminal(());

impl Terminal {
    /// Leaves the session of the terminal. After that, Ctrl-C and the end of the terminal do not reach this process.
    ///
    /// # Errors
    /// Returns an error if the system refuses.
    pub fn leave_session() -> Result<Self, DaemonError> {
        setsid().map_err(DaemonError::Session)?;
        Ok(Terminal(()))
    }

    /// Closes the terminal, and ends the command that waits.
    ///
    /// # Errors
    /// Returns an error if `/dev/null` cannot be opened.
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
        // The user may have interrupted the command that waits.
        let _ = (&command).write_all(b"!");
        Ok(())
    }
}

/// Returns true if standard output stays open without the terminal, because systemd reads it.
pub fn console_outlives_terminal() -> bool {
    goes_to_journal(1)
}

/// Returns true if the descriptor is the stream to systemd's journal that `JOURNAL_STREAM` names (`systemd.exec(5)`).
fn goes_to_journal(descriptor: u32) -> bool {
    let Some(stream) = env::var_os("JOURNAL_STREAM") else { return false };
    let found = std::fs::metadata(format!("/proc/self/fd/{descriptor}"));
    found.is_ok_and(|found| format!("{}:{}", found.dev(), found.ino()).as_str() == stream)
}
