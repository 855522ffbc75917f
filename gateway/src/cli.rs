//! The command line.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::PINGORA_VERSION;
use crate::config::{self, ConfigError, HostPort, OneOrMany, Overrides, Source};
use crate::demo::{self, DemoOrigins};
use crate::listener::BindError;
use crate::server::{self, StartError};

/// An API gateway on Pingora.
///
/// With no file, no backend and no PINGORA_* variable it runs a demo over three origins of its own.
#[derive(Debug, Parser)]
#[command(name = "gateway", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Sources,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (what happens without a subcommand)
    Run(Sources),
    /// Say everything that is wrong with a configuration, or "ok" (names of backends are resolved only by `run`)
    Check(Sources),
    /// Say what is running
    Version,
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
    backend: Vec<HostPort>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is wrong; a line for each fault.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The gateway cannot start.
    #[error("gateway: {0}")]
    Start(#[from] StartError),
}

impl From<BindError> for CliError {
    fn from(error: BindError) -> Self {
        StartError::Bind(error).into()
    }
}

/// Does what the command line says.
///
/// # Errors
/// What went wrong, for the person at the terminal.
#[expect(clippy::print_stdout, reason = "`check` and `version` answer on standard output")]
pub fn run(cli: Cli) -> Result<(), CliError> {
    match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(sources) => serve(&sources),
        Command::Check(sources) => {
            sources.source().load()?;
            println!("ok");
            Ok(())
        }
        Command::Version => {
            println!("gateway {} (pingora {PINGORA_VERSION})", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

fn serve(sources: &Sources) -> Result<(), CliError> {
    if sources.configure_nothing() && variables().is_empty() {
        let mut config = demo::config()?;
        if !sources.listen.is_empty() {
            config.proxy.listen_addr_http = OneOrMany(sources.listen.clone());
        }
        let origins = DemoOrigins::bind(&mut config)?;
        return Ok(server::run(&config, None, Some(origins))?);
    }
    let source = sources.source();
    Ok(server::run(&source.load()?, Some(source), None)?)
}

impl Sources {
    /// Whether they say at most where to listen, which does not tell what to serve.
    fn configure_nothing(&self) -> bool {
        self.config.is_none() && self.backend.is_empty()
    }

    fn source(&self) -> Source {
        let overrides = Overrides { listen: self.listen.clone(), backends: self.backend.clone() };
        Source::new(self.config.clone(), variables(), overrides)
    }
}

/// The variables of this process.
fn variables() -> BTreeMap<String, String> {
    // What is not UTF-8 is kept, spoilt, so that it is refused like any other bad value.
    config::set_variables(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
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
    fn run_is_what_happens_without_a_subcommand() {
        let sources = |arguments: &[&str]| {
            let cli = Cli::try_parse_from([&["gateway"], arguments].concat()).unwrap();
            match cli.command {
                None => cli.run,
                Some(Command::Run(sources)) => sources,
                Some(other) => panic!("{other:?}"),
            }
        };
        let file = Sources { config: Some("a.toml".into()), ..Sources::default() };
        assert_eq!(sources(&["-c", "a.toml"]), file);
        assert_eq!(sources(&["run", "-c", "a.toml"]), file);
        assert_eq!(sources(&["run", "--config", "a.toml"]), file);
        assert_eq!(sources(&[]), Sources::default());
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
