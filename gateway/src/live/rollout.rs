//! Guarded rollouts: a virtual host moves to another tag step by step. The gateway rolls it back by itself if
//! requests to the new tag fail more often or take longer than requests to the old tag.
//!
//! The state of a rollout is part of the configuration. It is therefore visible, saved and undone like any
//! other setting, and the rollout continues after a restart. This file decides when the next step begins, by
//! the responses of both tags since the current step began.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::change::{Change, ChangeError, Persistence};
use super::store::Store;
use crate::config::{Rollout, RolloutState, VirtualHost};
use crate::telemetry::Metrics;
use crate::telemetry::handles::TagTotals;

/// Interval between two looks at the rollouts.
const LOOK: Duration = Duration::from_millis(200);
/// Maximum difference between two mean latencies that counts as noise, in milliseconds. Such a difference is
/// ignored, no matter how large it is in percent.
const NOISE_MS: f64 = 1.0;

/// Rollouts in progress, and the operations on them.
pub struct Rollouts {
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    steps: Mutex<Steps>,
}

#[derive(Default)]
struct Steps {
    /// Current step of each running rollout, by domain.
    known: HashMap<String, Step>,
    /// Domains for which a new rollout has been started since the last look.
    begun: HashSet<String>,
}

/// Current step of a rollout.
#[derive(Clone)]
struct Step {
    number: usize,
    to: String,
    began: Instant,
    /// Totals of the old tag and the new tag when the step began.
    at_start: [TagTotals; 2],
    /// Last measurements of the old tag that include requests; `None` before its first request.
    baseline: Option<Measured>,
    progress: Progress,
}

/// Progress of a rollout's current step.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Progress {
    /// Duration of the step so far, in seconds.
    pub step_secs: u64,
    /// Measurements of the old tag since the step began. If the old tag has had no requests since then, these
    /// are its last measurements.
    pub old: Measured,
    /// Measurements of the new tag since the step began.
    pub new: Measured,
    /// Condition that the next step waits for.
    pub waiting_for: String,
}

/// Measurements of the responses of a tag over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Measured {
    /// Number of responses.
    pub requests: u64,
    /// Percentage of responses with a 5xx status.
    pub error_percent: f64,
    /// Mean time until the response head, in milliseconds.
    pub latency_ms: f64,
}

/// Decision about a step.
#[derive(Clone, Debug, PartialEq)]
enum Judgement {
    Wait(String),
    Next,
    RollBack(String),
}

impl Rollouts {
    /// Creates the state of the rollouts of the configuration in `store`.
    pub fn new(store: Arc<Store>, metrics: Arc<Metrics>) -> Self {
        Rollouts { store, metrics, steps: Mutex::default() }
    }

    /// Returns the progress of the rollout of `domain`, or `None` if no rollout is running.
    pub fn progress(&self, domain: &str) -> Option<Progress> {
        self.steps.lock().known.get(domain).map(|step| step.progress.clone())
    }

    /// Forgets the measurements for `domain`, because a new rollout begins there.
    pub fn begin(&self, domain: &str) {
        let mut steps = self.steps.lock();
        steps.known.remove(domain);
        steps.begun.insert(domain.to_owned());
    }

    /// Looks at every running rollout once, and takes the steps that are due.
    fn look(&self) {
        let snapshot = self.store.load();
        let running = snapshot.config.virtual_hosts.iter().filter_map(|host| {
            host.rollout.as_ref().filter(|rollout| rollout.state == RolloutState::Running).map(|r| (host, r))
        });
        // The steps are copied so that the lock can be released: a caller of `progress` must not wait for a
        // change that this function makes.
        let mut before = {
            let mut steps = self.steps.lock();
            let begun = std::mem::take(&mut steps.begun);
            let mut known = steps.known.clone();
            known.retain(|domain, _| !begun.contains(domain));
            known
        };
        let mut steps = HashMap::new();
        for (host, rollout) in running {
            let known = before.remove(&host.domain);
            let mut step = self.step(host, rollout, known);
            let judgement = step.judge(rollout, self.totals(host, rollout), &host.enabled_backends_tag);
            self.act(host, rollout, judgement, &mut step.progress.waiting_for);
            steps.insert(host.domain.clone(), step);
        }
        self.steps.lock().known = steps;
        self.store.write_again();
    }

    /// Returns `known` if the rollout is still at that step, or else a new step that begins now.
    fn step(&self, host: &VirtualHost, rollout: &Rollout, known: Option<Step>) -> Step {
        let baseline = match known.filter(|step| step.to == rollout.to) {
            Some(step) if step.number == rollout.step => return step,
            before => before.and_then(|step| step.baseline),
        };
        Step {
            number: rollout.step,
            to: rollout.to.clone(),
            began: Instant::now(),
            at_start: self.totals(host, rollout),
            baseline,
            progress: Progress::default(),
        }
    }

