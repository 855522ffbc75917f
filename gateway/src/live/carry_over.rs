//! Keeps ended rollouts ended. An older configuration may still list a rollout as running although it has ended
//! since. The functions of this file mark such a rollout as ended.

use serde_json::{Value, json};

use crate::config::{Config, Rollout, RolloutState, VirtualHost};

/// Returns the configuration `earlier` for a rollback to `revision`. A running rollout of `earlier` is marked
/// as aborted, unless its virtual host has a running rollout to the same tag in `now`.
pub(super) fn rolled_back_to(earlier: &Config, now: &Config, revision: u64) -> Value {
    with_ends(earlier, |host| {
        let now = now.virtual_host(&host.domain).and_then(|now| now.rollout.as_ref());
        let target = host.rollout.as_ref().map(|rollout| &rollout.to);
        let continues = now.is_some_and(|now| now.state == RolloutState::Running && Some(&now.to) == target);
        let reason = format!("rolled back to revision {revision}");
        (!continues).then_some((RolloutState::Aborted, reason))
    })
}

/// Returns the configuration of `file`, which was edited while the gateway could not write to it. A rollout
/// that has ended in `now` is marked as ended in the result.
pub(super) fn edited_meanwhile(file: &Config, now: &Config) -> Value {
    with_ends(file, |host| {
        let now = now.virtual_host(&host.domain)?.rollout.as_ref()?;
        let is_same = host.rollout.as_ref().is_some_and(|rollout| rollout.to == now.to);
        (is_same && now.state != RolloutState::Running).then(|| (now.state, now.reason.clone()))
    })
}

/// Returns `config` as JSON. Each running rollout gets the end state and the reason that `end` returns for its
/// virtual host; `None` leaves the rollout running.
fn with_ends(config: &Config, end: impl Fn(&VirtualHost) -> Option<(RolloutState, String)>) -> Value {
    let mut json = config.to_json();
    for (i, host) in config.virtual_hosts.iter().enumerate() {
        let runs = host.rollout.as_ref().and_then(Rollout::share).is_some();
        if let Some((state, reason)) = runs.then(|| end(host)).flatten() {
            let rollout = &mut json["virtual_hosts"][i]["rollout"];
            rollout["state"] = json!(state);
            rollout["reason"] = json!(reason);
        }
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(rollout: &str) -> Config {
        let text = format!(
            "[[virtual_hosts]]\ndomain = \"a.example\"\nenabled_backends_tag = \"a\"\n{rollout}\n\
             [[backends]]\nid = \"one\"\naddress = \"127.0.0.1:1\"\ntags = [\"a\", \"b\", \"c\"]\n"
        );
        Config::parse("file", &text).unwrap()
    }

    fn state(json: &Value) -> &str {
        json["virtual_hosts"][0]["rollout"]["state"].as_str().unwrap()
    }

    #[test]
    fn roll_back_restarts_and_stops_no_rollout() {
        let running = config("rollout = { to = \"b\" }");
        assert_eq!(state(&rolled_back_to(&running, &config(""), 3)), "aborted");
        assert_eq!(
            state(&rolled_back_to(&running, &config("rollout = { to = \"b\", state = \"done\" }"), 3)),
            "aborted"
        );
        assert_eq!(state(&rolled_back_to(&running, &running, 3)), "running");
        let to_another_tag = config("rollout = { to = \"c\" }");
        assert_eq!(state(&rolled_back_to(&running, &to_another_tag, 3)), "aborted");
    }

    #[test]
    fn edited_file_restarts_no_rollout_but_may_begin_one() {
        let ended = config("rollout = { to = \"b\", state = \"rolled_back\", reason = \"slow\" }");
        let file = edited_meanwhile(&config("rollout = { to = \"b\" }"), &ended);
        assert_eq!(
            (state(&file), file["virtual_hosts"][0]["rollout"]["reason"].as_str()),
            ("rolled_back", Some("slow"))
        );
        assert_eq!(state(&edited_meanwhile(&config("rollout = { to = \"c\" }"), &ended)), "running");
    }
}
