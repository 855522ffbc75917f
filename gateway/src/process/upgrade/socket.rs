//! Unix socket on which a successor waits (`proxy.upgrade_sock`). The process that gets the listeners gets the
//! clients' requests. So the socket is in a directory in which no other user can create a file, and no other user can
//! connect to the socket.

use std::env;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, geteuid};

const NAME: &str = "upgrade.sock";

/// Reason why a successor cannot wait on the socket.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeSocketError {
    /// Other users can write to the directory.
    #[error(
        "{directory} is not safe for {NAME} (proxy.upgrade_sock): {why}; it must belong to root or to the user of \
         the gateway, and no other user may write to it (chmod go-w)"
    )]
    Unsafe {
        /// Path of the directory.
        directory: String,
        /// Reason why the directory is not safe.
        why: String,
    },
    /// Another process already waits on the socket.
    #[error("another process already waits on {0} (proxy.upgrade_sock); let it take over, or end it")]
    Taken(String),
    /// The system refuses the socket.
    #[error("cannot wait on {path} (proxy.upgrade_sock): {error}")]
    Io {
        /// Path of the socket.
        path: String,
        /// Error of the system.
        error: io::Error,
    },
}

/// Returns the path of the socket: the configured path, or a default in the directory for runtime files.
pub fn path(configured: &str) -> PathBuf {
    let variable = |name| env::var(name).ok().filter(|value| value.starts_with('/'));
    if !configured.is_empty() {
        return PathBuf::from(configured);
    }
    // systemd names the unit's runtime directory below /run. Several directories are separated by colons.
    if let Some(directories) = variable("RUNTIME_DIRECTORY") {
        return Path::new(directories.split(':').next().unwrap_or_default()).join(NAME);
    }
    if geteuid().is_root() {
        return Path::new("/run/gateway").join(NAME);
    }
    match variable("XDG_RUNTIME_DIR") {
        Some(directory) => Path::new(&directory).join("gateway").join(NAME),
        None => env::temp_dir().join(format!("gateway-{}", geteuid())).join(NAME),
    }
}

/// Socket on which this process waits. On drop the socket is removed.
#[derive(Debug)]
pub(super) struct UpgradeSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
}

impl UpgradeSocket {
    /// Opens the socket at `path`. A process of the user `uid` or of the current user can connect to it.
    pub(super) fn open(path: &Path, uid: Uid) -> Result<Self, UpgradeSocketError> {
        let failed = |error| UpgradeSocketError::Io { path: path.display().to_string(), error };
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("/"));
        // Another user must be able to enter the directory. Only that user may connect to the socket.
        let mode = if uid == geteuid() { 0o700 } else { 0o755 };
        match DirBuilder::new().mode(mode).create(directory) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error)),
            // The directory's owner is checked, because the owner could put any file there while this process works
            // in it as root.
            _ => check(directory)?,
        }
        match UnixStream::connect(path) {
            Ok(_) => return Err(UpgradeSocketError::Taken(path.display().to_string())),
            // An ended process left this socket. A file that is no socket also refuses connections, but stays.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused && is_socket(path) => {
                fs::remove_file(path).map_err(failed)?;
            }
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let place = UpgradeSocket { listener, path: path.to_owned() };
        let settle = || {
            fs::set_permissions(path, Permissions::from_mode(0o600))?;
            if uid != geteuid() {
                chown(path, Some(uid.as_raw()), None)?;
            }
            place.listener.set_nonblocking(true)
        };
        settle().map_err(failed)?;
        Ok(place)
    }
}

impl Drop for UpgradeSocket {
    fn drop(&mut self) {
        // Another program may have cleared the directory.
        let _ = fs::remove_file(&self.path);
    }
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

fn check(directory: &Path) -> Result<(), UpgradeSocketError> {
    let is_unsafe =
        |why: String| UpgradeSocketError::Unsafe { directory: directory.display().to_string(), why };
    let found = fs::metadata(directory).map_err(|error| is_unsafe(error.to_string()))?;
    let owner = Uid::from_raw(found.uid());
    if !found.is_dir() {
        return Err(is_unsafe("it is not a directory".to_owned()));
    }
    if !owner.is_root() && owner != geteuid() {
        return Err(is_unsafe(format!(
            "it belongs to user id {owner}, which is neither root nor the user who starts this process"
        )));
    }
    if found.mode() & 0o022 != 0 {
        return Err(is_unsafe(format!("other users may write to it (mode {:o})", found.mode() & 0o7777)));
    }
    Ok(())
}

/// Process at the other end of a Unix socket, at the time when it connected or began to listen. The kernel reports
/// it, so no process can pretend to be another one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) uid: Uid,
    /// Process id; `None` if the system does not report it.
    pub(super) pid: Option<u32>,
}

impl Peer {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let peer = rustix::net::sockopt::socket_peercred(stream)?;
        let pid = u32::try_from(peer.pid.as_raw_nonzero().get()).ok();
        Ok(Peer { uid: Uid::from_raw(peer.uid.as_raw()), pid })
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let (uid, _) = nix::unistd::getpeereid(stream)?;
        Ok(Peer { uid, pid: None })
    }

    /// Returns true if the process may hand listeners over or receive them. It may if it is root, or one of the users
    /// that this process is or will be.
    pub(super) fn is_one_of_us(self, ours: &[Uid]) -> bool {
        self.uid.is_root() || ours.contains(&self.uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Uid {
        geteuid()
    }

    #[test]
    fn socket_is_private_and_removed_on_drop() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below").join(NAME);
        let place = UpgradeSocket::open(&path, own()).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(path.parent().unwrap().metadata().unwrap().mode() & 0o777, 0o700);
        let taken = UpgradeSocket::open(&path, own()).unwrap_err().to_string();
        assert!(
            taken.starts_with(&format!("another process already waits on {}", path.display())),
            "{taken}"
        );
        drop(place);
        assert!(!path.exists());
    }

    #[test]
    fn socket_of_dead_process_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        UpgradeSocket::open(&path, own()).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        fs::write(&path, "precious").unwrap();
        let error = UpgradeSocket::open(&path, own()).unwrap_err().to_string();
        assert!(error.starts_with("cannot wait on "), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
        let error = UpgradeSocket::open(&directory.path().join(NAME), own()).unwrap_err().to_string();
        assert!(error.contains("other users may write to it (mode 777)"), "{error}");
        let error = UpgradeSocket::open(Path::new("/nowhere/at/all"), own()).unwrap_err().to_string();
        assert!(error.starts_with("cannot wait on /nowhere/at/all (proxy.upgrade_sock): "), "{error}");
    }

    #[test]
    fn configured_path_wins_over_default() {
        assert_eq!(path("/run/a.sock"), Path::new("/run/a.sock"));
        assert!(path("").is_absolute());
    }
}