    /// Returns the totals of the old tag and the new tag so far.
    fn totals(&self, host: &VirtualHost, rollout: &Rollout) -> [TagTotals; 2] {
        [&host.enabled_backends_tag, &rollout.to].map(|tag| self.metrics.tag(&host.domain, tag).totals())
    }

    /// Carries out a judgement. If the rollout has to wait, `waiting_for` receives the condition.
    fn act(&self, host: &VirtualHost, rollout: &Rollout, judgement: Judgement, waiting_for: &mut String) {
        let domain = host.domain.as_str();
        let next = rollout.step + 1;
        let (persistence, patch) = match judgement {
            Judgement::Wait(what) => {
                *waiting_for = what;
                return;
            }
            Judgement::Next if next < rollout.steps.len() => {
                (Persistence::Required, json!({ "rollout": { "step": next } }))
            }
            Judgement::Next => {
                let done = json!({ "state": RolloutState::Done });
                (Persistence::Required, json!({ "enabled_backends_tag": rollout.to, "rollout": done }))
            }
            Judgement::RollBack(reason) => {
                warn!(domain, to = rollout.to, reason, "the rollout is rolled back");
                let ended = json!({ "state": RolloutState::RolledBack, "reason": reason });
                // The rollback happens even if the file cannot be written, because a full disk must not keep
                // users on a worse tag.
                (Persistence::Attempted, json!({ "rollout": ended }))
            }
        };
        match self.change(domain, rollout, persistence, &patch) {
            Ok(()) if persistence == Persistence::Attempted => {}
            Ok(()) => info!(domain, to = rollout.to, step = rollout.step, "the rollout has taken this step"),
            // The rollout was changed in the meantime; the next look judges its new state.
            Err(ChangeError::Refused(())) => {}
            Err(ChangeError::Invalid(error)) if persistence == Persistence::Required => {
                let reason = format!("its next step is refused: {error}");
                self.act(host, rollout, Judgement::RollBack(reason), waiting_for);
            }
            Err(error) => {
                let error = error_text(&error);
                if *waiting_for != error {
                    warn!(domain, error, "the rollout cannot take its next step; the gateway tries again");
                    *waiting_for = error;
                }
            }
        }
    }

    /// Applies `patch` to the virtual host, if its rollout has not changed since the judgement.
    fn change(
        &self,
        domain: &str,
        rollout: &Rollout,
        persistence: Persistence,
        patch: &Value,
    ) -> Result<(), ChangeError<()>> {
        let by = format!("rollout of {domain}");
        let applied = self.store.change(Change::by(&by, persistence), |config, json| {
            let mut hosts = config.virtual_hosts.iter();
            let index =
                hosts.position(|host| host.domain == domain && host.rollout.as_ref() == Some(rollout));
            let host = index.and_then(|index| json["virtual_hosts"].get_mut(index)).ok_or(())?;
            patched(host, patch);
            Ok(())
        });
        applied.map(|_| ())
    }
}

/// Sets the values of `patch` in `json`, recursively for nested tables.
fn patched(json: &mut Value, patch: &Value) {
    match patch {
        Value::Object(patch) => patch.iter().for_each(|(key, patch)| patched(&mut json[key], patch)),
        value => json.clone_from(value),
    }
}

fn error_text(error: &ChangeError<()>) -> String {
    match error {
        ChangeError::NotKept { file, error } => format!("{file} to be writable: {error}"),
        ChangeError::FileIsWrong(error) => format!("a file without faults: {error}"),
        ChangeError::Invalid(error) => format!("a configuration that allows the rollback: {error}"),
        ChangeError::Refused(()) | ChangeError::OutOfDate(_) => String::new(),
    }
}

impl Step {
    /// Updates the measurements with `totals`, and judges the step by them.
    fn judge(&mut self, rollout: &Rollout, totals: [TagTotals; 2], old_tag: &str) -> Judgement {
        let elapsed = self.began.elapsed();
        let [old, new] = [0, 1].map(|i| Measured::between(self.at_start[i], totals[i]));
        if old.requests > 0 {
            self.baseline = Some(old);
        }
        self.progress.step_secs = elapsed.as_secs();
        (self.progress.old, self.progress.new) = (self.baseline.unwrap_or_default(), new);
        judge(rollout, old_tag, self.baseline, new, elapsed)
    }
}

impl Measured {
    /// Returns the measurements between two totals.
    fn between(before: TagTotals, after: TagTotals) -> Self {
        let requests = after.answered.saturating_sub(before.answered);
        let failed = after.failed.saturating_sub(before.failed);
        let share = |part: f64| if requests == 0 { 0.0 } else { part / requests as f64 };
        Measured {
            requests,
            error_percent: 100.0 * share(failed as f64),
            latency_ms: 1000.0 * share((after.latency_secs - before.latency_secs).max(0.0)),
        }
    }
}

