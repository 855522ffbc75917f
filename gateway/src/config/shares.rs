//! How the requests of a virtual host are shared between tags: by percent, or moved step by step.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Percent, Secs};

/// `[[virtual_hosts.split]]`: a tag that gets a share of the requests.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Share {
    /// The tag of the backends that get it.
    pub tag: String,
    /// How much of the requests that is.
    pub percent: Percent,
}

/// `[virtual_hosts.rollout]`: a move from `enabled_backends_tag` to another tag, step by step, that goes back by
/// itself where the new tag does worse than the old one.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rollout {
    /// The tag to move to.
    pub to: String,
    /// Its share at each step; the last one is 100.
    pub steps: Vec<Percent>,
    /// How long a step lasts at least.
    pub pause_secs: Secs,
    /// By how many points the share of 5xx answers may be higher than with the old tag.
    pub max_error_gap_percent: f64,
    /// By how much of the old tag's mean latency the new tag's may be higher.
    pub max_latency_gap_percent: f64,
    /// How many requests the new tag must have answered before a step is judged.
    pub min_requests: u64,
    /// Which step it is at, counted from 0.
    pub step: usize,
    /// Whether it goes on, or how it ended.
    pub state: RolloutState,
    /// Why it ended as it did.
    pub reason: String,
}

impl Default for Rollout {
    fn default() -> Self {
        Rollout {
            to: String::new(),
            steps: [1, 10, 50, 100].into_iter().filter_map(|step| Percent::try_from(step).ok()).collect(),
            pause_secs: Secs::new(60),
            max_error_gap_percent: 1.0,
            max_latency_gap_percent: 25.0,
            min_requests: 50,
            step: 0,
            state: RolloutState::Running,
            reason: String::new(),
        }
    }
}

/// Whether a rollout goes on, or how it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RolloutState {
    /// It goes on.
    #[default]
    Running,
    /// The new tag has everything.
    Done,
    /// The new tag did worse, and the old one has everything again.
    RolledBack,
    /// Somebody ended it, and the old tag has everything again.
    Aborted,
}

impl Rollout {
    /// The new tag's share now, where the rollout goes on.
    pub fn share(&self) -> Option<Percent> {
        let running = self.state == RolloutState::Running;
        running.then(|| self.steps.get(self.step).copied()).flatten()
    }
}
