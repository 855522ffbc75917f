//! Distribution of a virtual host's requests between tags: by percent, or moved step by step.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Percent, Secs};

/// `[[virtual_hosts.split]]`: a tag that gets a share of the requests.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Share {
    /// Tag of the backends that get the share.
    pub tag: String,
    /// Share of the requests.
    pub percent: Percent,
}

/// `[virtual_hosts.rollout]`: a step-by-step move from `enabled_backends_tag` to another tag. The move is rolled back
/// automatically if the new tag does worse than the old one.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rollout {
    /// Tag to which the requests move.
    pub to: String,
    /// Share of the new tag at each step; the last step is 100.
    pub steps: Vec<Percent>,
    /// Minimum duration of a step.
    pub pause_secs: Secs,
    /// Maximum difference between the tags' shares of 5xx responses, in percentage points.
    pub max_error_gap_percent: f64,
    /// Maximum increase of the new tag's mean latency over the old tag's, in percent.
    pub max_latency_gap_percent: f64,
    /// Number of requests that the new tag must have answered before a step is judged.
    pub min_requests: u64,
    /// Index of the current step, from 0.
    pub step: usize,
    /// State of the rollout.
    pub state: RolloutState,
    /// Reason why the rollout ended.
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

/// State of a rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RolloutState {
    /// Rollout is running.
    #[default]
    Running,
    /// Rollout is complete: the new tag gets all requests.
    Done,
    /// Rollout was undone because the new tag did worse; the old tag gets all requests again.
    RolledBack,
    /// Rollout was ended by an operator; the old tag gets all requests again.
    Aborted,
}

impl Rollout {
    /// Returns the current share of the new tag, if the rollout is running.
    pub fn share(&self) -> Option<Percent> {
        let running = self.state == RolloutState::Running;
        running.then(|| self.steps.get(self.step).copied()).flatten()
    }
}