fn judge(
    rollout: &Rollout,
    old_tag: &str,
    baseline: Option<Measured>,
    new: Measured,
    elapsed: Duration,
) -> Judgement {
    if new.requests < rollout.min_requests {
        return Judgement::Wait(format!("requests: {} of {}", new.requests, rollout.min_requests));
    }
    let old = baseline.unwrap_or_default();
    if new.error_percent - old.error_percent > rollout.max_error_gap_percent {
        return Judgement::RollBack(format!(
            "with {}, {:.1} % of {} requests failed, with {old_tag} {:.1} % of {}: a gap of more than {} %",
            rollout.to,
            new.error_percent,
            new.requests,
            old.error_percent,
            old.requests,
            rollout.max_error_gap_percent
        ));
    }
    let bearable = old.latency_ms * (1.0 + rollout.max_latency_gap_percent / 100.0);
    if baseline.is_some() && new.latency_ms > bearable.max(old.latency_ms + NOISE_MS) {
        return Judgement::RollBack(format!(
            "with {}, a request took {:.1} ms on average over {}, with {old_tag} {:.1} ms over {}: more \
             than {} % longer",
            rollout.to,
            new.latency_ms,
            new.requests,
            old.latency_ms,
            old.requests,
            rollout.max_latency_gap_percent
        ));
    }
    let pause = rollout.pause_secs.duration();
    if elapsed < pause {
        return Judgement::Wait(format!("the pause: {} of {} seconds", elapsed.as_secs(), pause.as_secs()));
    }
    Judgement::Next
}

/// Background service that looks at the rollouts until the process shuts down.
pub struct RolloutService(pub Arc<Rollouts>);

#[async_trait]
impl BackgroundService for RolloutService {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                _ = shutdown.changed() => return,
            }
            let rollouts = self.0.clone();
            // A look may write a change to the disk, which must not block the async runtime.
            if tokio::task::spawn_blocking(move || rollouts.look()).await.is_err() {
                warn!("a check of the rollouts has failed; the next one follows");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(requests: u64, error_percent: f64, latency_ms: f64) -> Measured {
        Measured { requests, error_percent, latency_ms }
    }

    fn judged(old: Option<Measured>, new: Measured, secs: u64) -> Judgement {
        let rollout = Rollout { to: "b".to_owned(), ..Rollout::default() };
        judge(&rollout, "a", old, new, Duration::from_secs(secs))
    }

    #[test]
    fn step_waits_for_min_requests_and_its_pause() {
        let old = Some(measured(1000, 0.0, 10.0));
        assert_eq!(
            judged(old, measured(49, 100.0, 0.0), 600),
            Judgement::Wait("requests: 49 of 50".to_owned())
        );
        let pause = Judgement::Wait("the pause: 59 of 60 seconds".to_owned());
        assert_eq!(judged(old, measured(50, 0.0, 10.0), 59), pause);
        assert_eq!(judged(old, measured(50, 1.0, 12.5), 60), Judgement::Next);
    }

    #[test]
    fn worse_new_tag_is_rolled_back_at_once_with_reason() {
        let old = Some(measured(1000, 2.0, 10.0));
        let Judgement::RollBack(reason) = judged(old, measured(100, 3.5, 10.0), 1) else { panic!("stays") };
        assert_eq!(
            reason,
            "with b, 3.5 % of 100 requests failed, with a 2.0 % of 1000: a gap of more than 1 %"
        );
        let Judgement::RollBack(reason) = judged(old, measured(100, 2.0, 13.0), 1) else { panic!("stays") };
        assert!(
            reason.starts_with("with b, a request took 13.0 ms on average over 100, with a 10.0 ms"),
            "{reason}"
        );
    }

    #[test]
    fn noise_is_ignored_and_errors_count_without_baseline() {
        let fast = Some(measured(1000, 0.0, 0.2));
        assert_eq!(judged(fast, measured(100, 0.0, 0.9), 60), Judgement::Next);
        assert_eq!(judged(None, measured(100, 0.5, 500.0), 60), Judgement::Next);
        assert!(matches!(judged(None, measured(100, 1.5, 0.1), 60), Judgement::RollBack(_)));
    }

    #[test]
    fn measurements_cover_the_time_between_two_totals() {
        let before = TagTotals { answered: 100, failed: 10, latency_secs: 5.0 };
        let after = TagTotals { answered: 300, failed: 20, latency_secs: 7.0 };
        assert_eq!(Measured::between(before, after), measured(200, 5.0, 10.0));
        assert_eq!(Measured::between(before, before), measured(0, 0.0, 0.0));
    }
}
