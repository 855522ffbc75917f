//! Check of the method names in diagrams: each must be a `fn` in a file that the diagram lists in a line
//! `%% code: path` (a comment for mermaid). The script `mermaid/parse.mjs` checks that the diagrams parse.

use std::collections::BTreeSet;

use syn::visit::{self, Visit};

use crate::markdown::{Block, Document};
use crate::{Fault, Pattern, pattern};

/// Returns a fault for each name in the page's diagrams that the listed sources do not have. `read` finds a
/// file of this repository or, with `package/path`, of a dependency. `packages` are the workspace's packages,
/// which diagrams may name.
pub fn check(
    document: &Document,
    packages: &BTreeSet<String>,
    read: impl Fn(&str) -> Option<String>,
) -> Vec<Fault> {
    let mut faults = Vec::new();
    for block in document.blocks.iter().filter(|block| block.info.trim() == "mermaid") {
        let mut fault = |line, what: String| faults.push(Fault::new(&document.path, line, what));
        let files = code(block);
        let mut methods = BTreeSet::new();
        for file in &files {
            match read(file).as_deref().map(functions) {
                Some(Ok(found)) => methods.extend(found),
                Some(Err(error)) => {
                    fault(block.line, format!("the diagram's `%% code: {file}` is not valid Rust: {error}"))
                }
                None => fault(block.line, format!("the diagram's `%% code: {file}` does not exist")),
            }
        }
        for (line, name) in names(block).into_iter().filter(|(_, name)| !packages.contains(name)) {
            if files.is_empty() {
                fault(
                    line,
                    format!(
                        "the diagram names {name}: add a line `%% code: PATH` with the file of this method"
                    ),
                );
            } else if !methods.contains(&name) {
                fault(
                    line,
                    format!("the diagram names {name}, but there is no such fn in {}", files.join(", ")),
                );
            }
        }
    }
    faults
}

/// Returns the files that a diagram lists as sources of its methods.
fn code(block: &Block) -> Vec<String> {
    let lines = block.text.lines().filter_map(|line| line.trim().strip_prefix("%% code:"));
    lines.flat_map(|files| files.split(',')).map(|file| file.trim().to_owned()).collect()
}

/// Returns the method names in a diagram, with their lines. A name in snake case is a method, and so is a
/// single word at the start of a note, as in `Note over P: logging: the access log`. Participants are left
/// out.
fn names(block: &Block) -> Vec<(usize, String)> {
    static SNAKE: Pattern = Pattern::new(|| pattern(r"\b[a-z][a-z0-9]*(?:_[a-z0-9]+)+\b"));
    static NOTE: Pattern = Pattern::new(|| pattern(r"^\s*[Nn]ote [^:]+:\s*([a-z]+)\s*(?::|$)"));
    static PARTICIPANT: Pattern = Pattern::new(|| pattern(r"^\s*(?:create )?(?:participant|actor)\b(.*)"));
    let lines = || block.text.lines().filter(|line| !line.trim().starts_with("%%"));
    let declared = lines().filter_map(|line| PARTICIPANT.captures(line));
    let declared: Vec<String> = declared.map(|found| found[1].to_owned()).collect();
    let is_participant =
        |name: &str| declared.iter().any(|words| words.split_whitespace().any(|w| w == name));
    let mut names = Vec::new();
    for (line, text) in (block.line + 1..).zip(block.text.lines()) {
        if text.trim().starts_with("%%") {
            continue;
        }
        let opening = NOTE.captures(text).and_then(|found| found.get(1));
        for name in SNAKE.find_iter(text).chain(opening).map(|found| found.as_str()) {
            if !is_participant(name) {
                names.push((line, name.to_owned()));
            }
        }
    }
    names
}

/// Returns the names of all functions and methods in a source.
fn functions(source: &str) -> syn::Result<BTreeSet<String>> {
    struct Functions(BTreeSet<String>);
    impl<'ast> Visit<'ast> for Functions {
        fn visit_signature(&mut self, signature: &'ast syn::Signature) {
            self.0.insert(signature.ident.to_string());
            visit::visit_signature(self, signature);
        }
    }
    let mut functions = Functions(BTreeSet::new());
    functions.visit_file(&syn::parse_file(source)?);
    Ok(functions.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the faults of a page with one diagram, whose first line is line 4 of the page.
    fn faults(diagram: &str) -> Vec<String> {
        let page = format!("# T\n\n```mermaid\n{diagram}```\n");
        let packages = BTreeSet::from(["simple_proxy".to_owned()]);
        let read = |file: &str| match file {
            "main.rs" => Some("impl P for Q { async fn upstream_peer(&self) {} fn logging() {} }".to_owned()),
            "core/proxy.rs" => Some("trait P { fn fail_to_connect(); }".to_owned()),
            "broken.rs" => Some("fn".to_owned()),
            _ => None,
        };
        check(&Document::parse("page.md", &page), &packages, read).iter().map(Fault::to_string).collect()
    }

    #[test]
    fn existing_methods_may_be_named() {
        let diagram = "sequenceDiagram\n  %% code: main.rs, core/proxy.rs\n  participant P as simple_proxy\n\
                       \x20 participant the_client\n  the_client->>P: GET /\n  Note over P: upstream_peer: to A\n\
                       \x20 Note over P,A: logging\n  Note over P: fail_to_connect<br/>again\n  Note left of P: A dies\n";
        assert_eq!(faults(diagram), [""; 0]);
        assert_eq!(faults("flowchart LR\n  A --> B\n"), [""; 0]);
    }

    #[test]
    fn unknown_methods_are_found() {
        let header = "%% code: main.rs\n";
        for (line, fault) in [
            (
                "Note over P: response_filter: x",
                "page.md:5: the diagram names response_filter, but there is no such",
            ),
            (
                "Note over P: caching: x",
                "page.md:5: the diagram names caching, but there is no such fn in main.rs",
            ),
            ("A[fail_to_proxy] --> B", "page.md:5: the diagram names fail_to_proxy, but"),
        ] {
            let found = faults(&format!("{header}{line}\n"));
            assert!(found.len() == 1 && found[0].starts_with(fault), "{line}: {found:?}");
        }
    }

    #[test]
    fn diagram_must_list_the_files_of_its_methods() {
        for (diagram, fault) in [
            ("Note over P: upstream_peer\n", "page.md:4: the diagram names upstream_peer: add a line"),
            ("%% code: other.rs\n", "page.md:3: the diagram's `%% code: other.rs` does not exist"),
            ("%% code: broken.rs\n", "page.md:3: the diagram's `%% code: broken.rs` is not valid Rust"),
        ] {
            let found = faults(diagram);
            assert!(found.len() == 1 && found[0].starts_with(fault), "{diagram}: {found:?}");
        }
    }
}
