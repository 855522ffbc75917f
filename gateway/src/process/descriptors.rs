//! Number of connections that the process can have open. Each connection is a file descriptor, and the system limits
//! the descriptors of a process (`ulimit -n`). The gateway checks the number before it serves, because a process that
//! later runs out of descriptors can neither accept clients nor reach backends.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::{Config, Proxy};

/// Descriptors for listeners, logs, runtimes, probes, and files that are being read.
const RESERVE: u64 = 100;

/// Minimum number of client connections that justifies a start.
const FEWEST: u64 = 16;

/// Error for a configuration with more connections than the system allows.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "proxy.max_connections = {connections} may need {needed} open files, and the system allows this process \
     {allowed}: raise the hard limit (`ulimit -Hn`, LimitNOFILE= of systemd){}",
    remedy(*fitting)
)]
pub struct TooFewDescriptors {
    connections: u64,
    needed: u64,
    allowed: u64,
    /// Number of connections that the system allows; `None` if it is less than `FEWEST`.
    fitting: Option<u64>,
}

/// Returns the second half of the error's advice. The first half is to raise the limit.
fn remedy(fitting: Option<u64>) -> String {
    match fitting {
        Some(fitting) => format!(", or set max_connections to {fitting} at most"),
        None => format!(" to {} at least, which is enough for {FEWEST} connections", needed(FEWEST, FEWEST)),
    }
}

/// Number of client connections that the process can serve.
#[derive(Debug, PartialEq, Eq)]
pub struct Room {
    /// Maximum number of client connections.
    pub connections: usize,
    /// Warning that the default number of connections was lowered; `None` if it was not lowered.
    pub warning: Option<String>,
}

/// Raises the limit of open files as far as possible, and checks that the limit is enough for `config`. A default
/// number of connections is lowered if necessary. A number that the operator has set is not lowered.
///
/// # Errors
/// Returns an error if the limit is too low for the number that the operator has set.
pub fn make_room(config: &Config) -> Result<Room, TooFewDescriptors> {
    room(config, raise_limit())
}

/// Raises the limit of open files to its maximum, and returns the new limit.
fn raise_limit() -> u64 {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((0, 0));
    // Some systems report an infinite hard limit, and refuse to set it.
    if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft }
}

fn room(config: &Config, allowed: u64) -> Result<Room, TooFewDescriptors> {
    let connections = config.proxy.max_connections.get();
    let chosen = u64::try_from(connections).unwrap_or(u64::MAX);
    let kept = u64::try_from(config.keepalive_pool_size().get()).unwrap_or(u64::MAX);
    let needed = needed(chosen, kept);
    if needed <= allowed {
        return Ok(Room { connections, warning: None });
    }
    let fitting = fitting(allowed, kept);
    let error = TooFewDescriptors {
        connections: chosen,
        needed,
        allowed,
        fitting: (self::needed(fitting, kept) <= allowed).then_some(fitting),
    };
    if config.proxy.max_connections != Proxy::default().max_connections {
        return Err(error);
    }
    let warning = format!("{error}; until then it is {fitting}");
    Ok(Room { connections: usize::try_from(fitting).unwrap_or(connections), warning: Some(warning) })
}

/// Returns the number of files that may be open with `connections` client connections. Each client needs one file,
/// and a second one during a request to a backend. The pool may also keep idle connections: at most `kept`, and at
/// most one for each client.
fn needed(connections: u64, kept: u64) -> u64 {
    connections.saturating_mul(2).saturating_add(kept.min(connections)).saturating_add(RESERVE)
}

/// Returns the largest number of connections for which `allowed` files are enough.
fn fitting(allowed: u64, kept: u64) -> u64 {
    let left = allowed.saturating_sub(RESERVE);
    let with_as_many_kept = left / 3;
    let fitting = if with_as_many_kept <= kept { with_as_many_kept } else { (left - kept) / 2 };
    fitting.max(FEWEST)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    fn with(connections: usize) -> Config {
        let mut config = Config::default();
        config.proxy.max_connections = NonZeroUsize::new(connections).unwrap();
        config
    }

    #[test]
    fn client_needs_two_files_beside_pool_and_reserve() {
        // 2 × 1000 for clients, 512 idle connections, and the reserve of 100.
        assert_eq!(room(&with(1000), 2612), Ok(Room { connections: 1000, warning: None }));
        let error = room(&with(1000), 2611).unwrap_err();
        assert_eq!(
            error,
            TooFewDescriptors { connections: 1000, needed: 2612, allowed: 2611, fitting: Some(999) }
        );
        assert!(room(&with(usize::MAX), 1 << 20).is_err());
        // The pool keeps at most one idle connection for each client.
        assert_eq!(room(&with(100), 400), Ok(Room { connections: 100, warning: None }));
        assert!(room(&with(100), 399).is_err());
        for (allowed, kept) in [(151, 512), (1024, 512), (1636, 512), (1639, 512), (4096, 1), (1 << 20, 512)]
        {
            let most = fitting(allowed, kept);
            assert!(needed(most, kept) <= allowed && needed(most + 1, kept) > allowed, "{allowed} {kept}");
        }
    }

    #[test]
    fn default_max_connections_is_lowered_to_fit() {
        let by_default = Config::default();
        let room = |allowed| room(&by_default, allowed).unwrap();
        assert_eq!(room(1 << 20), Room { connections: 10_000, warning: None });
        for (allowed, connections) in [(4096, 1742), (1024, 308), (256, 52), (0, 16)] {
            let found = room(allowed);
            assert_eq!(found.connections, connections, "{allowed}");
            let warning = found.warning.unwrap();
            assert!(warning.contains("= 10000 may need 20612 open files"), "{warning}");
            assert!(warning.ends_with(&format!("until then it is {connections}")), "{warning}");
        }
    }

    #[test]
    fn error_says_how_many_files_the_minimum_needs() {
        for (allowed, error) in [
            (147, "LimitNOFILE= of systemd) to 148 at least, which is enough for 16 connections"),
            (148, "LimitNOFILE= of systemd), or set max_connections to 16 at most"),
        ] {
            assert!(room(&with(17), allowed).unwrap_err().to_string().ends_with(error), "{allowed}");
        }
        assert_eq!(room(&with(16), 148), Ok(Room { connections: 16, warning: None }));
    }
}
