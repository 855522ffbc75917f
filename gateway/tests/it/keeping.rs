use std::time::Duration;

use gateway::config::Config;
use serde_json::json;
use testkit::{Client, Origin, Process, dead_address, eventually};

use crate::support::{ConfigFile, GATEWAY, Gateway, two_tags};

const SWITCH: &str = "/domains/shop.example/switch";

pub(crate) async fn switch(gateway: &Gateway, tag: &str) -> testkit::Response {
    gateway.api("POST", SWITCH, Some(json!({"new_tag": tag}))).await
}

pub(crate) async fn tag(gateway: &Gateway) -> String {
    let domain = gateway.read("/domains/shop.example").await;
    domain["enabled_backends_tag"].as_str().unwrap().to_owned()
}

pub(crate) fn text() -> String {
    two_tags(dead_address(), dead_address(), "")
}

#[tokio::test]
async fn a_change_is_one_line_of_the_file_and_survives_a_restart() {
    let gateway = Gateway::start_with_config(&text()).await;
    let before = std::fs::read_to_string(gateway.file()).unwrap();
    assert_eq!(switch(&gateway, "b").await.status, 200);
    let after = std::fs::read_to_string(gateway.file()).unwrap();
    assert_eq!(after, before.replace("enabled_backends_tag = \"a\"", "enabled_backends_tag = \"b\""));
    assert_eq!(tag(&gateway.killed_and_started_again().await).await, "b");
}

/// The file must never contain half of a new text, at any time at which the process may die.
#[tokio::test]
async fn a_kill_at_any_moment_leaves_the_old_or_the_new_state() {
    const ROUNDS: usize = 10;
    const WRITES: usize = 20;
    let mut gateway = Gateway::start_with_config(&text()).await;
    for round in 0..ROUNDS {
        let mut kept = tag(&gateway).await;
        for write in 1..=WRITES {
            let next = if kept == "a" { "b" } else { "a" };
            if write < WRITES {
                assert_eq!(switch(&gateway, next).await.status, 200);
                kept = next.to_owned();
                continue;
            }
            let request = gateway.api_request("POST", SWITCH, json!({"new_tag": next}).to_string());
            let answer = tokio::spawn(async move { Client::new().try_send(request).await });
            // Each round kills at another time. A write takes one to a few milliseconds.
            tokio::time::sleep(Duration::from_micros(400 * round as u64)).await;
            gateway = gateway.killed_and_started_again().await;
            let now = tag(&gateway).await;
            match answer.await.unwrap() {
                Ok(_) => assert_eq!(now, next, "what was answered is kept"),
                Err(_) => assert!(now == kept || now == next, "{now}"),
            }
        }
        let text = std::fs::read_to_string(gateway.file()).unwrap();
        assert!(Config::parse("file", &text).is_ok() && text.starts_with("# Ours."), "{text}");
    }
}

/// Returns true if a test may mount a private file system. If not, the caller skips the test, but in CI the
/// test fails.
pub(crate) fn has_own_disks() -> bool {
    let possible =
        std::process::Command::new("unshare").args(["--mount", "--map-root-user", "true"]).status();
    let possible = possible.is_ok_and(|status| status.success());
    assert!(
        possible || std::env::var_os("CI").is_none(),
        "`unshare --mount --map-root-user` does not work here"
    );
    if !possible {
        eprintln!(
            "SKIPPED: a disk of its own needs `unshare --mount --map-root-user`, which does not work here"
        );
    }
    possible
}

