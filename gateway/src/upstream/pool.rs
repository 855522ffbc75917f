//! The backends that bear a tag, and the choice among them.

use std::sync::Arc;
use std::time::Duration;

use super::balance::{Group, Member};
use super::retry::RetryBudget;
use super::{Attempt, BackendState};
use crate::config::{Algorithm, Percent};

/// How often a backend is chosen again that was taken by others in the meantime.
const CHOICES: usize = 3;

/// What is known about a request that looks for a backend.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'r> {
    /// What consistent hashing goes by.
    pub key: &'r [u8],
    /// The mark of the backend that the client got before; see [`Pool::mark`].
    pub known: Option<&'r str>,
    /// How many requests a backend may have in flight.
    pub limit: u32,
    /// Whether circuits count.
    pub heeds_circuits: bool,
}

/// Why there is no backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
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
    pub fn next(&self, wanted: &Wanted<'_>) -> Option<&Arc<BackendState>> {
        let panics = self.panics();
        let usable = |member: &Member| usable(&member.backend, wanted, panics);
        let known = wanted.known.and_then(|mark| self.marked(mark)).filter(|member| usable(member));
        let mut groups = [&self.primaries, &self.backups].into_iter();
        let turn = || groups.find_map(|group| group.pick(group.next_turn(), wanted.key, usable));
        known.or_else(turn).map(|member| &member.backend)
    }

    /// Begins an attempt: on the backend that the client got before, else on one whose turn it is, else on a
    /// backup. One that is among `failed` comes after all others (where it is the only one, a connection
    /// that it closed as the request came is worth a second one).
    ///
    /// # Errors
    /// Why there is none.
    pub fn begin_attempt(
        &self,
        wanted: &Wanted<'_>,
        failed: &[Arc<BackendState>],
    ) -> Result<Attempt, Refusal> {
        let panics = self.panics();
        let heedless = panics || !wanted.heeds_circuits;
        let begin = |member: &Member| Attempt::begin(member.backend.clone(), wanted.limit, heedless);
        let is_free = |member: &Member| {
            usable(&member.backend, wanted, panics) && member.backend.inflight() < wanted.limit
        };
        let is_among = |of: &[Arc<BackendState>], member: &Member| {
            of.iter().any(|one| Arc::ptr_eq(one, &member.backend))
        };
        let known = wanted.known.and_then(|mark| self.marked(mark));
        let known = known.filter(|member| is_free(member) && !is_among(failed, member));
        if let Some(attempt) = known.and_then(begin) {
            return Ok(attempt);
        }
        // Where all have failed: one that was not the last.
        let last = failed.last().map_or(&[][..], std::slice::from_ref);
        let rounds = if failed.is_empty() { &[failed][..] } else { &[failed, last, &[]] };
        for avoided in rounds {
            for group in [&self.primaries, &self.backups] {
                let may_be = |member: &Member| is_free(member) && !is_among(avoided, member);
                // A retry takes nobody's turn, or with two backends the same one would always be asked first.
                let turn = if failed.is_empty() { group.turn() } else { group.next_turn() };
                for choice in 0..CHOICES {
                    let turn = turn.wrapping_add(choice);
                    let Some(member) = group.pick(turn, wanted.key, may_be) else { break };
                    if let Some(attempt) = begin(member) {
                        return Ok(attempt);
                    }
                }
            }
        }
        Err(self.refusal(wanted, panics))
    }

    fn refusal(&self, wanted: &Wanted<'_>, panics: bool) -> Refusal {
        if self.all().any(|member| usable(&member.backend, wanted, panics)) {
            return Refusal::AllBusy;
        }
        let well = self.all().map(|member| &member.backend);
        let well = well.filter(|backend| backend.is_healthy() && !backend.is_drained());
        Refusal::NoneUsable(well.filter_map(|backend| backend.circuit_open_for()).min())
    }

    /// Whether too few are usable for what is known to be true of all of them.
    fn panics(&self) -> bool {
        if self.panic_below == 0 {
            return false;
        }
        let members = self.primaries.members();
        let usable = members.iter().filter(|member| member.backend.is_usable()).count();
        usable * 100 < members.len() * usize::from(self.panic_below)
    }

    fn marked(&self, mark: &str) -> Option<&Member> {
        self.all().find(|member| member.backend.mark == mark)
    }
}

fn usable(backend: &BackendState, wanted: &Wanted<'_>, panics: bool) -> bool {
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

    const WANTED: Wanted<'_> = Wanted { key: b"", known: None, limit: u32::MAX, heeds_circuits: true };

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
        fn begin(&self, wanted: &Wanted<'_>, failed: &[&Arc<BackendState>]) -> Result<String, Refusal> {
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
        assert!(matches!(refusal, Refusal::NoneUsable(Some(_))), "the circuit's time is told: {refusal:?}");
        fixture.b.set_failing(true, Duration::ZERO);
        assert_eq!(fixture.begin(&WANTED, &[]), Err(Refusal::NoneUsable(None)));
    }

    #[test]
    fn a_client_gets_the_backend_that_it_had_while_that_is_usable() {
        let fixture = fixture(0);
        let mark = fixture.b.mark.clone();
        let wanted = Wanted { known: Some(&mark), ..WANTED };
        for _ in 0..4 {
            assert_eq!(fixture.begin(&wanted, &[]).unwrap(), "b");
        }
        assert_eq!(fixture.begin(&wanted, &[&fixture.b]).unwrap(), "a");
        fixture.b.set_drained(true);
        assert_eq!(fixture.begin(&wanted, &[]).unwrap(), "a");
        assert!(fixture.begin(&Wanted { known: Some("unknown"), ..WANTED }, &[]).is_ok());
    }

    #[test]
    fn beyond_the_limit_nobody_is_asked() {
        let fixture = fixture(0);
        let wanted = Wanted { limit: 1, ..WANTED };
        let _first = fixture.pool.begin_attempt(&wanted, &[]).unwrap();
        let second = fixture.pool.begin_attempt(&wanted, &[]).unwrap();
        assert_eq!(fixture.begin(&wanted, &[]).unwrap(), "backup", "it is there for this");
        let _third = begin(&fixture.backup);
        assert_eq!(fixture.begin(&wanted, &[]), Err(Refusal::AllBusy));
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
        fixture.a.set_failing(true, Duration::ZERO);
        assert_eq!(names(), ["a", "b"], "one of two is below 60 percent");
        trip(&fixture.b);
        assert_eq!(names(), ["a", "b"]);
        fixture.b.set_drained(true);
        assert_eq!(names(), ["a"], "but what somebody has drained gets nothing");
    }

    #[test]
    fn a_route_without_a_circuit_breaker_does_not_heed_those_of_others() {
        let fixture = fixture(0);
        trip(&fixture.a);
        trip(&fixture.b);
        let wanted = Wanted { heeds_circuits: false, ..WANTED };
        assert_ne!(fixture.begin(&wanted, &[]).unwrap(), "backup");
    }
}
