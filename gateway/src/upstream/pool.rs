//! Pools: the backends of one tag, and the choice among them.

use std::sync::Arc;
use std::time::Duration;

use super::balance::{Group, Member};
use super::retry::RetryBudget;
use super::{Attempt, BackendState, CircuitMode};
use crate::config::{Algorithm, Percent};

/// Maximum number of choices within a group. After a choice, another request may take the last free place of the
/// backend before the attempt begins. Then another choice is made.
const CHOICES: usize = 3;

/// Properties of a request that decide which backend is selected for it.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'r> {
    /// Key of consistent hashing.
    pub key: &'r [u8],
    /// Sticky id that the client sent, see [`BackendState::sticky_id`]; `None` if it sent none.
    pub sticky_id: Option<&'r str>,
    /// Maximum number of requests in flight on one backend.
    pub limit: u32,
    /// True if backends with an open circuit are avoided; false if circuits are ignored.
    pub respects_circuits: bool,
}

/// Reason why no backend was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoBackend {
    /// No backend is usable. The first open circuit may let a request through after this time; `None`: not known.
    NoneUsable(Option<Duration>),
    /// Each usable backend has the maximum number of requests in flight.
    AllBusy,
}

/// Backends of one tag, in two groups: primaries and backups.
pub struct Pool {
    primaries: Group,
    /// Backends that are used if each primary is unusable, busy, or has failed the request already.
    backups: Group,
    /// Panic threshold in percent: if fewer of the primaries are usable, unhealthy backends are used too. 0 disables
    /// the threshold.
    panic_below: u8,
    /// Budget that limits the retries of all requests for the tag.
    pub budget: Arc<RetryBudget>,
}

impl Pool {
    /// Returns a pool in which `algorithm` chooses among the backends of a group.
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

    /// Returns each member, with `true` for a backup.
    pub fn members(&self) -> impl Iterator<Item = (&Member, bool)> {
        let primaries = self.primaries.members().iter().map(|member| (member, false));
        primaries.chain(self.backups.members().iter().map(|member| (member, true)))
    }

    fn all(&self) -> impl Iterator<Item = &Member> {
        self.members().map(|(member, _)| member)
    }

    /// Returns the backend that the next attempt would get; `None` if no backend is free. Takes no turn.
    pub fn next(&self, selection: &Selection<'_>) -> Option<&Arc<BackendState>> {
        let panics = self.panics();
        let is_free = |member: &Member| is_free(member, selection, panics);
        let mut groups = [&self.primaries, &self.backups].into_iter();
        let choice = groups.find_map(|group| group.choose(group.next_turn(), selection, is_free));
        choice.map(|member| &member.backend)
    }

    /// Takes a turn, and returns the next backend; `None` if no backend is free. For requests without an [`Attempt`].
    pub fn take_turn(&self, selection: &Selection<'_>) -> Option<&Arc<BackendState>> {
        self.primaries.turn();
        self.next(selection)
    }

    /// Begins an attempt: on the backend that the client got before, else on the backend whose turn it is, else on a
    /// backup. A backend in `failed` is chosen only if no other is free. It may still answer on a new connection,
    /// because it may have failed only by closing an idle connection just as the request came.
    ///
    /// # Errors
    /// Returns the reason why there is no backend.
    pub fn begin_attempt(
        &self,
        selection: &Selection<'_>,
        failed: &[Arc<BackendState>],
    ) -> Result<Attempt, NoBackend> {
        let panics = self.panics();
        let circuit_mode = match (selection.respects_circuits, panics) {
            (false, _) => CircuitMode::Nothing,
            (true, true) => CircuitMode::Panic,
            (true, false) => CircuitMode::Circuit,
        };
        // If all backends have failed, the backend that failed last is avoided if possible.
        let last = failed.last().map_or(&[][..], std::slice::from_ref);
        let rounds = if failed.is_empty() { &[failed][..] } else { &[failed, last, &[]] };
        for avoided in rounds {
            let is_avoided = |member: &Member| avoided.iter().any(|one| Arc::ptr_eq(one, &member.backend));
            let may_be = |member: &Member| is_free(member, selection, panics) && !is_avoided(member);
            for group in [&self.primaries, &self.backups] {
                // A retry takes no turn. Otherwise, with two backends of which one fails, every request would first be
                // sent to the same backend.
                let turn = if failed.is_empty() { group.turn() } else { group.next_turn() };
                for choice in 0..CHOICES {
                    let chosen = group.choose(turn.wrapping_add(choice), selection, may_be);
                    let Some(member) = chosen else { break };
                    if let Some(attempt) =
                        Attempt::begin(member.backend.clone(), selection.limit, circuit_mode)
                    {
                        return Ok(attempt);
                    }
                }
            }
        }
        Err(self.refusal(selection, panics))
    }

    fn refusal(&self, selection: &Selection<'_>, panics: bool) -> NoBackend {
        if self.all().any(|member| usable(&member.backend, selection, panics)) {
            return NoBackend::AllBusy;
        }
        let well = self.all().map(|member| &member.backend);
        let well = well.filter(|backend| backend.is_healthy() && !backend.is_drained());
        NoBackend::NoneUsable(well.filter_map(|backend| backend.circuit_open_for()).min())
    }

