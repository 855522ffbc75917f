//! A build by cargo: its warnings and errors, and the programs that it makes, each as soon as it is there.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::process::{Command, Stdio};

use cargo_metadata::diagnostic::DiagnosticLevel;
use cargo_metadata::{Artifact, CompilerMessage, Message};

/// Result of a build.
#[derive(Default)]
pub struct Build {
    /// Messages of the compiler. Cargo repeats those of cached builds.
    pub messages: Vec<CompilerMessage>,
    /// Built libraries and programs.
    pub artifacts: Vec<Artifact>,
    /// True if everything was built.
    pub success: bool,
    /// Output of cargo itself.
    pub said: String,
}

impl Build {
    /// Runs `command`, a cargo command with `--message-format=json`. Calls `made` for each artifact as soon as
    /// it is built.
    ///
    /// # Panics
    /// Panics if cargo cannot be run.
    pub fn run(command: &mut Command, mut made: impl FnMut(&Artifact)) -> Build {
        let mut build = || -> std::io::Result<Build> {
            let mut said: File = tempfile::tempfile()?;
            let mut cargo = command.stdout(Stdio::piped()).stderr(said.try_clone()?).spawn()?;
            let mut build = Build::default();
            for message in
                cargo.stdout.take().into_iter().flat_map(|out| Message::parse_stream(BufReader::new(out)))
            {
                match message? {
                    Message::CompilerMessage(message) => build.messages.push(message),
                    Message::CompilerArtifact(artifact) => {
                        made(&artifact);
                        build.artifacts.push(artifact);
                    }
                    _ => {}
                }
            }
            build.success = cargo.wait()?.success();
            said.rewind()?;
            said.read_to_string(&mut build.said)?;
            Ok(build)
        };
        build().unwrap_or_else(|error| panic!("cannot run cargo: {error}"))
    }

    /// Returns the errors of the compiler, and the output of cargo.
    pub fn errors(&self) -> String {
        let errors = self.messages.iter().filter(|message| message.message.level == DiagnosticLevel::Error);
        let errors: String = errors.filter_map(|message| message.message.rendered.clone()).collect();
        errors + &self.said
    }
}
