//! From files, variables and options to a configuration that can run, or to everything that is wrong.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::address::Address;
use super::document::Document;
use super::error::{ConfigError, Fault};
use super::rewrite::rewrite;
use super::schema::{Backend, Config, VirtualHost};
use super::secrets::unrevealed;
use super::validate::{self, PathFault};
use super::values::OneOrMany;
use super::variables::{BACKEND_VARIABLES, DEFAULT_BACKEND, Variables, WITHOUT_FILE};

/// The tag of the backends that do not come from a file.
const TAG: &str = "default";

/// What the command line says in place of the other sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// In place of every listener.
    pub listen: Vec<SocketAddr>,
    /// In place of every virtual host and backend.
    pub backends: Vec<Address>,
}

/// Where a configuration comes from. It can be read again, and what was read can be changed.
#[derive(Clone, Debug)]
pub struct Source {
    text: Text,
    variables: BTreeMap<String, String>,
    overrides: Overrides,
}

#[derive(Clone, Debug)]
enum Text {
    /// Read again each time.
    File(PathBuf),
    /// Part of the program.
    BuiltIn { name: String, text: String },
}

/// A configuration, and the text in which it stands.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The text. Of what variables and options say, only who is served is part of it.
    pub text: String,
    /// What it means, together with variables and options.
    pub config: Config,
    /// Which path of the configuration was set by what.
    set_by: SetBy,
}

type SetBy = Vec<(&'static str, &'static str)>;

impl Source {
    /// A file if there is one, `variables` (names and values of the `PINGORA_*` environment), and the command
    /// line.
    pub fn new(file: Option<PathBuf>, variables: BTreeMap<String, String>, overrides: Overrides) -> Self {
        let text = match file {
            Some(file) => Text::File(file),
            None => Text::BuiltIn { name: "configuration".to_owned(), text: WITHOUT_FILE.to_owned() },
        };
        Source { text, variables, overrides }
    }

    /// A text that is part of the program, and nothing else; `name` is what errors call it.
    pub fn built_in(name: &str, text: String) -> Self {
        let text = Text::BuiltIn { name: name.to_owned(), text };
        Source { text, variables: BTreeMap::new(), overrides: Overrides::default() }
    }

    /// The file that can be read again, if there is one. What came through a pipe is gone.
    pub fn file(&self) -> Option<&Path> {
        match &self.text {
            Text::File(file) if file.metadata().is_ok_and(|found| !found.is_file()) => None,
            Text::File(file) => Some(file),
            Text::BuiltIn { .. } => None,
        }
    }

    /// What errors call the text.
    fn name(&self) -> String {
        match &self.text {
            Text::File(path) => path.display().to_string(),
            Text::BuiltIn { name, .. } => name.clone(),
        }
    }

    /// The file in which changes can be kept: none where variables or options say who is served.
    pub fn keeps_changes_in(&self) -> Option<&Path> {
        let mut named = BACKEND_VARIABLES.iter().filter(|variable| self.variables.contains_key(**variable));
        let elsewhere = !self.overrides.backends.is_empty() || named.next().is_some();
        self.file().filter(|_| !elsewhere)
    }

    /// Reads the configuration: the defaults, then the text, then the variables, then the command line.
    /// Without a file, or where variables or command line name backends, one catch-all virtual host serves
    /// them.
    ///
    /// # Errors
    /// Everything that is wrong, from all sources at once; or that the file cannot be read.
    pub fn read(&self) -> Result<Parsed, ConfigError> {
        let (text, served) = match &self.text {
            Text::File(path) => (read(path)?, Served::Named),
            Text::BuiltIn { text, .. } if text == WITHOUT_FILE => (text.clone(), Served::NamedOrDefault),
            Text::BuiltIn { text, .. } => (text.clone(), Served::Named),
        };
        let mut parsed = self.assemble(&text, served)?;
        let mut written: Config = Document::parse("", &text).0.decode().0;
        let old = written.to_json();
        written.virtual_hosts.clone_from(&parsed.config.virtual_hosts);
        written.backends.clone_from(&parsed.config.backends);
        // Changes begin with a text that says who is served. Where it does, this is the text as it was.
        parsed.text = rewrite(&text, &old, &written.to_json()).unwrap_or(text);
        Ok(parsed)
    }

