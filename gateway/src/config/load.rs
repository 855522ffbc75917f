//! From files, variables and options to a configuration that can run, or to everything that is wrong.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use super::document::{Document, Flaw};
use super::error::{ConfigError, Fault, Position};
use super::schema::{Backend, Config, VirtualHost};
use super::validate::{self, Complaints};
use super::values::{HostPort, OneOrMany};
use super::variables::{DEFAULT_BACKEND, Variables, defaults};

/// The tag of the backends that do not come from a file.
const TAG: &str = "default";

/// What the command line says in place of the other sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// In place of every listener.
    pub listen: Vec<SocketAddr>,
    /// In place of every virtual host and backend.
    pub backends: Vec<HostPort>,
}

/// Reads a configuration: the defaults, then the file if there is one, then `variables` (names and values
/// of the `PINGORA_*` environment), then the command line. Without a file, or where variables or command
/// line name backends, one catch-all virtual host serves them.
///
/// # Errors
/// Everything that is wrong, from all sources at once; or that the file cannot be read.
pub fn load(
    file: Option<&Path>,
    variables: &BTreeMap<String, String>,
    overrides: &Overrides,
) -> Result<Config, ConfigError> {
    match file {
        Some(path) => assemble(&path.display().to_string(), Some(&read(path)?), variables, overrides),
        None => assemble("configuration", None, variables, overrides),
    }
}

impl Config {
    /// Reads a configuration from a text alone; `name` is what errors call it.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn parse(name: &str, text: &str) -> Result<Config, ConfigError> {
        assemble(name, Some(text), &BTreeMap::new(), &Overrides::default())
    }
}

fn assemble(
    name: &str,
    text: Option<&str>,
    variables: &BTreeMap<String, String>,
    overrides: &Overrides,
) -> Result<Config, ConfigError> {
    let mut faults = Vec::new();
    let fault = |source: &str, position, detail| Fault { source: source.to_owned(), position, detail };

    let (mut config, document) = match text {
        Some(text) => {
            let (mut document, mut flaws) = Document::parse(text);
            let (config, more) = document.decode::<Config>();
            flaws.extend(more);
            faults.extend(flaws.into_iter().map(|Flaw { position, detail }| fault(name, position, detail)));
            (config, Some(document))
        }
        None => (defaults(), None),
    };

    let mut variables = Variables::new(variables);
    let mut backends = variables.apply(&mut config);
    faults.extend(variables.faults.drain(..).map(|(variable, detail)| fault(variable, None, detail)));
    let mut origins = variables.origins;
    if !overrides.listen.is_empty() {
        config.proxy.listen_addr_http = OneOrMany(overrides.listen.clone());
        origins.push(("proxy/listen_addr_http", "--listen"));
    }
    if !overrides.backends.is_empty() {
        backends = Some(overrides.backends.clone());
    }
    if text.is_none() && backends.is_none() {
        backends = DEFAULT_BACKEND.parse().ok().map(|backend| vec![backend]);
    }
    if let Some(backends) = backends {
        serve_only(&mut config, backends);
    }

    let place = |path: &str| -> (String, Option<Position>) {
        match origins.iter().rev().find(|(origin, _)| *origin == path) {
            Some((_, source)) => ((*source).to_owned(), None),
            None => {
                let path: Vec<&str> = path.split('/').collect();
                (name.to_owned(), document.as_ref().and_then(|document| document.locate(&path)))
            }
        }
    };
    let add = |Complaints(complaints): Complaints, faults: &mut Vec<Fault>| {
        for (path, detail) in complaints {
            let (source, position) = place(&path);
            faults.push(Fault { source, position, detail });
        }
    };
    let readable = faults.is_empty();
    add(validate::values(&config), &mut faults);
    if readable {
        add(validate::references(&config), &mut faults);
    }

    if faults.is_empty() {
        return Ok(config);
    }
    faults.sort_by_key(|fault| fault.position);
    Err(ConfigError { faults })
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| {
        let detail = format!("cannot read the configuration: {error}");
        ConfigError { faults: vec![Fault { source: path.display().to_string(), position: None, detail }] }
    })
}

