//! `gateway check`: prints every error in a configuration, and the changes that it would make.

use crate::admin::ApiAccess;
use crate::cli::diff::changes_against;
use crate::cli::error::CliError;
use crate::cli::sources::{Sources, compiled, warn};
use crate::config::Config;
use crate::process::descriptors;
use crate::server::StartError;

/// Checks the configuration of `sources`, and prints its differences from `against` (a file or a gateway's URL).
#[expect(clippy::print_stdout, reason = "a command answers on standard output")]
pub(super) fn check(sources: &Sources, against: Option<String>) -> Result<(), CliError> {
    let snapshot = compiled(sources)?.load();
    let config = snapshot.config.clone();
    let access_warning = access_warning(&config)?;
    // There is no warning if the default number of connections is lowered, because this depends only on the limits of
    // this machine, and not on the file.
    descriptors::make_room(&config).map_err(StartError::Descriptors)?;
    warn(snapshot.warnings().iter().chain(&access_warning));
    for line in against.map(|against| changes_against(&config, &against)).transpose()?.into_iter().flatten() {
        println!("{line}");
    }
    println!("ok");
    Ok(())
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