    /// Reads `text` in place of the one that was read.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn parse(&self, text: &str) -> Result<Parsed, ConfigError> {
        self.assemble(text, Served::Written)
    }

    /// `parsed`, changed so that it means `new`, with the fewest possible changes of its text.
    ///
    /// # Errors
    /// Everything that is wrong with `new`; or that variables or options set what it would change.
    pub fn change(&self, parsed: &Parsed, new: &Value) -> Result<Parsed, ConfigError> {
        let old = parsed.config.to_json();
        let differs =
            |pointer: &str| new.pointer(pointer).is_some_and(|new| old.pointer(pointer) != Some(new));
        let set_by = parsed.set_by.iter().map(|(path, by)| (format!("/{path}"), (*by).to_owned()));
        let fault = |(pointer, source): (String, String)| {
            let detail = format!("{source} sets it, which wins over everything else; take that away first");
            Fault { source, position: None, pointer, detail }
        };
        let mut faults: Vec<Fault> = set_by.filter(|(pointer, _)| differs(pointer)).map(fault).collect();
        if let Some(pointer) = unrevealed(new, "") {
            let detail =
                "*** stands for a secret that is there, and there is none; write the secret".to_owned();
            faults.push(Fault { source: self.name(), position: None, pointer, detail });
        }
        if !faults.is_empty() {
            return Err(ConfigError { faults });
        }
        match rewrite(&parsed.text, &old, new) {
            Ok(text) => self.parse(&text),
            // The text was parsed before: this says that it is none.
            Err(_) => self.parse(&parsed.text),
        }
    }

    /// Faults that were found in `parsed` later, with the places where they stand in its text.
    pub fn locate(&self, parsed: &Parsed, faults: Vec<PathFault>) -> ConfigError {
        let name = self.name();
        let (document, _) = Document::parse(&name, &parsed.text);
        ConfigError::in_order(located(&document, &parsed.set_by, faults).collect())
    }

    fn assemble(&self, text: &str, served: Served) -> Result<Parsed, ConfigError> {
        let name = self.name();
        let (mut document, mut faults) = Document::parse(&name, text);
        let (mut config, unreadable) = document.decode::<Config>();
        faults.extend(unreadable);
        let set_by = self.override_with(served, &mut config, &mut faults);
        if document.is_given_up() {
            // What was not understood is not missing.
            return Err(ConfigError { faults });
        }
        let mut wrong = validate::values(&config);
        if ["virtual_hosts", "backends", "tests", "cors", "compression"]
            .iter()
            .all(|table| document.is_whole(table))
        {
            wrong.extend(validate::references(&config));
        }
        faults.extend(located(&document, &set_by, wrong));
        if faults.is_empty() {
            return Ok(Parsed { text: text.to_owned(), config, set_by });
        }
        Err(ConfigError::in_order(faults))
    }

    /// Applies what wins over the text, and returns which path of the configuration was set by what.
    fn override_with(&self, served: Served, config: &mut Config, faults: &mut Vec<Fault>) -> SetBy {
        let mut variables = Variables::new(&self.variables);
        let by_variables = variables.apply(config);
        faults.extend(variables.faults.into_iter().map(|(variable, detail)| Fault {
            source: variable.to_owned(),
            position: None,
            pointer: String::new(),
            detail,
        }));
        let mut set_by = variables.set_by;
        let Overrides { listen, backends } = &self.overrides;
        if !listen.is_empty() {
            config.proxy.listen_addr_http = OneOrMany(listen.clone());
            set_by.push(("proxy/listen_addr_http", "--listen"));
        }
        let named = (!backends.is_empty()).then(|| backends.clone()).or(by_variables);
        let default = || DEFAULT_BACKEND.parse().ok().map(|backend| vec![backend]);
        let served = match served {
            Served::Written => None,
            Served::Named => named,
            Served::NamedOrDefault => named.or_else(default),
        };
        if let Some(backends) = served {
            serve_only(config, backends);
        }
        set_by
    }
}

