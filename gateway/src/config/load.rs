//! From files, variables and options to a configuration that can run, or to everything that is wrong.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::document::Document;
use super::error::{ConfigError, Fault};
use super::schema::{Backend, Config, VirtualHost};
use super::validate::{self, PathFault};
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

/// Where a configuration comes from. It can be read again.
#[derive(Clone, Debug, Default)]
pub struct Source {
    file: Option<PathBuf>,
    variables: BTreeMap<String, String>,
    overrides: Overrides,
}

impl Source {
    /// A file if there is one, `variables` (names and values of the `PINGORA_*` environment), and the command
    /// line.
    pub fn new(file: Option<PathBuf>, variables: BTreeMap<String, String>, overrides: Overrides) -> Self {
        Source { file, variables, overrides }
    }

    /// The file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads the configuration: the defaults, then the file, then the variables, then the command line.
    /// Without a file, or where variables or command line name backends, one catch-all virtual host serves
    /// them.
    ///
    /// # Errors
    /// Everything that is wrong, from all sources at once; or that the file cannot be read.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let Source { file, variables, overrides } = self;
        match file {
            Some(path) => assemble(&path.display().to_string(), Some(&read(path)?), variables, overrides),
            None => assemble("configuration", None, variables, overrides),
        }
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
    let (mut config, document, mut faults) = match text {
        Some(text) => {
            let (mut document, mut faults) = Document::parse(name, text);
            let (config, unreadable) = document.decode::<Config>();
            faults.extend(unreadable);
            (config, Some(document), faults)
        }
        None => (defaults(), None, Vec::new()),
    };
    let set_by = override_with(variables, overrides, text.is_none(), &mut config, &mut faults);

    if document.as_ref().is_some_and(Document::is_given_up) {
        // What was not understood is not missing.
        return Err(ConfigError { faults });
    }
    let mut wrong = validate::values(&config);
    if document
        .as_ref()
        .is_none_or(|document| document.is_whole("virtual_hosts") && document.is_whole("backends"))
    {
        wrong.extend(validate::references(&config));
    }
    let locate = |PathFault { path, detail }| match set_by.iter().rev().find(|(set, _)| *set == path) {
        Some((_, source)) => Fault { source: (*source).to_owned(), position: None, detail },
        None => {
            let steps: Vec<&str> = path.split('/').collect();
            let position = document.as_ref().and_then(|document| document.locate(&steps));
            Fault { source: name.to_owned(), position, detail }
        }
    };
    faults.extend(wrong.into_iter().map(locate));

    if faults.is_empty() {
        return Ok(config);
    }
    // What has no place in the file comes after what has.
    faults.sort_by_key(|fault| (fault.position.is_none(), fault.position));
    Err(ConfigError { faults })
}

/// Applies what wins over a file, and returns which path of the configuration was set by what.
fn override_with(
    variables: &BTreeMap<String, String>,
    overrides: &Overrides,
    needs_backends: bool,
    config: &mut Config,
    faults: &mut Vec<Fault>,
) -> Vec<(&'static str, &'static str)> {
    let mut variables = Variables::new(variables);
    let mut backends = variables.apply(config);
    let fault =
        |(variable, detail): (&str, String)| Fault { source: variable.to_owned(), position: None, detail };
    faults.extend(variables.faults.into_iter().map(fault));
    let mut set_by = variables.set_by;
    if !overrides.listen.is_empty() {
        config.proxy.listen_addr_http = OneOrMany(overrides.listen.clone());
        set_by.push(("proxy/listen_addr_http", "--listen"));
    }
    if !overrides.backends.is_empty() {
        backends = Some(overrides.backends.clone());
    }
    if needs_backends && backends.is_none() {
        backends = DEFAULT_BACKEND.parse().ok().map(|backend| vec![backend]);
    }
    if let Some(backends) = backends {
        serve_only(config, backends);
    }
    set_by
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| {
        let reason = match error.kind() {
            ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
            _ => error.to_string(),
        };
        let detail = format!("cannot read the configuration: {reason}");
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
    use crate::config::tests::COMPLETE;

    fn load_text(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let name = file.path().display().to_string();
        let source = Source::new(Some(file.path().into()), environment(variables), Overrides::default());
        source.load().map_err(|error| error.to_string().replace(&name, "file"))
    }

    fn environment(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn load_variables(variables: &[(&str, &str)]) -> Result<Config, String> {
        let source = Source::new(None, environment(variables), Overrides::default());
        source.load().map_err(|error| error.to_string())
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
        ];
        let variables: Vec<_> = super::super::VARIABLES.into_iter().zip(bad).collect();
        let error = load_variables(&variables).unwrap_err();
        for (variable, _) in &variables {
            assert!(error.contains(variable), "{variable} not in\n{error}");
        }
        assert_eq!(error.lines().count(), variables.len(), "{error}");
        let later = load_variables(&[("PINGORA_LOAD_BALANCING_ALGORITHM", "weighted")]).unwrap_err();
        assert!(later.contains("not supported yet"), "{later}");
    }

    #[test]
    fn a_variable_that_is_empty_is_not_set() {
        let set = crate::config::set_variables(|name| match name {
            "PINGORA_LISTEN_ADDR" => Some(" ".to_owned()),
            "PINGORA_LOG_LEVEL" => Some(" debug".to_owned()),
            _ => None,
        });
        assert_eq!(set, environment(&[("PINGORA_LOG_LEVEL", "debug")]));
    }

    #[test]
    fn a_file_that_is_not_there_or_no_text() {
        let missing = Source { file: Some("/nowhere/gateway.toml".into()), ..Source::default() };
        assert!(missing.load().unwrap_err().to_string().starts_with("/nowhere/gateway.toml: cannot read"));
        assert!(load_text("\u{0}", &[]).is_err());
    }

    #[test]
    fn faults_come_in_the_order_of_the_file() {
        let error = load_text(&format!("[proxy]\nthreads = 5000\nport = 1\n{COMPLETE}weight = 1\n"), &[])
            .unwrap_err();
        let lines: Vec<&str> = error.lines().collect();
        assert!(lines[0].starts_with("file:2:11: at most 1024"), "{error}");
        assert!(lines[1].starts_with("file:3:1: unknown key `port`"), "{error}");
        assert!(lines[2].contains("`weight` is not supported yet"), "{error}");
        assert_eq!(lines.len(), 3);
    }
}
