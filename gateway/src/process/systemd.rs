//! Notifications to a service manager such as systemd, over the socket that `NOTIFY_SOCKET` names (`sd_notify(3)`).
//! Without that variable, nothing is sent.

use sd_notify::NotifyState;
use tracing::warn;

/// Reports that this process serves, and that it is the main process of the service.
pub fn ready() {
    let own = std::process::id();
    tell(&[NotifyState::MainPid(own), NotifyState::Ready]);
}

/// Reports that the process `pid` becomes the main process of the service. The service manager believes only the
/// current main process, so the predecessor must report it.
pub fn successor(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

/// Reports that this process stops and has no successor.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot notify the service manager (NOTIFY_SOCKET)");
    }
}
