//! The backends that bear a tag, and the choice among them.

use std::sync::Arc;
use std::time::Duration;

use super::balance::{Group, Member};
use super::retry::RetryBudget;
use super::{Attempt, BackendState, CircuitMode};
use crate::config::{Algorithm, Percent};

/// How often a backend is chosen again that was taken by others in the meantime.
const CHOICES: usize = 3;

/// What is known about a request that looks for a backend.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'r> {
    /// What consistent hashing goes by.
    pub key: &'r [u8],
    /// The mark of the backend that the client got before; see [`BackendState::mark`].
    pub known: Option<&'r str>,
    /// How many requests a backend may have in flight.
    pub limit: u32,
    /// Whether circuits count.
    pub heeds_circuits: bool,
}

/// Why there is no backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoBackend {
    /// None is usable; perhaps after this time, if that is known.
    NoneUsable(Option<Duration>),
    /// Each that is usable has as many requests in flight as it may.
    AllBusy,
}

/// A pool of backends.
pub struct Pool {
    primaries: Group,
    /// Used where no other is usable.
    backups: Group,
    /// With fewer usable ones than this, all are used; 0: never.
    panic_below: u8,
    /// Bounds the retries of all requests for the tag.
    pub budget: Arc<RetryBudget>,
}

impl Pool {
    /// A pool in which `algorithm` chooses.
    pub fn new(
        primaries: Vec<Member>,
        backups: Vec<Member>,
        algorithm: Algorithm,
        panic_below: Percent,
        budget: Arc<RetryBudget>,
    ) -> Self {
        Pool {
            primaries: Group::new(primaries, algorithm),
            backups: Group::new(backups, algorithm),
            panic_below: panic_below.get(),
            budget,
        }
    }

    /// Its members, and whether each is a backup.
    pub fn members(&self) -> impl Iterator<Item = (&Member, bool)> {
        let primaries = self.primaries.members().iter().map(|member| (member, false));
        primaries.chain(self.backups.members().iter().map(|member| (member, true)))
    }

    fn all(&self) -> impl Iterator<Item = &Member> {
        self.members().map(|(member, _)| member)
    }

    /// The backend on which an attempt would begin now; it is nobody's turn by that.
    pub fn next(&self, wanted: &Selection<'_>) -> Option<&Arc<BackendState>> {
        let panics = self.panics();
        let is_free = |member: &Member| is_free(member, wanted, panics);
        let mut groups = [&self.primaries, &self.backups].into_iter();
        let choice = groups.find_map(|group| group.choose(group.next_turn(), wanted, is_free));
        choice.map(|member| &member.backend)
    }

    /// The same, and it was its turn; no attempt of a client's request begins there.
    pub fn take_turn(&self, wanted: &Selection<'_>) -> Option<&Arc<BackendState>> {
        self.primaries.turn();
        self.next(wanted)
    }

    /// Begins an attempt: on the backend that the client got before, else on one whose turn it is, else on a
    /// backup. One that is among `failed` comes after all others (where it is the only one, a connection
    /// that it closed as the request came is worth a second one).
    ///
    /// # Errors
    /// Why there is none.
    pub fn begin_attempt(
        &self,
        wanted: &Selection<'_>,
        failed: &[Arc<BackendState>],
    ) -> Result<Attempt, NoBackend> {
        let panics = self.panics();
        let heed = match (wanted.heeds_circuits, panics) {
            (false, _) => CircuitMode::Nothing,
            (true, true) => CircuitMode::Panic,
            (true, false) => CircuitMode::Circuit,
        };
        // Where all have failed: one that was not the last.
        let last = failed.last().map_or(&[][..], std::slice::from_ref);
        let rounds = if failed.is_empty() { &[failed][..] } else { &[failed, last, &[]] };
        for avoided in rounds {
            let is_avoided = |member: &Member| avoided.iter().any(|one| Arc::ptr_eq(one, &member.backend));
            let may_be = |member: &Member| is_free(member, wanted, panics) && !is_avoided(member);
            for group in [&self.primaries, &self.backups] {
                // A retry takes nobody's turn, or with two backends the same one would always be asked first.
                let turn = if failed.is_empty() { group.turn() } else { group.next_turn() };
                for choice in 0..CHOICES {
                    let chosen = group.choose(turn.wrapping_add(choice), wanted, may_be);
                    let Some(member) = chosen else { break };
                    if let Some(attempt) = Attempt::begin(member.backend.clone(), wanted.limit, heed) {
                        return Ok(attempt);
                    }
                }
            }
        }
        Err(self.refusal(wanted, panics))
    }

