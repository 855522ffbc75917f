//! Validation of a virtual host's `split` and `rollout`. The tags must differ, and the shares must add up to at most
//! 100 percent. A rollout cannot run beside a `split`.

use std::collections::HashSet;

use super::Faults;
use crate::config::Percent;
use crate::config::fields::is_cookie_name;
use crate::config::schema::{Config, VirtualHost};
use crate::config::shares::{Rollout, RolloutState};

/// Maximum number of steps of a rollout.
const MAX_STEPS: usize = 100;

/// Adds every fault of `split`, `split_cookie` and `rollout`, except references to unknown tags.
pub(super) fn shares(config: &Config, faults: &mut Faults) {
    for (i, host) in config.virtual_hosts.iter().enumerate() {
        let at = format!("virtual_hosts/{i}");
        split(host, &at, faults);
        cookie(host, &at, faults);
        if let Some(wanted) = &host.rollout {
            rollout(host, wanted, &format!("{at}/rollout"), faults);
        }
    }
}

fn split(host: &VirtualHost, at: &str, faults: &mut Faults) {
    let mut seen = HashSet::from([host.enabled_backends_tag.as_str()]);
    for (j, share) in host.split.iter().enumerate() {
        let at = format!("{at}/split/{j}");
        if share.tag.is_empty() {
            faults.add(at, "a share needs a `tag`, the tag of the backends that get it");
        } else if !seen.insert(&share.tag) {
            let detail = format!("'{}' already has a share; `enabled_backends_tag` gets the rest", share.tag);
            faults.add(format!("{at}/tag"), detail);
        }
    }
    let sum: u32 = host.split.iter().map(|share| u32::from(share.percent.get())).sum();
    if sum > 100 {
        faults
            .add(format!("{at}/split"), format!("the shares add up to {sum} percent; expected at most 100"));
    }
}

fn cookie(host: &VirtualHost, at: &str, faults: &mut Faults) {
    let name = &host.split_cookie;
    if !name.is_empty() && !is_cookie_name(name) {
        faults.add(format!("{at}/split_cookie"), format!("{name:?} cannot be the name of a cookie"));
    }
}

fn rollout(host: &VirtualHost, rollout: &Rollout, at: &str, faults: &mut Faults) {
    let running = rollout.state == RolloutState::Running;
    if rollout.to.is_empty() {
        faults.add(at, "a rollout needs `to`, the tag to which the requests move");
    } else if running && rollout.to == host.enabled_backends_tag {
        faults.add(format!("{at}/to"), format!("'{}' already gets all requests", rollout.to));
    }
    if running && !host.split.is_empty() {
        faults.add(
            at,
            "a rollout cannot run beside a `split`, because both set the shares of the tags; \
                        remove one of the two",
        );
    }
    let rises = rollout.steps.windows(2).all(|pair| pair[0] < pair[1]);
    let begins = rollout.steps.first().is_some_and(|first| first.get() > 0);
    if !rises || !begins || rollout.steps.last() != Some(&Percent::ALL) || rollout.steps.len() > MAX_STEPS {
        let detail =
            format!("expected at most {MAX_STEPS} percentages that rise to 100, as in [1, 10, 50, 100]");
        faults.add(format!("{at}/steps"), detail);
    } else if rollout.step >= rollout.steps.len() {
        faults.add(format!("{at}/step"), format!("there are {} steps, counted from 0", rollout.steps.len()));
    }
    for (key, gap) in [
        ("max_error_gap_percent", rollout.max_error_gap_percent),
        ("max_latency_gap_percent", rollout.max_latency_gap_percent),
    ] {
        if !gap.is_finite() || gap < 0.0 {
            faults.add(format!("{at}/{key}"), format!("{gap} is not a valid gap; expected 0 or more"));
        }
    }
}
