//! A page's transcripts as a list of steps: the commands that a reader types, each with the output on the
//! page, and the files that a reader writes.

use crate::markdown::{Block, Document};
use crate::{Fault, Pattern, pattern};

/// Package that `cargo run` starts in the root (`default-members`).
const DEFAULT_MEMBER: &str = "gateway";

/// Next step of the reader.
pub struct Step<'a> {
    /// Block that describes the step.
    pub block: &'a Block,
    /// Action of the step.
    pub action: Action,
}

/// Action that a reader does with a block.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// The reader writes the block to a file of this name.
    Write(String),
    /// The reader types the commands of the block, each after the end of the previous one.
    Run(Vec<Typed>),
    /// The reader types the commands in the terminal of this name, and the last command keeps running.
    Serve(String, Vec<Typed>),
}

/// Command and the output on the page below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typed {
    /// Line of the command on the page.
    pub line: usize,
    /// Command as it is written after the prompt.
    pub command: String,
    /// Lines of output below the command.
    pub shown: Vec<String>,
}

/// Parses the steps of a page.
///
/// # Errors
/// Returns a fault for each mark or block that describes no valid step.
pub fn steps(document: &Document) -> Result<Vec<Step<'_>>, Vec<Fault>> {
    let (mut steps, mut faults) = (Vec::new(), Vec::new());
    for mark in &document.marks {
        let Some(block) = mark.block.map(|block| &document.blocks[block]) else { continue };
        let action = match (mark.key.as_str(), mark.value.split_once(' ')) {
            ("file", _) => Ok(Action::Write(mark.value.clone())),
            ("transcript", None) if mark.value == "run" => typed(block).map(Action::Run),
            ("transcript", Some(("serve", name))) => {
                typed(block).map(|all| Action::Serve(name.to_owned(), all))
            }
            ("transcript", _) => Err("a transcript is either `run` or `serve NAME`".to_owned()),
            _ => continue,
        };
        match action {
            Ok(action) => steps.push(Step { block, action }),
            Err(what) => faults.push(Fault::new(&document.path, mark.line, what)),
        }
    }
    if faults.is_empty() { Ok(steps) } else { Err(faults) }
}

/// Parses the commands of a block. A command begins with `$ ` and continues on the next line after a
/// backslash.
fn typed(block: &Block) -> Result<Vec<Typed>, String> {
    let mut all: Vec<Typed> = Vec::new();
    for (line, text) in (block.line + 1..).zip(block.text.lines()) {
        match (text.strip_prefix("$ "), all.last_mut()) {
            (Some(command), _) => all.push(Typed { line, command: command.to_owned(), shown: Vec::new() }),
            (None, Some(last)) if last.shown.is_empty() && last.command.ends_with('\\') => {
                last.command.push_str(&format!("\n{text}"));
            }
            (None, Some(last)) => last.shown.push(text.to_owned()),
            (None, None) => return Err(format!("line {line} is not a command: a block begins with `$ `")),
        }
    }
    if all.is_empty() { Err("the block has no command".to_owned()) } else { Ok(all) }
}

/// Returns the block's text with these lines below its commands.
pub fn text(commands: &[Typed], shown: &[Vec<String>]) -> String {
    let lines = |(typed, shown): (&Typed, &Vec<String>)| {
        let shown: String = shown.iter().map(|line| format!("{line}\n")).collect();
        format!("$ {}\n{shown}", typed.command)
    };
    commands.iter().zip(shown).map(lines).collect()
}

/// Returns the command for the shell: `cargo run -p X -- args` becomes the program that is already built.
/// Without `-p`, it becomes the program of the workspace's default member.
pub fn shell(command: &str, programs: &str) -> String {
    static CARGO_RUN: Pattern =
        Pattern::new(|| pattern(r"\bcargo run\b(?: -q\b)?(?: --release\b)?(?: -p (\w+))?(?: --(?: |$)| |$)"));
    let program = |found: &regex::Captures<'_>| {
        let name = found.get(1).map_or(DEFAULT_MEMBER, |name| name.as_str());
        format!("'{programs}/{name}' ")
    };
    CARGO_RUN.replace_all(command, program).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(page: &str) -> Result<Vec<Action>, Vec<String>> {
        let document = Document::parse("page.md", page);
        let steps =
            steps(&document).map_err(|faults| faults.iter().map(Fault::to_string).collect::<Vec<_>>())?;
        Ok(steps.into_iter().map(|step| step.action).collect())
    }

    fn typed(line: usize, command: &str, shown: &[&str]) -> Typed {
        Typed {
            line,
            command: command.to_owned(),
            shown: shown.iter().map(|line| line.to_string()).collect(),
        }
    }

    #[test]
    fn steps_are_in_the_order_of_the_page() {
        let page = "<!-- transcript: serve proxy -->\n```console\n$ make it\nok\n$ serve it\n```\n\
                    <!-- file: a.toml -->\n```toml\nx = 1\n```\n```console\n$ nobody runs this\n```\n\
                    <!-- transcript: run -->\n```console\n$ curl \\\n    -i x\none\n\ntwo\n```\n";
        let steps = read(page).unwrap();
        assert_eq!(
            steps,
            [
                Action::Serve(
                    "proxy".to_owned(),
                    vec![typed(3, "make it", &["ok"]), typed(5, "serve it", &[])]
                ),
                Action::Write("a.toml".to_owned()),
                Action::Run(vec![typed(16, "curl \\\n    -i x", &["one", "", "two"])]),
            ]
        );
    }

    #[test]
    fn invalid_transcripts_are_found() {
        for (page, fault) in [
            ("<!-- transcript: walk -->\n```\n$ x\n```\n", "page.md:1: a transcript is either"),
            ("<!-- transcript: run -->\n```\nx\n```\n", "page.md:1: line 3 is not a command"),
            ("<!-- transcript: serve a -->\n```\n```\n", "page.md:1: the block has no command"),
        ] {
            let faults = read(page).unwrap_err();
            assert!(faults.len() == 1 && faults[0].starts_with(fault), "{faults:?}");
        }
    }

    #[test]
    fn cargo_run_becomes_the_built_program() {
        for (command, run) in [
            ("cargo run -p origin", "'/t/origin' "),
            ("cargo run", "'/t/gateway' "),
            ("cargo run --release -- -c x", "'/t/gateway' -c x"),
            ("cargo run | head", "'/t/gateway' | head"),
            ("cargo run -q -- check", "'/t/gateway' check"),
            ("A=b cargo run -- --listen x", "A=b '/t/gateway' --listen x"),
            (
                "A=b cargo run -q -p gateway -- check --config x -- y",
                "A=b '/t/gateway' check --config x -- y",
            ),
            ("curl -s x | grep y", "curl -s x | grep y"),
        ] {
            assert_eq!(shell(command, "/t"), run);
        }
    }
}
