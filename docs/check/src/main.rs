//! Command for authors: `cargo run -p check -- transcript README.md` plays a page's transcripts, and with
//! `BLESS=1` rewrites them. Without a page, it plays all pages.
//!
//! The command `check play PAGE` is for internal use: it gives each page a separate process and network.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use check::repository::Repository;
use check::{list, settle, transcripts};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let program = std::env::current_exe();
    match (arguments.split_first(), program) {
        (Some((command, pages)), Ok(program)) if command == "transcript" => {
            let faults = settle(|repository| transcripts::check(repository, &program, pages));
            if faults.is_empty() {
                return ExitCode::SUCCESS;
            }
            eprint!("{}", list(&faults));
            ExitCode::FAILURE
        }
        (Some((command, [page])), Ok(program)) if command == "play" => play(page, &program),
        _ => {
            eprintln!("usage: cargo run -p check -- transcript [PAGE.md ...]");
            ExitCode::from(2)
        }
    }
}

/// Plays a page in this process and prints its faults as JSON.
fn play(page: &str, program: &Path) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    let programs = program.parent().unwrap_or(Path::new("."));
    let faults = runtime.block_on(transcripts::session::play(&Repository::here(), page, programs));
    match serde_json::to_vec(&faults).map(|faults| std::io::stdout().write_all(&faults)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