/// One catch-all virtual host over these backends.
fn serve_only(config: &mut Config, addresses: Vec<HostPort>) {
    config.virtual_hosts = vec![VirtualHost {
        domain: "*".to_owned(),
        enabled_backends_tag: TAG.to_owned(),
        ..VirtualHost::default()
    }];
    let backend = |(i, address)| Backend {
        id: format!("backend-{}", i + 1),
        address: Some(address),
        tags: vec![TAG.to_owned()],
    };
    config.backends = addresses.into_iter().enumerate().map(backend).collect();
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::config::Secs;

    fn load_text(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let name = file.path().display().to_string();
        let loaded = load(Some(file.path()), &environment(variables), &Overrides::default());
        loaded.map_err(|error| error.to_string().replace(&name, "file"))
    }

    fn environment(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn load_variables(variables: &[(&str, &str)]) -> Result<Config, String> {
        load(None, &environment(variables), &Overrides::default()).map_err(|error| error.to_string())
    }

    const FILE: &str = "
[[virtual_hosts]]
domain = \"*\"
enabled_backends_tag = \"a\"
[[backends]]
id = \"one\"
address = \"127.0.0.1:3001\"
tags = [\"a\"]
";

    #[test]
    fn a_file_needs_only_hosts_and_backends() {
        let config = load_text(FILE, &[]).unwrap();
        assert_eq!(config.proxy, crate::config::Proxy::default());
        assert_eq!(config.backends[0].id, "one");
    }

    #[test]
    fn without_a_file_one_catch_all_host_serves_the_backends() {
        let config = load_variables(&[]).unwrap();
        assert_eq!(config.virtual_hosts[0].domain, "*");
        assert_eq!(config.backends[0].address, Some("127.0.0.1:3000".parse().unwrap()));
        assert_eq!(config.health_check.http_path(), Some("/health"));
        assert_eq!(config.health_check.interval_secs, Secs::new(30));

        let config = load_variables(&[
            ("PINGORA_BACKEND_ADDR", "127.0.0.1:1"),
            ("PINGORA_BACKEND_SERVERS", "127.0.0.1:2, localhost:3"),
        ]);
        let addresses: Vec<_> =
            config.unwrap().backends.into_iter().filter_map(|backend| backend.address).collect();
        assert_eq!(addresses, ["127.0.0.1:2".parse().unwrap(), "localhost:3".parse().unwrap()]);
    }

    #[test]
    fn every_variable_does_something() {
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
        ];
        let variables: Vec<_> = super::super::VARIABLES.into_iter().zip(values).collect();
        let config = load_variables(&variables).unwrap();
        assert_eq!(config.proxy.listen_addr_http.0, ["127.0.0.1:1".parse().unwrap()]);
        assert_eq!(config.backends.len(), 2);
        assert_eq!(config.proxy.max_connections.get(), 5);
        assert_eq!(config.proxy.request_timeout_secs, Secs::new(6));
        assert!(!config.health_check.enabled);
        assert_eq!(config.health_check.interval_secs, Secs::new(7));
        assert_eq!(config.health_check.path.as_deref(), Some("/up"));
        assert_eq!(config.logging.level, "debug");
        assert!(!config.metrics.enabled);
        assert_eq!(config.metrics.listen_addr, "127.0.0.1:9".parse().unwrap());

        let file = load_text(FILE, &variables[2..]).unwrap();
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
        ];
        let variables: Vec<_> = super::super::VARIABLES.into_iter().zip(bad).collect();
        let error = load_variables(&variables).unwrap_err();
        for (variable, _) in &variables {
            assert!(error.contains(variable), "{variable} not in\n{error}");
        }
        assert_eq!(error.lines().count(), variables.len(), "{error}");
        let later = load_variables(&[("PINGORA_LOAD_BALANCING_ALGORITHM", "weighted")]).unwrap_err();
        assert!(later.contains("not supported yet"), "{later}");
        assert!(load_variables(&[("PINGORA_LISTEN_ADDR", "")]).is_ok(), "empty is not set");
    }

    /// Text, and what the one line of error says.
    const BAD: &[(&str, &str)] = &[
        ("", "file: there is no virtual host"),
        ("[proxy]\nlisten_addr_http = []\n", "file:2:20: there is no listener"),
        (
            "[proxy]\nlisten_addr_http = [\"127.0.0.1:1\", \"127.0.0.1:1\"]\n",
            "file:2:20: 127.0.0.1:1 is listened on twice",
        ),
        ("[proxy]\nlisten_addr_http = \"127.0.0.1:9090\"\n", "127.0.0.1:9090 is listened on twice"),
        (
            "[proxy]\nlisten_addr_http = \"localhost\"\n",
            "file:2:20: `listen_addr_http`: 'localhost': invalid socket address",
        ),
        ("[proxy]\nthreads = -1\n", "file:2:11: `threads`: invalid value: integer `-1`"),
        ("[proxy]\nthreads = 100000\n", "file:2:11: at most 1024 threads"),
        ("[proxy]\nrequest_timeout_secs = 0\n", "file:2:24: `request_timeout_secs`: 0 is out of range"),
        ("[proxy]\nlisten_addr = \"127.0.0.1:443\"\n", "file:2:1: `listen_addr` is not supported yet"),
        ("[cors]\nallow_origins = []\n", "file:1:2: `cors` is not supported yet"),
        ("[retry]\non_status = [502]\n", "file:2:1: `on_status` is not supported yet"),
        ("[retry]\nattempts = 1000\n", "file:2:12: at most 16 tries"),
        ("[balancing]\nalgorithm = \"weighted\"\n", "file:2:13: `weighted` is not supported yet"),
        ("[rate_limit]\nkey = \"header:X-Key\"\n", "file:2:7: `header:X-Key` is not supported yet"),
        ("[rate_limit]\nrequests = 0\n", "file:2:12: `requests`: invalid value"),
        ("[rate_limit]\nrequests = 16777216\n", "file:2:12: at most 16777215 requests"),
        ("[logging]\nlevel = \"lodu\"\n", "file:2:9: 'lodu' is no level"),
        ("[logging]\nformat = \"xml\"\n", "file:2:10: unknown value `xml`; expected `text` or `json`"),
        ("[logging]\noutput = \"file\"\nfile_path = \"\"\n", "file:3:13: output = \"file\" needs"),
        ("[health_check]\nkind = \"tcp\"\npath = \"/\"\n", "file:3:8: a path has no meaning"),
        ("[health_check]\npath = \"health\"\n", "file:2:8: \"health\" is no path"),
        (
            "[health_check]\nexpected_status = \"ok\"\n",
            "file:2:19: `expected_status`: 'ok' is no set of status codes",
        ),
        ("[headers]\nrequest_set = { \"Content-Length\" = \"1\" }\n", "belongs to the connection"),
        ("[headers]\nrequest_set = { \"X-A\" = \"a\\nb\" }\n", "cannot be the value of a header field"),
        ("[[virtual_hosts]]\nenabled_backends_tag = \"a\"\n", "needs a `domain`"),
        ("[[virtual_hosts]]\ndomain = \"b\"\n", "'b' needs `enabled_backends_tag`"),
        (
            "[[virtual_hosts]]\ndomain = \"b:80\"\nenabled_backends_tag = \"a\"\n",
            "file:2:10: 'b:80' is no host name",
        ),
        (
            "[[virtual_hosts]]\ndomain = \"*.b\"\nenabled_backends_tag = \"a\"\n",
            "file:2:10: the wildcard '*.b' is not supported yet",
        ),
        (
            "[[virtual_hosts]]\ndomain = \"b\"\nenabled_backends_tag = \"aa\"\n",
            "file:3:24: no backend bears the tag 'aa'",
        ),
        ("[[backends]]\naddress = \"127.0.0.1:1\"\ntags = [\"a\"]\n", "a backend needs an `id`"),
        ("[[backends]]\nid = \"x\"\ntags = [\"a\"]\n", "backend 'x' needs an `address`"),
        ("[[backends]]\nid = \"x\"\naddress = \"127.0.0.1:1\"\n", "a backend needs `tags`"),
        ("[[backends]]\nid = \"one\"\naddress = \"127.0.0.1:1\"\ntags = [\"a\"]\n", "'one' is there twice"),
        (
            "[[backends]]\nid = \"a b\"\naddress = \"127.0.0.1:1\"\ntags = [\"a\"]\n",
            "file:2:6: \"a b\" is no id",
        ),
        (
            "[[backends]]\nid = \"x\"\naddress = \"127.0.0.1:1\"\ntags = [\"a\"]\nweight = 2\n",
            "file:5:1: `weight` is not supported yet",
        ),
    ];

    #[test]
    fn each_bad_file_has_its_own_clear_error() {
        for (text, expected) in BAD {
            let whole = if text.is_empty() { String::new() } else { format!("{text}{FILE}") };
            let error = load_text(&whole, &[]).expect_err(text);
            assert!(
                error.lines().any(|line| line.contains(expected)),
                "{text}\n-- says\n{error}\n-- not\n{expected}"
            );
            assert_eq!(error.lines().count(), 1, "one fault, one line:\n{text}\n{error}");
        }
    }

    const REFERENCE: &str = include_str!("../../config/reference.toml");

    #[test]
    fn the_reference_shows_the_defaults() {
        let mut reference = Config::parse("reference.toml", REFERENCE).unwrap();
        assert_eq!(reference.upstream.take(), Some(Default::default()));
        assert_eq!(reference.retry.take(), Some(Default::default()));
        assert_eq!(reference.rate_limit.take(), Some(Default::default()));
        assert_eq!(reference.headers.take(), Some(Default::default()));
        // What has no default is an example.
        reference.health_check.kind = None;
        reference.health_check.path = None;
        reference.virtual_hosts.clear();
        reference.backends.clear();
        assert_eq!(reference, Config::default());
    }

    #[test]
    fn what_the_reference_calls_not_supported_yet_is_refused_as_such() {
        let (mut expected, mut in_refused_table) = (Vec::new(), false);
        for line in REFERENCE.lines() {
            let (refused, line) = line.strip_prefix("#- ").map_or((false, line), |line| (true, line));
            let name = line.trim_matches(['[', ' ']).split([']', ' ']).next().unwrap_or_default();
            let name = name.rsplit('.').next().unwrap_or_default();
            if line.starts_with('[') {
                in_refused_table = refused;
                expected.extend(refused.then_some(name));
            } else if refused && !in_refused_table {
                expected.push(name);
            }
        }
        let whole: String =
            REFERENCE.lines().map(|line| format!("{}\n", line.trim_start_matches("#- "))).collect();
        let error = Config::parse("all", &whole).unwrap_err();
        let mut found: Vec<String> = error.faults.into_iter().map(|fault| fault.detail).collect();
        let mut expected: Vec<String> =
            expected.into_iter().map(|name| format!("`{name}` is not supported yet")).collect();
        found.sort_unstable();
        found.dedup();
        expected.sort_unstable();
        expected.dedup();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_file_that_is_not_there_or_no_text() {
        let missing = load(Some(Path::new("/nowhere/gateway.toml")), &BTreeMap::new(), &Overrides::default());
        assert!(missing.unwrap_err().to_string().starts_with("/nowhere/gateway.toml: cannot read"));
        assert!(load_text("\u{0}", &[]).is_err());
    }

    #[test]
    fn faults_come_in_the_order_of_the_file() {
        let error =
            load_text(&format!("[proxy]\nthreads = 5000\nport = 1\n{FILE}weight = 1\n"), &[]).unwrap_err();
        let lines: Vec<&str> = error.lines().collect();
        assert!(lines[0].starts_with("file:2:11: at most 1024"), "{error}");
        assert!(lines[1].starts_with("file:3:1: unknown key `port`"), "{error}");
        assert!(lines[2].contains("`weight` is not supported yet"), "{error}");
        assert_eq!(lines.len(), 3);
    }
}