    /// Returns true if fewer primaries are usable than the panic threshold requires, and no backup is usable. In that
    /// case, the failing probes and open circuits are probably wrong about some backends.
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
    /// Returns the member with the client's sticky id if `may_be` allows it, else the member whose turn it is.
    fn choose(
        &self,
        turn: usize,
        selection: &Selection<'_>,
        may_be: impl Fn(&Member) -> bool,
    ) -> Option<&Member> {
        let marked = |sticky_id| self.members().iter().find(|member| member.backend.sticky_id == sticky_id);
        let known = selection.sticky_id.and_then(marked).filter(|member| may_be(member));
        known.or_else(|| self.pick(turn, selection.key, may_be))
    }
}

/// Returns true if the member is usable, and has fewer requests in flight than the limit.
fn is_free(member: &Member, selection: &Selection<'_>, panics: bool) -> bool {
    usable(&member.backend, selection, panics) && member.backend.inflight() < selection.limit
}

fn usable(backend: &BackendState, selection: &Selection<'_>, panics: bool) -> bool {
    if panics || !selection.respects_circuits {
        return !backend.is_drained() && (panics || backend.is_healthy());
    }
    backend.is_usable()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;
    use crate::upstream::backend::tests::{backend, begin, trip};

    const SELECTION: Selection<'_> =
        Selection { key: b"", sticky_id: None, limit: u32::MAX, respects_circuits: true };

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
        fn begin(
            &self,
            selection: &Selection<'_>,
            failed: &[&Arc<BackendState>],
        ) -> Result<String, NoBackend> {
            let failed: Vec<_> = failed.iter().map(|backend| (*backend).clone()).collect();
            self.pool.begin_attempt(selection, &failed).map(|attempt| attempt.backend().name.clone())
        }
    }

    #[test]
    fn failed_backend_is_chosen_after_backup() {
        let fixture = fixture(0);
        let Fixture { a, b, backup, .. } = &fixture;
        for _ in 0..4 {
            assert_eq!(fixture.begin(&SELECTION, &[a]).unwrap(), "b");
        }
        assert_eq!(fixture.begin(&SELECTION, &[a, b]).unwrap(), "backup");
        assert!(fixture.begin(&SELECTION, &[a, b, backup]).is_ok(), "where all failed, any will do");
        for backend in [b, backup] {
            backend.set_failing(true, Duration::ZERO);
        }
        assert_eq!(fixture.begin(&SELECTION, &[a]).unwrap(), "a");
    }

    #[test]
    fn a_backup_gets_nothing_while_another_is_usable() {
        let fixture = fixture(0);
        let names = || (0..10).map(|_| fixture.begin(&SELECTION, &[]).unwrap()).collect::<Vec<_>>();
        assert!(!names().contains(&"backup".to_owned()));
        fixture.a.set_drained(true);
        trip(&fixture.b);
        assert_eq!(names(), ["backup"; 10]);
        fixture.backup.set_failing(true, Duration::ZERO);
        let refusal = fixture.begin(&SELECTION, &[]).unwrap_err();
        assert!(matches!(refusal, NoBackend::NoneUsable(Some(_))), "the circuit's time is told: {refusal:?}");
        fixture.b.set_failing(true, Duration::ZERO);
        assert_eq!(fixture.begin(&SELECTION, &[]), Err(NoBackend::NoneUsable(None)));
    }

    #[test]
    fn sticky_client_keeps_backend_while_usable() {
        let fixture = fixture(0);
        let sticky_id = fixture.b.sticky_id.clone();
        let selection = Selection { sticky_id: Some(&sticky_id), ..SELECTION };
        for _ in 0..4 {
            assert_eq!(fixture.begin(&selection, &[]).unwrap(), "b");
        }
        assert_eq!(fixture.begin(&selection, &[&fixture.b]).unwrap(), "a");
        fixture.b.set_drained(true);
        assert_eq!(fixture.begin(&selection, &[]).unwrap(), "a");
        assert!(fixture.begin(&Selection { sticky_id: Some("unknown"), ..SELECTION }, &[]).is_ok());
    }

    #[test]
    fn backends_at_inflight_limit_are_all_busy() {
        let fixture = fixture(0);
        let selection = Selection { limit: 1, ..SELECTION };
        let _first = fixture.pool.begin_attempt(&selection, &[]).unwrap();
        let second = fixture.pool.begin_attempt(&selection, &[]).unwrap();
        assert_eq!(fixture.begin(&selection, &[]).unwrap(), "backup", "it is there for this");
        let _third = begin(&fixture.backup);
        assert_eq!(fixture.begin(&selection, &[]), Err(NoBackend::AllBusy));
        drop(second);
        assert!(fixture.begin(&selection, &[]).is_ok());
    }

    #[test]
    fn pool_below_panic_threshold_uses_all_backends() {
        let fixture = fixture(60);
        let names = || {
            let mut names: Vec<_> = (0..10).map(|_| fixture.begin(&SELECTION, &[]).unwrap()).collect();
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
    fn route_without_breaker_ignores_open_circuits() {
        let fixture = fixture(0);
        trip(&fixture.a);
        trip(&fixture.b);
        let selection = Selection { respects_circuits: false, ..SELECTION };
        assert_ne!(fixture.begin(&selection, &[]).unwrap(), "backup");
    }
}