/// Runs in a mount namespace, with the configuration on a small file system that is full.
#[tokio::test]
async fn a_full_disk_leaves_everything_as_it_was_and_is_told() {
    if !has_own_disks() {
        return;
    }
    let file = ConfigFile::new(&text());
    let directory = tempfile::tempdir().unwrap();
    let (from, disk) = (file.path().display().to_string(), directory.path().display().to_string());
    let script = format!(
        "mount -t tmpfs -o size=64k none {disk} && cp {from} {disk}/gateway.toml && \
         (head -c 1M /dev/zero > {disk}/filler || true) && exec {GATEWAY} -c {disk}/gateway.toml"
    );
    let arguments = ["--mount", "--map-root-user", "sh", "-c", &script];
    let process = Process::spawn("unshare", &arguments, &[]);
    let inside = format!("/proc/{}/root{disk}", process.id());
    let gateway = Gateway::from_process(process, file).await;
    let full = switch(&gateway, "b").await;
    assert_eq!(full.status, 500, "{full:?}");
    assert!(
        full.text().contains("No space left on device") && full.text().contains("has not changed"),
        "{full:?}"
    );
    assert_eq!(tag(&gateway).await, "a");
    assert_eq!(std::fs::read_to_string(format!("{inside}/gateway.toml")).unwrap(), text_of(&gateway));
    assert_eq!(gateway.read("/config/history").await.as_array().unwrap().len(), 1);

    std::fs::remove_file(format!("{inside}/filler")).unwrap();
    assert_eq!(switch(&gateway, "b").await.status, 200);
    assert_eq!(tag(&gateway).await, "b");
    assert!(std::fs::read_to_string(format!("{inside}/gateway.toml")).unwrap().contains("tag = \"b\""));
}

pub(crate) fn text_of(gateway: &Gateway) -> String {
    std::fs::read_to_string(gateway.file()).unwrap()
}

/// The file was edited, and the gateway does not know it yet when the API gets a change.
#[tokio::test]
async fn an_edit_of_the_file_is_not_lost_by_a_change() {
    let gateway = Gateway::start_with_config(&text()).await;
    let edited = text_of(&gateway).replace("# Ours.", "# Ours, and edited.\nempty_tags = [\"c\"]");
    gateway.edit(&edited);
    assert_eq!(switch(&gateway, "b").await.status, 200);
    assert_eq!(
        text_of(&gateway),
        edited.replace("enabled_backends_tag = \"a\"", "enabled_backends_tag = \"b\"")
    );
    assert_eq!(gateway.read("/config").await["empty_tags"], json!(["c"]));

    // An edit that the gateway cannot accept must not be lost either, for example one with an unresolvable name
    // or a wrong key.
    let before = text_of(&gateway);
    gateway.edit(&before.replace("[[backends]]\nid = \"web-b\"", "[[backends]]\nid = \"c\"\naddress = \"nowhere.invalid:1\"\ntags = [\"c\"]\n[[backends]]\nid = \"web-b\""));
    for _ in 0..2 {
        let refused = switch(&gateway, "a").await;
        assert_eq!(refused.status, 409, "{refused:?}");
        assert!(refused.text().contains("cannot resolve 'nowhere.invalid:1'"), "{refused:?}");
    }
    assert!(text_of(&gateway).contains("nowhere.invalid"), "the edit is still there");
    gateway.edit(&before.replace("[proxy]", "[prxy]"));
    let refused = switch(&gateway, "a").await;
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(refused.text().contains("unknown key `prxy`"), "{refused:?}");
    assert!(text_of(&gateway).contains("[prxy]"), "the edit is still there");
    assert_eq!(tag(&gateway).await, "b");
    let reload = gateway.api("POST", "/config/reload", None).await;
    assert_eq!((reload.status.as_u16(), &reload.json()["errors"][0]["pointer"]), (422, &json!("/prxy")));
}

#[tokio::test]
async fn a_reload_can_be_asked_for() {
    let gateway = Gateway::start_with_config(&text()).await;
    let reload = gateway.api("POST", "/config/reload", None).await;
    assert_eq!((reload.status.as_u16(), &reload.json()["changes"]), (200, &json!([])));
    gateway.process.line("by=\"127.0.0.1\"").await;
}

/// A change must not depend on names that it does not concern.
#[tokio::test]
async fn unresolvable_name_does_not_block_other_changes() {
    let origin = Origin::start().await;
    let address = origin.address().to_string();
    let by_name = address.replace("127.0.0.1", "localhost");
    let config = two_tags(origin.address(), origin.address(), "").replace(&address, &by_name);
    let hosts = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(hosts.path(), "127.0.0.1 localhost\n").unwrap();
    if !has_own_disks() {
        return;
    }
    let file = ConfigFile::new(&config);
    let script = format!(
        "mount --bind {} /etc/hosts && exec {GATEWAY} -c {}",
        hosts.path().display(),
        file.path().display()
    );
    let process = Process::spawn("unshare", &["--mount", "--map-root-user", "sh", "-c", &script], &[]);
    let gateway = Gateway::from_process(process, file).await;
    std::fs::write(hosts.path(), "127.0.0.1 elsewhere\n").unwrap();
    assert_eq!(switch(&gateway, "b").await.status, 200);
    assert_eq!(tag(&gateway).await, "b");
}

