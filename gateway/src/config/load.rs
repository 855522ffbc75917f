//! Loads a configuration from a file, environment variables and command-line options. The result is a configuration
//! that can run, or every fault that was found.

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
use super::variables::{DEFAULT_BACKEND, Variables, WITHOUT_FILE, name_backends};

/// Tag of the backends that do not come from a file.
const TAG: &str = "default";

/// Values of the command line, which override the other sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Addresses that replace every plain HTTP listener.
    pub listen: Vec<SocketAddr>,
    /// Backends that replace every virtual host and backend.
    pub backends: Vec<Address>,
    /// Level that replaces the log level.
    pub log_level: Option<String>,
}

/// Sources of a configuration. They can be read again, and the text can be changed.
#[derive(Clone, Debug)]
pub struct Source {
    text: Text,
    variables: BTreeMap<String, String>,
    overrides: Overrides,
}

#[derive(Clone, Debug)]
enum Text {
    /// File, which is read again each time.
    File(PathBuf),
    /// Text that is part of the program.
    BuiltIn { name: String, text: String },
}

/// Configuration, and the text from which it was read.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// Text of the configuration. Of the values from variables and options, it only contains the virtual hosts and
    /// backends.
    pub text: String,
    /// Configuration from the text, the variables and the options.
    pub config: Config,
    /// Paths of the configuration, each with the variable or option that set it.
    set_by: SetBy,
}

type SetBy = Vec<(String, &'static str)>;

impl Source {
    /// Creates a source from an optional file, `variables` (see [`set_variables`](super::set_variables)), and the
    /// command line.
    pub fn new(file: Option<PathBuf>, variables: BTreeMap<String, String>, overrides: Overrides) -> Self {
        let text = match file {
            Some(file) => Text::File(file),
            None => Text::BuiltIn { name: "configuration".to_owned(), text: WITHOUT_FILE.to_owned() },
        };
        Source { text, variables, overrides }
    }

    /// Creates a source from a text that is part of the program, without variables or options. `name` is the text's
    /// name in errors.
    pub fn built_in(name: &str, text: String) -> Self {
        let text = Text::BuiltIn { name: name.to_owned(), text };
        Source { text, variables: BTreeMap::new(), overrides: Overrides::default() }
    }

    /// Returns the source with these variables and options.
    pub fn with(self, variables: BTreeMap<String, String>, overrides: Overrides) -> Self {
        Source { variables, overrides, ..self }
    }

    /// Returns the file, if it can be read again. A pipe cannot be read twice, so it does not count.
    pub fn file(&self) -> Option<&Path> {
        match &self.text {
            Text::File(file) if file.metadata().is_ok_and(|found| !found.is_file()) => None,
            Text::File(file) => Some(file),
            Text::BuiltIn { .. } => None,
        }
    }

    /// Returns the text's name in errors.
    fn name(&self) -> String {
        match &self.text {
            Text::File(path) => path.display().to_string(),
            Text::BuiltIn { name, .. } => name.clone(),
        }
    }

    /// Returns the file to which changes can be written. Returns `None` if variables or options name the backends.
    pub fn keeps_changes_in(&self) -> Option<&Path> {
        let elsewhere = !self.overrides.backends.is_empty() || name_backends(&self.variables);
        self.file().filter(|_| !elsewhere)
    }

    /// Reads the configuration: the defaults, then the text, then the variables, then the command line. If variables
    /// or options name backends, or if there is no file, one catch-all virtual host serves the backends.
    ///
    /// # Errors
    /// Returns every fault of all sources at once, or an error if the file cannot be read.
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
        parsed.without_certificates_of_variables(&mut written);
        written.backends.clone_from(&parsed.config.backends);
        // Changes start from a text that names the virtual hosts and backends. If `text` already names them, it stays
        // the same.
        parsed.text = rewrite(&text, &old, &written.to_json()).unwrap_or(text);
        Ok(parsed)
    }

    /// Parses `text` in place of the text that was read.
    ///
    /// # Errors
    /// Returns every fault that was found.
    pub fn parse(&self, text: &str) -> Result<Parsed, ConfigError> {
        self.assemble(text, Served::Written)
    }

    /// Changes `parsed` to the configuration `new`, with as few changes of its text as possible.
    ///
    /// # Errors
    /// Returns every fault of `new`, or an error if a variable or option sets a value that `new` would change.
    pub fn change(&self, parsed: &Parsed, new: &Value) -> Result<Parsed, ConfigError> {
        let old = parsed.config.to_json();
        let differs =
            |pointer: &str| new.pointer(pointer).is_some_and(|new| old.pointer(pointer) != Some(new));
        let set_by = parsed.set_by.iter().map(|(path, by)| (format!("/{path}"), (*by).to_owned()));
        let fault = |(pointer, source): (String, String)| {
            let detail = format!("{source} sets this value and overrides the file; remove {source} first");
            Fault { source, position: None, pointer, detail }
        };
        let mut faults: Vec<Fault> = set_by.filter(|(pointer, _)| differs(pointer)).map(fault).collect();
        if let Some(pointer) = unrevealed(new, "") {
            let detail =
                "*** stands for an existing secret, and there is none; write the secret itself".to_owned();
            faults.push(Fault { source: self.name(), position: None, pointer, detail });
        }
        if !faults.is_empty() {
            return Err(ConfigError { faults });
        }
        match rewrite(&parsed.text, &old, new) {
            Ok(text) => self.parse(&text),
            // Parsing the text again reports why it is not TOML.
            Err(_) => self.parse(&parsed.text),
        }
    }

    /// Returns an error with faults that were found in `parsed` later, and their positions in its text.
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
            // A value that could not be read must not be reported as missing.
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

    /// Applies variables and options, which override the text. Returns each path that was set, with the variable or
    /// option that set it.
    fn override_with(&self, served: Served, config: &mut Config, faults: &mut Vec<Fault>) -> SetBy {
        let mut variables = Variables::new(&self.variables);
        let by_variables = variables.apply(config);
        let Overrides { listen, backends, log_level } = &self.overrides;
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
        variables.certify(config);
        faults.extend(variables.faults.into_iter().map(|(source, detail)| Fault {
            source,
            position: None,
            pointer: String::new(),
            detail,
        }));
        let mut set_by = variables.set_by;
        if !listen.is_empty() {
            config.proxy.listen_addr_http = OneOrMany(listen.clone());
            set_by.push(("proxy/listen_addr_http".to_owned(), "--listen"));
        }
        if let Some(level) = log_level {
            config.logging.level.clone_from(level);
            set_by.push(("logging/level".to_owned(), "--log-level"));
        }
        set_by
    }
}

