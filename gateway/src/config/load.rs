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
use super::variables::{DEFAULT_BACKEND, Variables, WITHOUT_FILE, name_backends};

/// The tag of the backends that do not come from a file.
const TAG: &str = "default";

/// What the command line says in place of the other sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// In place of every listener.
    pub listen: Vec<SocketAddr>,
    /// In place of every virtual host and backend.
    pub backends: Vec<Address>,
    /// In place of what is logged.
    pub log_level: Option<String>,
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

type SetBy = Vec<(String, &'static str)>;

impl Source {
    /// A file if there is one, `variables` (see [`set_variables`](super::set_variables)), and the command line.
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

    /// The same, with variables and a command line.
    pub fn with(self, variables: BTreeMap<String, String>, overrides: Overrides) -> Self {
        Source { variables, overrides, ..self }
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
        let elsewhere = !self.overrides.backends.is_empty() || name_backends(&self.variables);
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
        parsed.without_certificates_of_variables(&mut written);
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
    /// Takes the certificates that variables have given to virtual hosts out of `written`: where they are is not for
    /// the file to say.
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
mod tests;
