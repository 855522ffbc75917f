//! The command line: parses the arguments and runs the command that they name.

pub mod diff;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand, ValueEnum};
use http::{HeaderName, HeaderValue, Method, Uri};

use crate::PINGORA_VERSION;
use crate::admin::ApiAccess;
use crate::cli::diff::{AgainstError, changes_against};
use crate::config::{self, Address, Config, ConfigError, Overrides, Source};
use crate::demo::{self, DemoError};
use crate::live::{self, Resolution, Store};
use crate::process::daemon::{self, DaemonError};
use crate::process::descriptors;
use crate::process::start::StartOptions;
use crate::server::{self, StartError};
use crate::telemetry::Metrics;
use crate::tls::{Pair, SelfSignedError, self_signed};

/// An API gateway on Pingora.
///
/// Without --config and --backend it takes config.toml or gateway.toml in the current directory, or else
/// /etc/gateway/gateway.toml, and says which. Where there is none, and no PINGORA_* variable is set, it runs a demo over
/// three origins of its own.
#[derive(Debug, Parser)]
#[command(name = "gateway", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

/// What is served, and how it comes to run.
#[derive(Debug, Default, PartialEq, Eq, Args)]
struct Run {
    #[command(flatten)]
    sources: Sources,
    /// Take the listeners over from the gateway that runs, without a moment in which nobody listens: wait until it
    /// gets SIGQUIT, or send that to it where `proxy.pid_file` names it
    #[arg(long)]
    upgrade: bool,
    /// Go on in the background, and return once connections are accepted
    #[arg(long)]
    daemon: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (what happens without a subcommand)
    Run(Run),
    /// Say everything that is wrong with a configuration, or "ok" (names of backends are resolved only by `run`)
    Check {
        #[command(flatten)]
        sources: Sources,
        /// Say what it would change: of the gateway whose management API is at this URL, or of another file
        #[arg(long, value_name = "URL|FILE")]
        against: Option<String>,
    },
    /// Say what would become of a request; nothing is sent
    Explain {
        #[command(flatten)]
        sources: Sources,
        /// The request's method
        method: Method,
        /// Its URL, host included
        url: Uri,
        /// One of its header fields; may be given several times
        #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header_field)]
        headers: Vec<(HeaderName, HeaderValue)>,
        /// How to say it
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Make a certificate that vouches for itself, and its key: for learning, not for clients of others
    DevCert {
        /// Its names, as in localhost or "*.example.test"; an IP address will do, too
        #[arg(required = true, value_name = "DOMAIN")]
        domains: Vec<String>,
        /// Where to put the two files
        #[arg(long, value_name = "DIRECTORY", default_value = ".")]
        out: PathBuf,
    },
    /// Print the configuration's JSON Schema, for editors
    Schema,
    /// Say what is running
    Version,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Parses a header field in the form "Name: value", as curl takes it.
fn header_field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("expected something like \"X-Beta: 1\"")?;
    let name = name.trim().parse().map_err(|_| format!("'{name}' is no name of a header field"))?;
    let value = value.trim().parse().map_err(|_| format!("{value:?} cannot be the value of a field"))?;
    Ok((name, value))
}

/// Where the configuration comes from; PINGORA_* variables win over the file, options over both.
#[derive(Debug, Default, PartialEq, Eq, Args)]
struct Sources {
    /// The configuration file (TOML)
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen here instead of where the configuration says; may be given several times
    #[arg(long, value_name = "ADDR")]
    listen: Vec<SocketAddr>,
    /// Serve this backend, and no virtual host or backend of the configuration; may be given several times
    #[arg(long, value_name = "ADDR")]
    backend: Vec<Address>,
    /// Log this, whatever the configuration, RUST_LOG and PINGORA_LOG_LEVEL say: trace, debug, info, warn, error, off,
    /// or a filter such as "info,gateway=debug"
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,
}

/// Reason why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is invalid; the message has a line for each fault.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no configuration to compare with.
    #[error("gateway check: {0}")]
    Against(#[from] AgainstError),
    /// The request cannot be explained.
    #[error("gateway explain: {0}")]
    Explain(String),
    /// The certificate cannot be made.
    #[error("gateway dev-cert: {0}")]
    DevCert(#[from] SelfSignedError),
    /// The gateway cannot start.
    #[error("gateway: {0}")]
    Start(#[from] StartError),
    /// The gateway cannot start in the background.
    #[error("gateway: {0}")]
    Daemon(#[from] DaemonError),
}

impl From<DemoError> for CliError {
    fn from(error: DemoError) -> Self {
        match error {
            DemoError::Bind(error) => StartError::Bind(error).into(),
            DemoError::Config(error) => error.into(),
        }
    }
}

/// Runs the command that the command line names.
///
/// # Errors
/// Returns the error to show to the person at the terminal.
#[expect(clippy::print_stdout, reason = "`check`, `explain` and `version` answer on standard output")]
pub fn run(cli: Cli) -> Result<(), CliError> {
    match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(run) if run.daemon && !daemon::is_child() => Ok(daemon::start()?),
        Command::Run(run) => serve(&run),
        Command::Check { sources, against } => {
            let snapshot = compiled(&sources)?.load();
            let config = snapshot.config.clone();
            let access_warning = access_warning(&config)?;
            // Only the limits of this machine decide how far the default number of connections is lowered. That
            // is no fault of the file, so there is no warning.
            descriptors::make_room(&config).map_err(StartError::Descriptors)?;
            warn(snapshot.warnings().iter().chain(&access_warning));
            for line in
                against.map(|against| changes_against(&config, &against)).transpose()?.into_iter().flatten()
            {
                println!("{line}");
            }
            println!("ok");
            Ok(())
        }
        Command::Explain { sources, method, url, headers, output } => {
            let request = live::asked(&method, &url, headers).map_err(CliError::Explain)?;
            let snapshot = compiled(&sources)?.load();
            warn(snapshot.missing_secrets());
            let explanation = live::explain(&snapshot, &request);
            match output {
                Output::Text => print!("{explanation}"),
                Output::Json => {
                    let json = serde_json::to_string_pretty(&explanation);
                    println!("{}", json.map_err(|error| CliError::Explain(error.to_string()))?);
                }
            }
            Ok(())
        }
        Command::DevCert { domains, out } => {
            let Pair { certificate, key } = self_signed(&domains, &out)?;
            println!("cert_file = {:?}\nkey_file = {:?}", certificate.display(), key.display());
            Ok(())
        }
        Command::Schema => {
            println!("{:#}", config::json_schema());
            Ok(())
        }
        Command::Version => {
            println!("gateway {} (pingora {PINGORA_VERSION})", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

fn warn<'w>(warnings: impl IntoIterator<Item = &'w String>) {
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
}

/// Returns a warning if the management API cannot be served here because its token is missing. The machine that
/// the configuration is meant for may have the token.
fn access_warning(config: &Config) -> Result<Option<String>, CliError> {
    let access =
        config.proxy.management_api.then(|| ApiAccess::new(&config.admin, config.proxy.management_api_addr));
    match access.transpose() {
        Ok(_) => Ok(None),
        Err(error) if error.lacks_token() => {
            Ok(Some(format!("{error}; `gateway run` does not start without it")))
        }
        Err(error) => Err(StartError::ApiAccess(error).into()),
    }
}

fn serve(run: &Run) -> Result<(), CliError> {
    let Run { sources, upgrade, daemon } = run;
    let options = StartOptions { upgrade: *upgrade, daemon: *daemon };
    let (variables, file) = (variables(), sources.file());
    if file.is_none() && sources.backend.is_empty() && !config::configure(&variables) {
        let (source, parsed, origins) = demo::prepare(variables, sources.overrides())?;
        return Ok(server::run(source, parsed, Some(origins), options)?);
    }
    let source = Source::new(file, variables, sources.overrides());
    let parsed = source.read()?;
    Ok(server::run(source, parsed, None, options)?)
}

/// Compiles the configuration to a store that serves nothing. No backend has been probed, so all count as
/// healthy.
fn compiled(sources: &Sources) -> Result<Store, CliError> {
    let source = Source::new(sources.file(), variables(), sources.overrides());
    let parsed = source.read()?;
    let metrics = Arc::new(Metrics::new().map_err(StartError::Metrics)?);
    Ok(Store::new(source, parsed, Resolution::Unresolved, metrics)?)
}

impl Sources {
    /// Returns the configuration file: the one that is named, or else the one that is found. If backends are
    /// named by options or variables, no file is looked for.
    fn file(&self) -> Option<PathBuf> {
        if self.config.is_some() || !self.backend.is_empty() || config::name_backends(&variables()) {
            return self.config.clone();
        }
        config::search().inspect(|file| {
            eprintln!("gateway: the configuration is {} (--config names another one)", file.display());
        })
    }

    fn overrides(&self) -> Overrides {
        let Sources { listen, backend, log_level, .. } = self;
        Overrides { listen: listen.clone(), backends: backend.clone(), log_level: log_level.clone() }
    }
}

/// Returns the environment variables of this process that the gateway uses.
fn variables() -> BTreeMap<String, String> {
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    // Values that are not UTF-8 are kept in a damaged form, so that they are refused like any other bad value.
    config::set_variables(std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn missing_subcommand_means_run() {
        let run = |arguments: &[&str]| {
            let cli = Cli::try_parse_from([&["gateway"], arguments].concat()).unwrap();
            match cli.command {
                None => cli.run,
                Some(Command::Run(run)) => run,
                Some(other) => panic!("{other:?}"),
            }
        };
        let sources = |arguments: &[&str]| run(arguments).sources;
        let file = Sources { config: Some("a.toml".into()), ..Sources::default() };
        assert_eq!(sources(&["-c", "a.toml"]), file);
        assert_eq!(sources(&["run", "-c", "a.toml"]), file);
        assert_eq!(sources(&["run", "--config", "a.toml"]), file);
        assert_eq!(sources(&[]), Sources::default());
        let upgrade = Run { upgrade: true, daemon: true, ..Run::default() };
        assert_eq!(run(&["run", "--daemon", "--upgrade"]), upgrade);
        assert_eq!(run(&["--daemon", "--upgrade"]), upgrade);
        let backends = sources(&["--listen", "127.0.0.1:1", "--backend", "a:1", "--backend", "[::1]:2"]);
        assert_eq!(backends.listen, ["127.0.0.1:1".parse().unwrap()]);
        assert_eq!(backends.backend.len(), 2);
        for bad in
            [&["-c"][..], &["serve"], &["--listen", "here"], &["--backend", "nonsense"], &["check", "--port"]]
        {
            assert!(Cli::try_parse_from([&["gateway"], bad].concat()).is_err(), "{bad:?}");
        }
    }
}
