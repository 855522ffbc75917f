//! Command line: parses the arguments and runs the command that they name. Each command has a file.

mod check;
mod dev_cert;
pub mod diff;
mod error;
mod explain;
mod run;
mod sources;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use http::{HeaderName, HeaderValue, Method, Uri};

pub use self::error::CliError;
use self::explain::{Output, header_field};
use self::run::Run;
use self::sources::Sources;
use crate::{PINGORA_VERSION, config};

/// An API gateway on Pingora.
///
/// Without --config and --backend, it uses config.toml or gateway.toml in the current directory, or else
/// /etc/gateway/gateway.toml, and prints which file it uses. If there is no such file and no PINGORA_* variable is set, it
/// runs a demo with three origins of its own.
#[derive(Debug, Parser)]
#[command(name = "gateway", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway (the default without a subcommand)
    Run(Run),
    /// Check a configuration: print every error in it, or "ok" (only `run` resolves the host names of backends)
    Check {
        #[command(flatten)]
        sources: Sources,
        /// Also print the differences from the configuration of the gateway whose management API is at this URL, or from
        /// another file
        #[arg(long, value_name = "URL|FILE")]
        against: Option<String>,
    },
    /// Explain what the gateway would do with a request; no request is sent
    Explain {
        #[command(flatten)]
        sources: Sources,
        /// Method of the request, such as GET
        method: Method,
        /// URL of the request, with its host
        url: Uri,
        /// Header field of the request; may be given several times
        #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header_field)]
        headers: Vec<(HeaderName, HeaderValue)>,
        /// Format of the explanation
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Make a self-signed certificate and its key, for development: clients do not trust it by default
    DevCert {
        /// Names in the certificate, such as localhost or "*.example.test"; IP addresses are allowed too
        #[arg(required = true, value_name = "DOMAIN")]
        domains: Vec<String>,
        /// Directory for the two files
        #[arg(long, value_name = "DIRECTORY", default_value = ".")]
        out: PathBuf,
    },
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Print the versions of the gateway and of Pingora
    Version,
}

/// Runs the command that the command line names.
///
/// # Errors
/// Returns the error for the person at the terminal.
#[expect(clippy::print_stdout, reason = "`schema` and `version` answer on standard output")]
pub fn run(cli: Cli) -> Result<(), CliError> {
    match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(run) => run::run(&run),
        Command::Check { sources, against } => check::check(&sources, against),
        Command::Explain { sources, method, url, headers, output } => {
            explain::explain(&sources, &method, &url, headers, output)
        }
        Command::DevCert { domains, out } => dev_cert::dev_cert(&domains, &out),
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
