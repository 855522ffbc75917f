//! How many connections the process can have open: each is a file descriptor, and the system gives a process only so
//! many of those (`ulimit -n`). Counted before anything is served, because a process that runs out of them later
//! can neither take clients nor reach backends.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::{Config, Proxy};

/// Listeners, logs, runtimes, probes, files that are being read.
const RESERVE: u64 = 100;

/// The fewest client connections that are worth a start.
const FEWEST: u64 = 16;

/// More connections are asked for than the system allows.
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
    /// `None`: not even the fewest do.
    fitting: Option<u64>,
}

/// What to do, behind that the limit can be raised.
fn remedy(fitting: Option<u64>) -> String {
    match fitting {
        Some(fitting) => format!(", or set max_connections to {fitting} at most"),
        None => format!(" to {} at least, which is enough for {FEWEST} connections", needed(FEWEST, FEWEST)),
    }
}

/// How many client connections there may be.
#[derive(Debug, PartialEq, Eq)]
pub struct Room {
    /// So many.
    pub connections: usize,
    /// What to tell whoever has not said how many, where that is fewer than by default.
    pub warning: Option<String>,
}

/// Raises the limit of open files as far as the process may, and sees whether the connections of `config` fit in. The
/// default number of them is lowered to what does; one that somebody has chosen is not.
///
/// # Errors
/// Where it does not fit.
pub fn make_room(config: &Config) -> Result<Room, TooFewDescriptors> {
    room(config, raise_limit())
}

/// The limit of open files, once it is as high as it may be.
fn raise_limit() -> u64 {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((0, 0));
    // Some systems call the hard limit infinite, and take none that is.
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
    let warning = format!("{error}; it is {fitting} for now");
    Ok(Room { connections: usize::try_from(fitting).unwrap_or(connections), warning: Some(warning) })
}

/// So many files may be open with so many client connections: each is one, and one more while a backend works for
/// it; and a connection to another backend may be kept from before.
fn needed(connections: u64, kept: u64) -> u64 {
    connections.saturating_mul(2).saturating_add(kept.min(connections)).saturating_add(RESERVE)
}

/// The most connections that so many files are enough for.
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
    fn a_client_takes_two_and_the_rest_is_kept_for_backends_and_ourselves() {
        // 2 × 1000, 512 kept, 100 for ourselves.
        assert_eq!(room(&with(1000), 2612), Ok(Room { connections: 1000, warning: None }));
        let error = room(&with(1000), 2611).unwrap_err();
        assert_eq!(
            error,
            TooFewDescriptors { connections: 1000, needed: 2612, allowed: 2611, fitting: Some(999) }
        );
        assert!(room(&with(usize::MAX), 1 << 20).is_err());
        // No more are kept than there ever were.
        assert_eq!(room(&with(100), 400), Ok(Room { connections: 100, warning: None }));
        assert!(room(&with(100), 399).is_err());
        for (allowed, kept) in [(151, 512), (1024, 512), (1636, 512), (1639, 512), (4096, 1), (1 << 20, 512)]
        {
            let most = fitting(allowed, kept);
            assert!(needed(most, kept) <= allowed && needed(most + 1, kept) > allowed, "{allowed} {kept}");
        }
    }

    #[test]
    fn what_nobody_has_chosen_is_lowered_to_what_fits() {
        let by_default = Config::default();
        let room = |allowed| room(&by_default, allowed).unwrap();
        assert_eq!(room(1 << 20), Room { connections: 10_000, warning: None });
        for (allowed, connections) in [(4096, 1742), (1024, 308), (256, 52), (0, 16)] {
            let found = room(allowed);
            assert_eq!(found.connections, connections, "{allowed}");
            let warning = found.warning.unwrap();
            assert!(warning.contains("= 10000 may need 20612 open files"), "{warning}");
            assert!(warning.ends_with(&format!("it is {connections} for now")), "{warning}");
        }
    }

    #[test]
    fn where_not_even_the_fewest_fit_it_is_said_how_much_they_need() {
        for (allowed, error) in [
            (147, "LimitNOFILE= of systemd) to 148 at least, which is enough for 16 connections"),
            (148, "LimitNOFILE= of systemd), or set max_connections to 16 at most"),
        ] {
            assert!(room(&with(17), allowed).unwrap_err().to_string().ends_with(error), "{allowed}");
        }
        assert_eq!(room(&with(16), 148), Ok(Room { connections: 16, warning: None }));
    }
}