impl Parsed {
    /// Removes the certificates that come from variables from `written`, because the file must not contain their
    /// paths.
    fn without_certificates_of_variables(&self, written: &mut Config) {
        let is_set = |path: String| self.set_by.iter().any(|(set, _)| *set == path);
        for (i, host) in written.virtual_hosts.iter_mut().enumerate() {
            if is_set(format!("virtual_hosts/{i}/cert_file")) {
                host.cert_file.0.clear();
                host.key_file.0.clear();
            }
        }
    }
}

/// Source of the virtual hosts and backends.
#[derive(Clone, Copy)]
enum Served {
    /// Virtual hosts and backends of the text.
    Written,
    /// Backends of variables and options; if there are none, those of the text.
    Named,
    /// Backends of variables and options; if there are none, the default backend.
    NamedOrDefault,
}

impl Config {
    /// Parses a configuration from a text alone; `name` is the text's name in errors.
    ///
    /// # Errors
    /// Returns every fault that was found.
    pub fn parse(name: &str, text: &str) -> Result<Config, ConfigError> {
        let parsed = Source::built_in(name, String::new()).parse(text)?;
        Ok(parsed.config)
    }

    /// Returns the configuration as JSON, with every default. Optional parts that are not set are left out.
    pub fn to_json(&self) -> Value {
        // Serialization cannot fail: every key is a string, and every value exists in JSON.
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

/// Replaces the virtual hosts with one catch-all virtual host that uses these backends.
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
mod tests;
