//! `gateway explain`: explains what the gateway would do with a request.

use clap::ValueEnum;
use http::{HeaderName, HeaderValue, Method, Uri};

use crate::cli::error::CliError;
use crate::cli::sources::{Sources, compiled, warn};
use crate::live;

/// Format of the explanation.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Explains a request, in text or JSON.
#[expect(clippy::print_stdout, reason = "a command answers on standard output")]
pub(super) fn explain(
    sources: &Sources,
    method: &Method,
    url: &Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    output: Output,
) -> Result<(), CliError> {
    let request = live::asked(method, url, headers).map_err(CliError::Explain)?;
    let snapshot = compiled(sources)?.load();
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

/// Parses a header field in the form "Name: value", which is also curl's form.
pub(super) fn header_field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("expected something like \"X-Beta: 1\"")?;
    let name = name.trim().parse().map_err(|_| format!("'{name}' is not a valid name of a header field"))?;
    let value =
        value.trim().parse().map_err(|_| format!("{value:?} is not a valid value of a header field"))?;
    Ok((name, value))
}