    fn refusal(&self, wanted: &Selection<'_>, panics: bool) -> NoBackend {
        if self.all().any(|member| usable(&member.backend, wanted, panics)) {
            return NoBackend::AllBusy;
        }
        let well = self.all().map(|member| &member.backend);
        let well = well.filter(|backend| backend.is_healthy() && !backend.is_drained());
        NoBackend::NoneUsable(well.filter_map(|backend| backend.circuit_open_for()).min())
    }

    /// Whether too few are usable for what is known to be true of all of them, and no backup is.
    fn panics(&self) -> bool {
        if self.panic_below == 0 {
            return false;
        }
        let is_usable = |member: &&Member| member.backend.is_usable();
        let members = self.primaries.members();
        let usable = members.iter().filter(is_usable).count();
        usable * 100 < members.len() * usize::from(self.panic_below)
            && !self.backups.members().iter().any(|member| is_usable(&member))
    }
}

impl Group {
    /// The member that the client got before, where that may be chosen, or else whose turn it is.
    fn choose(
        &self,
        turn: usize,
        wanted: &Selection<'_>,
        may_be: impl Fn(&Member) -> bool,
    ) -> Option<&Member> {
        let marked = |mark| self.members().iter().find(|member| member.backend.mark == mark);
        let known = wanted.known.and_then(marked).filter(|member| may_be(member));
        known.or_else(|| self.pick(turn, wanted.key, may_be))
    }
}

/// Whether it may be sent another request.
fn is_free(member: &Member, wanted: &Selection<'_>, panics: bool) -> bool {
    usable(&member.backend, wanted, panics) && member.backend.inflight() < wanted.limit
}

