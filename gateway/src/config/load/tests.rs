//! Tests of sources that override each other, and of faults in environment variables.

use std::io::Write;

use super::*;
use crate::config::Secs;
use crate::config::tests::COMPLETE;

fn load_text(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let name = file.path().display().to_string();
    let source = Source::new(Some(file.path().into()), environment(variables), Overrides::default());
    let parsed = source.read().map_err(|error| error.to_string().replace(&name, "file"))?;
    Ok(parsed.config)
}

fn environment(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load_variables(variables: &[(&str, &str)]) -> Result<Config, String> {
    let source = Source::new(None, environment(variables), Overrides::default());
    source.read().map(|parsed| parsed.config).map_err(|error| error.to_string())
}

#[test]
fn a_file_needs_only_hosts_and_backends() {
    let config = load_text(COMPLETE, &[]).unwrap();
    assert_eq!(config.proxy, crate::config::Proxy::default());
    assert_eq!(config.backends[0].id, "one");
}

#[test]
fn without_a_file_one_catch_all_host_serves_the_backends() {
    let config = load_variables(&[]).unwrap();
    assert_eq!(config.virtual_hosts[0].domain, "*");
    assert_eq!(config.backends[0].address, Some("127.0.0.1:3000".parse().unwrap()));
    let health_check = config.health_check.as_ref().unwrap();
    assert!(health_check.path.is_none() && health_check.passes_any_answer());
    assert_eq!(health_check.interval_secs, Secs::new(30));

    let config = load_variables(&[
        ("PINGORA_BACKEND_ADDR", "127.0.0.1:1"),
        ("PINGORA_BACKEND_SERVERS", "127.0.0.1:2, localhost:3"),
    ]);
    let addresses: Vec<_> =
        config.unwrap().backends.into_iter().filter_map(|backend| backend.address).collect();
    assert_eq!(addresses, ["127.0.0.1:2".parse().unwrap(), "localhost:3".parse().unwrap()]);
}

#[test]
fn every_variable_changes_the_config() {
    let values = [
        "127.0.0.1:1",
        "127.0.0.1:2",
        "127.0.0.1:3,127.0.0.1:4",
        "5",
        "6",
        "false",
        "7",
        "/up",
        "debug",
        "0",
        "127.0.0.1:9",
        "round_robin",
        "false",
        "127.0.0.1:10",
        "true",
        "127.0.0.1:11",
        "app.crt",
        "app.key",
    ];
    let variables: Vec<_> = super::super::VARIABLES.into_iter().zip(values).collect();
    assert_eq!(variables.len(), super::super::VARIABLES.len());
    let config = load_variables(&variables).unwrap();
    assert_eq!(config.proxy.listen_addr_http.0, ["127.0.0.1:1".parse().unwrap()]);
    assert_eq!(config.backends.len(), 2);
    assert_eq!(config.proxy.max_connections.get(), 5);
    assert_eq!(config.proxy.request_timeout_secs, Secs::new(6));
    let health_check = config.health_check.as_ref().unwrap();
    assert!(!health_check.enabled);
    assert_eq!(health_check.interval_secs, Secs::new(7));
    assert_eq!(health_check.path.as_deref(), Some("/up"));
    assert_eq!(config.logging.level, "debug");
    assert!(!config.metrics.enabled);
    assert_eq!(config.metrics.listen_addr, "127.0.0.1:9".parse().unwrap());
    assert!(!config.proxy.management_api);
    assert_eq!(config.proxy.management_api_addr, "127.0.0.1:10".parse().unwrap());
    assert_eq!(config.proxy.listen_addr.0, ["127.0.0.1:11".parse().unwrap()]);
    let host = &config.virtual_hosts[0];
    assert_eq!((&host.cert_file.0[0], &host.key_file.0[0]), (&"app.crt".into(), &"app.key".into()));

    let file = load_text(COMPLETE, &variables[2..]).unwrap();
    assert_eq!(file.proxy.max_connections.get(), 5);
    assert_eq!(file.backends.len(), 2, "variables win over the file");
}

#[test]
fn every_bad_variable_is_named() {
    let bad = [
        "nonsense",
        "nonsense",
        "127.0.0.1:1,,",
        "0",
        "-1",
        "maybe",
        "soon",
        "up",
        "loud",
        "2",
        "here",
        "sideways",
        "perhaps",
        "there",
        "perchance",
        "nowhere",
    ];
    let variables: Vec<_> = super::super::VARIABLES.into_iter().zip(bad).collect();
    let error = load_variables(&variables).unwrap_err();
    for (variable, _) in &variables {
        assert!(error.contains(variable), "{variable} not in\n{error}");
    }
    assert_eq!(error.lines().count(), variables.len(), "{error}");
}

#[test]
fn empty_variable_counts_as_not_set() {
    let set =
        [("PINGORA_LISTEN_ADDR", " "), ("PINGORA_LOG_LEVEL", " debug"), ("RUST_LOG", ""), ("PATH", "x")];
    let set = crate::config::set_variables(environment(&set));
    assert_eq!(set, environment(&[("PINGORA_LOG_LEVEL", "debug")]));
}

#[test]
fn unknown_variable_is_refused_with_the_closest_name() {
    for (name, hint) in [
        ("PINGORA_ENABEL_TLS", " (did you mean `PINGORA_ENABLE_TLS`?)"),
        ("PINGORA_LISTEN_ADDRESS", " (did you mean `PINGORA_LISTEN_ADDR`?)"),
        ("PINGORA_WORKERS", ""),
        ("PINGORA_PORT", ""),
    ] {
        let expected = format!("{name}: there is no such variable{hint}");
        assert_eq!(load_variables(&[(name, "1")]).unwrap_err(), expected);
        assert_eq!(load_text(COMPLETE, &[(name, "1")]).unwrap_err(), expected);
    }
}

/// Kubernetes sets these variables in every container of a namespace if a service there is named "pingora".
#[test]
fn service_link_variables_are_ignored() {
    let links = [
        ("PINGORA_SERVICE_HOST", "10.0.0.1"),
        ("PINGORA_SERVICE_PORT", "80"),
        ("PINGORA_SERVICE_PORT_HTTP", "80"),
        ("PINGORA_PORT", "tcp://10.0.0.1:80"),
        ("PINGORA_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("PINGORA_PORT_80_TCP_PROTO", "tcp"),
        ("PINGORA_EDGE_PORT_53_UDP_ADDR", "10.0.0.1"),
    ];
    assert_eq!(crate::config::set_variables(environment(&links)), BTreeMap::new());
    let ours = environment(&[("PINGORA_PORT", "80")]);
    assert_eq!(crate::config::set_variables(ours.clone()), ours);
}

#[test]
fn variables_enable_https_listeners() {
    let enabled = ("PINGORA_ENABLE_TLS", "true");
    let config = load_variables(&[enabled]).unwrap();
    assert_eq!(config.proxy.listen_addr.0, ["127.0.0.1:8443".parse().unwrap()]);
    assert!(config.virtual_hosts[0].cert_file.0.is_empty());

    let (cert, key) = (("PINGORA_TLS_CERT_FILE", "a.crt"), ("PINGORA_TLS_KEY_FILE", "a.key"));
    let error = load_variables(&[enabled, cert]).unwrap_err();
    assert!(
        error.starts_with("PINGORA_TLS_CERT_FILE: ") && error.contains("PINGORA_TLS_KEY_FILE"),
        "{error}"
    );
    let error = load_variables(&[key, cert, ("PINGORA_TLS_ADDR", "127.0.0.1:1")]).unwrap_err();
    assert_eq!(error.matches("set PINGORA_ENABLE_TLS=true, too").count(), 3, "{error}");
    let off = load_variables(&[("PINGORA_ENABLE_TLS", "false"), cert, key]).unwrap();
    assert!(off.proxy.listen_addr.0.is_empty() && off.virtual_hosts[0].cert_file.0.is_empty());
}

#[test]
fn variable_certificates_stay_out_of_the_file() {
    let variables =
        [("PINGORA_ENABLE_TLS", "1"), ("PINGORA_TLS_CERT_FILE", "a.crt"), ("PINGORA_TLS_KEY_FILE", "a.key")];
    let own = "[[virtual_hosts]]\ndomain = \"own.example\"\nenabled_backends_tag = \"a\"\n\
               cert_file = \"own.crt\"\nkey_file = \"own.key\"\n";
    let text = format!("[proxy]\nlisten_addr = \"127.0.0.1:443\"\n{own}{COMPLETE}");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let source = Source::new(Some(file.path().into()), environment(&variables), Overrides::default());
    let parsed = source.read().unwrap();
    let shown: Vec<_> = parsed.config.virtual_hosts.iter().map(|host| &*host.cert_file.0[0]).collect();
    assert_eq!(shown, ["own.crt", "a.crt"]);
    assert_eq!(parsed.text, text);

    let mut new = parsed.config.to_json();
    new["virtual_hosts"][0]["http_to_https"] = true.into();
    let changed = source.change(&parsed, &new).unwrap();
    assert!(!changed.text.contains("a.crt"), "{}", changed.text);
    assert_eq!(changed.config.virtual_hosts[1].cert_file.0, ["a.crt"]);
    new["virtual_hosts"][1]["cert_file"] = "b.crt".into();
    let error = source.change(&parsed, &new).unwrap_err().to_string();
    assert!(error.starts_with("PINGORA_TLS_CERT_FILE: "), "{error}");
}

#[test]
fn log_level_order_is_option_variable_rust_log_file() {
    let level = |text: &str, variables: &[(&str, &str)], option: Option<&str>| {
        let overrides = Overrides { log_level: option.map(str::to_owned), ..Overrides::default() };
        let source = Source::built_in("file", text.to_owned()).with(environment(variables), overrides);
        source.read().map(|parsed| parsed.config.logging.level).map_err(|error| error.to_string())
    };
    let text = format!("[logging]\nlevel = \"error\"\n{COMPLETE}");
    let (rust, ours) = (("RUST_LOG", "debug"), ("PINGORA_LOG_LEVEL", "warn"));
    assert_eq!(level(&text, &[], None).unwrap(), "error");
    assert_eq!(level(&text, &[rust], None).unwrap(), "debug");
    assert_eq!(level(&text, &[rust, ours], None).unwrap(), "warn");
    assert_eq!(level(&text, &[rust, ours], Some("trace")).unwrap(), "trace");
    let error = level(&text, &[("RUST_LOG", "inof")], None).unwrap_err();
    assert!(error.starts_with("RUST_LOG: 'inof' is not a log level (did you mean `info`?)"), "{error}");
    let error = level(&text, &[], Some("inof")).unwrap_err();
    assert!(error.starts_with("--log-level: 'inof' is not a log level"), "{error}");
}

#[test]
fn missing_or_invalid_file_is_an_error() {
    let missing = Source::new(Some("/nowhere/gateway.toml".into()), BTreeMap::new(), Overrides::default());
    assert!(missing.read().unwrap_err().to_string().starts_with("/nowhere/gateway.toml: cannot read"));
    assert!(load_text("\u{0}", &[]).is_err());
}

#[test]
fn faults_are_sorted_by_position() {
    let error =
        load_text(&format!("[proxy]\nthreads = 5000\nport = 1\n{COMPLETE}cors = 1\n"), &[]).unwrap_err();
    let lines: Vec<&str> = error.lines().collect();
    assert!(lines[0].starts_with("file:2:11: at most 1024"), "{error}");
    assert!(lines[1].starts_with("file:3:1: unknown key `port`"), "{error}");
    assert!(lines[2].contains("unknown key `cors`"), "{error}");
    assert_eq!(lines.len(), 3);
}