#[tokio::test]
async fn changes_without_persist_are_lost_at_a_restart() {
    let text = text().replace("[health_check]", "[admin]\npersist = false\n[health_check]");
    let gateway = Gateway::start_with_config(&text).await;
    assert_eq!(switch(&gateway, "b").await.status, 200);
    assert_eq!((tag(&gateway).await, text_of(&gateway)), ("b".to_owned(), text.clone()));
    gateway.edit(&format!("# Only a comment.\n{text}"));
    gateway.edit(&format!("# Another comment.\n{text}empty_tags = []\n").replace("empty_tags = []\n", ""));
    assert_eq!(switch(&gateway, "b").await.status, 200);
    assert_eq!(tag(&gateway).await, "b", "a comment is no reason to undo what was changed");
    assert_eq!(tag(&gateway.killed_and_started_again().await).await, "a");
}

/// Variables keep their precedence over the file when the API changes the configuration.
#[tokio::test]
async fn keys_set_by_a_variable_cannot_be_changed() {
    let file = ConfigFile::new(&text());
    let gateway = Gateway::start_from(file, &[("PINGORA_TIMEOUT_SECONDS", "7")]).await;
    let mut config = gateway.read("/config").await;
    assert_eq!(config["proxy"]["request_timeout_secs"], 7);
    config["rate_limit"] = json!({"requests": 10});
    assert_eq!(gateway.api("PUT", "/config", Some(config.clone())).await.status, 200);
    assert!(!text_of(&gateway).contains("request_timeout_secs"), "it is not written to the file");
    config["proxy"]["request_timeout_secs"] = json!(8);
    let refused = gateway.api("PUT", "/config", Some(config)).await;
    assert_eq!(refused.status, 422);
    assert_eq!(refused.json()["errors"][0]["pointer"], "/proxy/request_timeout_secs");
    assert!(refused.text().contains("PINGORA_TIMEOUT_SECONDS"), "{refused:?}");
}

/// The configuration file was replaced with a pipe. A change must not block on it.
#[tokio::test]
async fn configuration_from_a_pipe_is_changed_in_memory() {
    let gateway = Gateway::start_with_config(&text()).await;
    std::fs::remove_file(gateway.file()).unwrap();
    let made = std::process::Command::new("mkfifo").arg(gateway.file()).status().unwrap();
    assert!(made.success());
    assert_eq!(switch(&gateway, "b").await.status, 200);
    assert_eq!(gateway.api("POST", "/config/reload", None).await.status, 200);
    assert_eq!(tag(&gateway).await, "b");
}

/// With `--backend`, the file configures the gateway, but the backends and virtual hosts come from the option.
#[tokio::test]
async fn backends_from_options_are_changed_in_memory() {
    let origin = Origin::start().await;
    let file = ConfigFile::new(
        "[proxy]\nlisten_addr_http = \"127.0.0.1:0\"\nmanagement_api_addr = \"127.0.0.1:0\"\n\
         [metrics]\nlisten_addr = \"127.0.0.1:0\"\n",
    );
    let (path, backend) = (file.path().display().to_string(), origin.address().to_string());
    let process = Process::spawn(GATEWAY, &["-c", &path, "--backend", &backend], &[]);
    let before = std::fs::read_to_string(file.path()).unwrap();
    let gateway = Gateway::from_process(process, file).await;
    let domain = json!({"domain": "new.example", "enabled_backends_tag": "default"});
    assert_eq!(gateway.api("POST", "/domains", Some(domain)).await.status, 201);
    assert_eq!(gateway.read("/domains").await.as_array().unwrap().len(), 2);
    assert_eq!(text_of(&gateway), before);
    eventually!(gateway.get("/").await.status == 200);
}