fn usable(backend: &BackendState, wanted: &Selection<'_>, panics: bool) -> bool {
    if panics || !wanted.heeds_circuits {
        return !backend.is_drained() && (panics || backend.is_healthy());
    }
    backend.is_usable()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;
    use crate::upstream::backend::tests::{backend, begin, trip};

    const WANTED: Selection<'_> = Selection { key: b"", known: None, limit: u32::MAX, heeds_circuits: true };

    struct Fixture {
        a: Arc<BackendState>,
        b: Arc<BackendState>,
        backup: Arc<BackendState>,
        pool: Pool,
    }

    fn fixture(panic_below: i64) -> Fixture {
        let metrics = Metrics::new().unwrap();
        let [a, b, backup] = ["a", "b", "backup"].map(|name| backend(&metrics, name));
        let member = |backend: &Arc<BackendState>| Member { backend: backend.clone(), weight: 1 };
        let pool = Pool::new(
            vec![member(&a), member(&b)],
            vec![member(&backup)],
            Algorithm::RoundRobin,
            Percent::try_from(panic_below).unwrap(),
            Arc::default(),
        );
        Fixture { a, b, backup, pool }
    }

    impl Fixture {
        fn begin(&self, wanted: &Selection<'_>, failed: &[&Arc<BackendState>]) -> Result<String, NoBackend> {
            let failed: Vec<_> = failed.iter().map(|backend| (*backend).clone()).collect();
            self.pool.begin_attempt(wanted, &failed).map(|attempt| attempt.backend().name.clone())
        }
    }

    #[test]
    fn a_backend_that_failed_comes_last_and_a_backup_before_it() {
        let fixture = fixture(0);
        let Fixture { a, b, backup, .. } = &fixture;
        for _ in 0..4 {
            assert_eq!(fixture.begin(&WANTED, &[a]).unwrap(), "b");
        }
        assert_eq!(fixture.begin(&WANTED, &[a, b]).unwrap(), "backup");
        assert!(fixture.begin(&WANTED, &[a, b, backup]).is_ok(), "where all failed, any will do");
        for backend in [b, backup] {
            backend.set_failing(true, Duration::ZERO);
        }
        assert_eq!(fixture.begin(&WANTED, &[a]).unwrap(), "a");
    }

    #[test]
    fn a_backup_gets_nothing_while_another_is_usable() {
        let fixture = fixture(0);
        let names = || (0..10).map(|_| fixture.begin(&WANTED, &[]).unwrap()).collect::<Vec<_>>();
        assert!(!names().contains(&"backup".to_owned()));
        fixture.a.set_drained(true);
        trip(&fixture.b);
        assert_eq!(names(), ["backup"; 10]);
        fixture.backup.set_failing(true, Duration::ZERO);
        let refusal = fixture.begin(&WANTED, &[]).unwrap_err();
        assert!(matches!(refusal, NoBackend::NoneUsable(Some(_))), "the circuit's time is told: {refusal:?}");
        fixture.b.set_failing(true, Duration::ZERO);
        assert_eq!(fixture.begin(&WANTED, &[]), Err(NoBackend::NoneUsable(None)));
    }

    #[test]
    fn a_client_gets_the_backend_that_it_had_while_that_is_usable() {
        let fixture = fixture(0);
        let mark = fixture.b.mark.clone();
        let wanted = Selection { known: Some(&mark), ..WANTED };
        for _ in 0..4 {
            assert_eq!(fixture.begin(&wanted, &[]).unwrap(), "b");
        }
        assert_eq!(fixture.begin(&wanted, &[&fixture.b]).unwrap(), "a");
        fixture.b.set_drained(true);
        assert_eq!(fixture.begin(&wanted, &[]).unwrap(), "a");
        assert!(fixture.begin(&Selection { known: Some("unknown"), ..WANTED }, &[]).is_ok());
    }

    #[test]
    fn beyond_the_limit_nobody_is_asked() {
        let fixture = fixture(0);
        let wanted = Selection { limit: 1, ..WANTED };
        let _first = fixture.pool.begin_attempt(&wanted, &[]).unwrap();
        let second = fixture.pool.begin_attempt(&wanted, &[]).unwrap();
        assert_eq!(fixture.begin(&wanted, &[]).unwrap(), "backup", "it is there for this");
        let _third = begin(&fixture.backup);
        assert_eq!(fixture.begin(&wanted, &[]), Err(NoBackend::AllBusy));
        drop(second);
        assert!(fixture.begin(&wanted, &[]).is_ok());
    }

    #[test]
    fn with_too_few_usable_ones_all_are_used() {
        let fixture = fixture(60);
        let names = || {
            let mut names: Vec<_> = (0..10).map(|_| fixture.begin(&WANTED, &[]).unwrap()).collect();
            names.sort();
            names.dedup();
            names
        };
        fixture.backup.set_failing(true, Duration::ZERO);
        fixture.a.set_failing(true, Duration::ZERO);
        assert_eq!(names(), ["a", "b"], "one of two is below 60 percent");
        trip(&fixture.b);
        assert_eq!(names(), ["a", "b"]);
        fixture.b.set_drained(true);
        assert_eq!(names(), ["a"], "but what somebody has drained gets nothing");
        fixture.backup.set_failing(false, Duration::ZERO);
        assert_eq!(names(), ["backup"], "one that is well is better than those that are not");
    }

    #[test]
    fn a_route_without_a_circuit_breaker_does_not_heed_those_of_others() {
        let fixture = fixture(0);
        trip(&fixture.a);
        trip(&fixture.b);
        let wanted = Selection { heeds_circuits: false, ..WANTED };
        assert_ne!(fixture.begin(&wanted, &[]).unwrap(), "backup");
    }
}
