//! `gateway run`: serves, in the foreground or as a daemon.

use clap::Args;

use crate::cli::error::CliError;
use crate::cli::sources::{Sources, variables};
use crate::config::{self, Source};
use crate::process::daemon;
use crate::process::start::StartOptions;
use crate::{demo, server};

/// Options of `gateway run`.
#[derive(Debug, Default, PartialEq, Eq, Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) sources: Sources,
    /// Take over the listeners of the running gateway, so that no connection is refused: send it SIGQUIT if
    /// `proxy.pid_file` names it, otherwise wait until you send SIGQUIT
    #[arg(long)]
    pub(super) upgrade: bool,
    /// Run in the background; the command returns once connections are accepted
    #[arg(long)]
    pub(super) daemon: bool,
}

/// Serves in this process, or starts a daemon that serves.
pub(super) fn run(run: &Run) -> Result<(), CliError> {
    if run.daemon && !daemon::is_child() { Ok(daemon::start()?) } else { serve(run) }
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
