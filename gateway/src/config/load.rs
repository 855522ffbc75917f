//! Loads a configuration from a file, environment variables and command-line options. The result is either a valid
//! configuration or every fault that was found.

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

/// Tag of backends that variables or options set.
const TAG: &str = "default";

/// Values of command-line options, which override the file and the variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Addresses of plain HTTP listeners, which replace the configured ones; empty: no change.
    pub listen: Vec<SocketAddr>,
    /// Addresses of backends, which replace every virtual host and backend; empty: no change.
    pub backends: Vec<Address>,
    /// Log level, which replaces the configured one; `None`: no change.
    pub log_level: Option<String>,
}

/// Sources of a configuration: a text, environment variables and command-line options.
#[derive(Clone, Debug)]
pub struct Source {
    text: Text,
    variables: BTreeMap<String, String>,
    overrides: Overrides,
}

#[derive(Clone, Debug)]
enum Text {
    /// Path of a file; every reading of the configuration reads the file again.
    File(PathBuf),
    /// Text that the program contains, with its name in errors.
    BuiltIn { name: String, text: String },
}

/// Configuration, with the text from which it was parsed.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// Text of the configuration. Values from variables and options are not in it, except virtual hosts and backends.
    pub text: String,
    /// Configuration: the text, with the values of variables and options in place of the text's values.
    pub config: Config,
    /// Path of each value that a variable or an option has set, with the name of that variable or option.
    set_by: SetBy,
}

type SetBy = Vec<(String, &'static str)>;

impl Source {
    /// Creates a source from a file, `variables` (see [`set_variables`](super::set_variables)) and options. If `file`
    /// is `None`, a built-in text replaces it.
    pub fn new(file: Option<PathBuf>, variables: BTreeMap<String, String>, overrides: Overrides) -> Self {
        let text = match file {
            Some(file) => Text::File(file),
            None => Text::BuiltIn { name: "configuration".to_owned(), text: WITHOUT_FILE.to_owned() },
        };
        Source { text, variables, overrides }
    }

    /// Creates a source from a built-in text, without variables or options. `name` is the name of the text in errors.
    pub fn built_in(name: &str, text: String) -> Self {
        let text = Text::BuiltIn { name: name.to_owned(), text };
        Source { text, variables: BTreeMap::new(), overrides: Overrides::default() }
    }

    /// Returns the source with other variables and options.
    pub fn with(self, variables: BTreeMap<String, String>, overrides: Overrides) -> Self {
        Source { variables, overrides, ..self }
    }

    /// Returns the path of the file; `None` for a built-in text, and for a pipe, which cannot be read twice.
    pub fn file(&self) -> Option<&Path> {
        match &self.text {
            Text::File(file) if file.metadata().is_ok_and(|found| !found.is_file()) => None,
            Text::File(file) => Some(file),
            Text::BuiltIn { .. } => None,
        }
    }

    /// Returns the name of the text in errors.
    fn name(&self) -> String {
        match &self.text {
            Text::File(path) => path.display().to_string(),
            Text::BuiltIn { name, .. } => name.clone(),
        }
    }

    /// Returns the file to which changes can be written; `None` without a file, or if variables or options set
    /// backends.
    pub fn keeps_changes_in(&self) -> Option<&Path> {
        let elsewhere = !self.overrides.backends.is_empty() || name_backends(&self.variables);
        self.file().filter(|_| !elsewhere)
    }

    /// Reads the text, then the variables, then the options; each overrides the values before. If variables or options
    /// set backends, or if there is no file, one catch-all virtual host uses the backends.
    ///
    /// # Errors
    /// Returns every fault of all sources at once. If the file cannot be read, this is the only error.
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
        // A later change needs a text that contains the virtual hosts and backends in use. If `text` already contains
        // them, it is not changed.
        parsed.text = rewrite(&text, &old, &written.to_json()).unwrap_or(text);
        Ok(parsed)
    }

    /// Parses `text` in place of the source's text, with the same variables and options.
    ///
    /// # Errors
    /// Returns every fault that was found.
    pub fn parse(&self, text: &str) -> Result<Parsed, ConfigError> {
        self.assemble(text, Served::Written)
    }

    /// Returns `parsed` with the configuration `new`. The text is changed as little as possible.
    ///
    /// # Errors
    /// Returns every fault of `new`. A change to a value that a variable or an option has set is a fault, too.
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
            // The text is not TOML. Parsing it again returns the reason as a fault.
            Err(_) => self.parse(&parsed.text),
        }
    }

    /// Returns an error for `faults` that were found after parsing, with their positions in the text of `parsed`.
    pub fn locate(&self, parsed: &Parsed, faults: Vec<PathFault>) -> ConfigError {
        let name = self.name();
        let (document, _) = Document::parse(&name, &parsed.text);
        ConfigError::in_order(located(&document, &parsed.set_by, faults).collect())
    }

    fn assemble(&self, text: &str, served: Served) -> Result<Parsed, ConfigError> {
        let name = self.name();
        let (mut document, syntax) = Document::parse(&name, text);
        if !syntax.is_empty() {
            // The parser guesses what follows a syntax error. Faults of a guess would confuse the operator.
            return Err(ConfigError::in_order(syntax));
        }
        let (mut config, mut faults) = document.decode::<Config>();
        let set_by = self.override_with(served, &mut config, &mut faults);
        if document.is_given_up() {
            // Some values could not be read, so validation would wrongly report them as missing.
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

    /// Overrides values of `config` with variables and options. Returns the path of each value that was set, with the
    /// name of the variable or option.
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
    /// Removes certificates that variables have set from `written`, because the paths of the certificates must not be
    /// written to the file.
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

/// Rule that says where virtual hosts and backends come from.
#[derive(Clone, Copy)]
enum Served {
    /// Hosts and backends of the text, even if variables or options set others.
    Written,
    /// Backends of options or variables; if these set none, the hosts and backends of the text.
    Named,
    /// Backends of options or variables; if these set none, the default backend.
    NamedOrDefault,
}

impl Config {
    /// Parses a configuration from `text` without variables or options; `name` is the name of the text in errors.
    ///
    /// # Errors
    /// Returns every fault that was found.
    pub fn parse(name: &str, text: &str) -> Result<Config, ConfigError> {
        let parsed = Source::built_in(name, String::new()).parse(text)?;
        Ok(parsed.config)
    }

    /// Returns the configuration as JSON, including default values. Optional keys that are not set are left out.
    pub fn to_json(&self) -> Value {
        // Serialization cannot fail, because every key is a string and JSON has every type of value.
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

/// Replaces all backends with backends at `addresses`, and all virtual hosts with one catch-all host that uses them.
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