/// Who is served.
#[derive(Clone, Copy)]
enum Served {
    /// Whom the text names.
    Written,
    /// Whom variables and options name, if they do.
    Named,
    /// The same, or else the default backend.
    NamedOrDefault,
}

impl Config {
    /// Reads a configuration from a text alone; `name` is what errors call it.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn parse(name: &str, text: &str) -> Result<Config, ConfigError> {
        let parsed = Source::built_in(name, String::new()).parse(text)?;
        Ok(parsed.config)
    }

    /// As JSON, with every default; what is off is left out.
    pub fn to_json(&self) -> Value {
        // Every key is a string, and every value one that JSON has.
        serde_json::to_value(self).unwrap_or_default()
    }
}

fn located<'f>(
    document: &'f Document<'_>,
    set_by: &'f SetBy,
    faults: Vec<PathFault>,
) -> impl Iterator<Item = Fault> + 'f {
    faults.into_iter().map(move |PathFault { path, detail }| {
        let pointer = format!("/{path}");
        match set_by.iter().rev().find(|(set, _)| *set == path) {
            Some((_, source)) => Fault { source: (*source).to_owned(), position: None, pointer, detail },
            None => {
                let steps: Vec<&str> = path.split('/').collect();
                let position = document.locate(&steps);
                Fault { source: document.name().to_owned(), position, pointer, detail }
            }
        }
    })
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| {
        let reason = match error.kind() {
            ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
            _ => error.to_string(),
        };
        let detail = format!("cannot read the configuration: {reason}");
        let source = path.display().to_string();
        ConfigError { faults: vec![Fault { source, position: None, pointer: String::new(), detail }] }
    })
}

/// One catch-all virtual host over these backends.
fn serve_only(config: &mut Config, addresses: Vec<Address>) {
    config.virtual_hosts = vec![VirtualHost {
        domain: "*".to_owned(),
        enabled_backends_tag: TAG.to_owned(),
        ..VirtualHost::default()
    }];
    let backend = |(i, address)| Backend {
        id: format!("backend-{}", i + 1),
        address: Some(address),
        tags: vec![TAG.to_owned()],
        ..Backend::default()
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
        assert_eq!(config.health_check.path.as_deref(), Some("/health"));
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
            "false",
            "127.0.0.1:10",
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
        assert!(!config.proxy.management_api);
        assert_eq!(config.proxy.management_api_addr, "127.0.0.1:10".parse().unwrap());

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
        ];
        let variables: Vec<_> = super::super::VARIABLES.into_iter().zip(bad).collect();
        let error = load_variables(&variables).unwrap_err();
        for (variable, _) in &variables {
            assert!(error.contains(variable), "{variable} not in\n{error}");
        }
        assert_eq!(error.lines().count(), variables.len(), "{error}");
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
        let missing =
            Source::new(Some("/nowhere/gateway.toml".into()), BTreeMap::new(), Overrides::default());
        assert!(missing.read().unwrap_err().to_string().starts_with("/nowhere/gateway.toml: cannot read"));
        assert!(load_text("\u{0}", &[]).is_err());
    }

    #[test]
    fn faults_come_in_the_order_of_the_file() {
        let error =
            load_text(&format!("[proxy]\nthreads = 5000\nport = 1\n{COMPLETE}cors = 1\n"), &[]).unwrap_err();
        let lines: Vec<&str> = error.lines().collect();
        assert!(lines[0].starts_with("file:2:11: at most 1024"), "{error}");
        assert!(lines[1].starts_with("file:3:1: unknown key `port`"), "{error}");
        assert!(lines[2].contains("unknown key `cors`"), "{error}");
        assert_eq!(lines.len(), 3);
    }
}
