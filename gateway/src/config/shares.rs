//! Distribution of a virtual host's requests among tags: by fixed shares, or by a step-by-step rollout.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Percent, Secs};

/// `[[virtual_hosts.split]]`: a tag and its fixed share of the virtual host's requests.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Share {
    /// Tag of the backends to which the share of the requests is forwarded.
    pub tag: String,
    /// Share of the virtual host's requests.
    pub percent: Percent,
}

/// `[virtual_hosts.rollout]`: a step-by-step move of requests from `enabled_backends_tag` to another tag. The gateway
/// undoes the move if the new tag has more errors or a higher latency than allowed.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rollout {
    /// New tag, to which the requests move.
    pub to: String,
    /// Share of the requests that the new tag gets at each step; the last share must be 100.
    pub steps: Vec<Percent>,
    /// Minimum duration of each step.
    pub pause_secs: Secs,
    /// Maximum difference between the tags' shares of 5xx responses (new minus old), in percentage points.
    pub max_error_gap_percent: f64,
    /// Maximum increase of the mean latency from the old tag to the new tag, in percent.
    pub max_latency_gap_percent: f64,
    /// Minimum number of responses of the new tag in a step; with fewer, the step is not judged.
    pub min_requests: u64,
    /// Index of the current step, counted from 0; written by the gateway.
    pub step: usize,
    /// State of the rollout; written by the gateway.
    pub state: RolloutState,
    /// Reason why the rollout ended; empty while it is running.
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
    /// Rollout is running, so requests are divided by the current step.
    #[default]
    Running,
    /// Rollout is complete: the new tag gets all requests.
    Done,
    /// Rollout was undone by the gateway because the new tag did worse; the old tag gets all requests again.
    RolledBack,
    /// Rollout was stopped by an operator; the old tag gets all requests again.
    Aborted,
}

impl Rollout {
    /// Returns the current share of the new tag; `None` if the rollout is not running.
    pub fn share(&self) -> Option<Percent> {
        let running = self.state == RolloutState::Running;
        running.then(|| self.steps.get(self.step).copied()).flatten()
    }
}
