//! What a service manager of systemd's kind is told, over the socket that it names in `NOTIFY_SOCKET`
//! (`sd_notify(3)`). Without that variable nothing happens.

use sd_notify::NotifyState;
use tracing::warn;

/// This process serves, and is the one that counts.
pub fn ready() {
    let own = std::process::id();
    tell(&[NotifyState::MainPid(own), NotifyState::Ready]);
}

/// Another process is about to be the one that counts. Only that one which counts so far is believed, so it is
/// the predecessor that says it.
pub fn successor(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

/// It stops, and nobody takes its place.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot tell the service manager (NOTIFY_SOCKET)");
    }
}
