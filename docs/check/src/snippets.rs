//! Check of code on a page that also exists in a source. A block below `<!-- source: path#anchor -->` must
//! equal the file, or the region of it between two comments of mdBook's form.

use std::collections::BTreeSet;

use crate::markdown::{Document, line_at};
use crate::repository::Repository;
use crate::{Fault, Pattern, diff, pattern};

/// mdBook's own expression for the comments; the name of the region follows the keyword.
static ANCHOR: Pattern = Pattern::new(|| pattern(r"ANCHOR(_END)?:\s*([\w-]+)"));

/// Keys of the marks that stand above a block.
const BELOW: [&str; 4] = ["source", "transcript", "file", "rules"];
const ALONE: [&str; 2] = ["generated", "/generated"];

/// Returns a fault for each block that differs from its source.
pub fn check(document: &Document, repository: &Repository) -> Vec<Fault> {
    let mut faults = marks(document);
    for (mark, block) in document.marked("source") {
        match snippet(&mark.value, |file| repository.find(file)) {
            Err(what) => faults.push(Fault::new(&document.path, mark.line, what)),
            Ok(right) if right == block.text => {}
            Ok(right) => {
                let what = format!("the block differs from {}\n{}", mark.value, diff(&block.text, &right));
                faults.push(Fault::fixable(&document.path, block.line, what, block.rewrite(&right)));
            }
        }
    }
    faults
}

/// Returns a fault for each mark without effect, because it is misspelt or not above a block.
fn marks(document: &Document) -> Vec<Fault> {
    let mut faults = Vec::new();
    for mark in &document.marks {
        let known = BELOW.contains(&&*mark.key) || ALONE.contains(&&*mark.key);
        let what = match (known, mark.block) {
            (false, Some(_)) => {
                format!("'{}' is not a mark; expected one of: {}", mark.key, BELOW.join(", "))
            }
            (true, None) if BELOW.contains(&&*mark.key) => {
                format!("the mark '{}' is not above a block: put it directly above one", mark.key)
            }
            _ => continue,
        };
        faults.push(Fault::new(&document.path, mark.line, what));
    }
    faults
}

/// Returns the text that `path` or `path#anchor` names.
fn snippet(spec: &str, read: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let (path, anchor) = spec.split_once('#').map_or((spec, None), |(path, anchor)| (path, Some(anchor)));
    let text = read(path).ok_or_else(|| format!("there is no file {path} in the repository"))?;
    let region = match anchor {
        Some(anchor) => region(&text, anchor)
            .ok_or_else(|| format!("{path} has no region '{anchor}': mark it with ANCHOR and ANCHOR_END"))?,
        None => text.lines().filter(|line| !ANCHOR.is_match(line)).collect(),
    };
    Ok(flush_left(&region))
}

/// Returns the lines of a region, without the comments that mark this or an inner region.
fn region<'a>(text: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let (mut lines, mut inside, mut found) = (Vec::new(), false, false);
    for line in text.lines() {
        match ANCHOR.captures(line) {
            Some(mark) if &mark[2] == name => (inside, found) = (mark.get(1).is_none(), true),
            None if inside => lines.push(line),
            _ => {}
        }
    }
    found.then_some(lines)
}

/// Removes the indentation that all lines share.
fn flush_left(lines: &[&str]) -> String {
    let indented = lines.iter().filter(|line| !line.trim().is_empty());
    let common = indented.map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
    lines.iter().map(|line| format!("{}\n", line.get(common..).unwrap_or(""))).collect()
}

/// Returns a fault for each mdBook include. The repository's web view shows an include as text, so the code stands on the
/// page, below a `source` mark.
pub fn includes(document: &Document) -> Vec<Fault> {
    static INCLUDE: Pattern =
        Pattern::new(|| pattern(r"(\\?)\{\{\s*#(?:rustdoc_include|include|playground)\s+([^\s}]+)"));
    // mdBook does not expand an include after a backslash.
    let includes = INCLUDE.captures_iter(&document.text).filter(|found| found[1].is_empty());
    let fault = |found: regex::Captures<'_>| {
        let line = line_at(&document.text, found.get(0).map_or(0, |found| found.start()));
        let what = format!(
            "the web view shows the include of {} as text; write the block below `<!-- source: PATH#REGION -->`",
            &found[2]
        );
        Fault::new(&document.path, line, what)
    };
    includes.map(fault).collect()
}

/// Returns a fault for each region of a source that does not end, begins twice, or ends without a beginning.
pub fn anchors(file: &str, text: &str) -> Vec<Fault> {
    static COMMENT: Pattern =
        Pattern::new(|| pattern(r"^\s*(?://|#|%%|<!--)\s*ANCHOR(_END)?:\s*([\w-]+)\s*(?:-->)?\s*$"));
    let (mut faults, mut seen, mut open) = (Vec::new(), BTreeSet::new(), Vec::new());
    for (line, found) in (1..).zip(text.lines().map(|line| COMMENT.captures(line))) {
        let Some(found) = found else { continue };
        let name = found[2].to_owned();
        if found.get(1).is_none() {
            if !seen.insert(name.clone()) {
                faults.push(Fault::new(file, line, format!("the region '{name}' begins a second time")));
            }
            open.push((name, line));
        } else if let Some(place) = open.iter().position(|(opened, _)| *opened == name) {
            open.remove(place);
        } else {
            faults.push(Fault::new(file, line, format!("the region '{name}' ends without a beginning")));
        }
    }
    let unended = |(name, line)| Fault::new(file, line, format!("the region '{name}' has no ANCHOR_END"));
    faults.extend(open.into_iter().map(unended));
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "fn a() {\n    // ANCHOR: outer\n    one();\n\n    // ANCHOR: inner\n    if two() {\n        \
                          three();\n    }\n    // ANCHOR_END: inner\n    // ANCHOR_END: outer\n}\n";

    fn repository() -> (tempfile::TempDir, Repository) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("src")).unwrap();
        std::fs::write(directory.path().join("src/a.rs"), SOURCE).unwrap();
        let repository = Repository::at(directory.path());
        (directory, repository)
    }

    #[test]
    fn region_is_extracted_and_moved_left() {
        let read = |_: &str| Some(SOURCE.to_owned());
        assert_eq!(snippet("a.rs#outer", read).unwrap(), "one();\n\nif two() {\n    three();\n}\n");
        assert_eq!(snippet("a.rs#inner", read).unwrap(), "if two() {\n    three();\n}\n");
        assert!(snippet("a.rs", read).unwrap().starts_with("fn a() {\n    one();\n\n    if two() {\n"));
        assert!(snippet("a.rs#other", read).unwrap_err().contains("no region 'other'"));
        assert!(snippet("a.rs", |_| None).unwrap_err().contains("no file a.rs"));
    }

    #[test]
    fn stale_block_is_found_and_can_be_rewritten() {
        let (_directory, repository) = repository();
        let page = "x\n\n<!-- source: src/a.rs#inner -->\n```rust\nif two() {\n    four();\n}\n```\n";
        let faults = check(&Document::parse("page.md", page), &repository);
        assert_eq!((faults.len(), faults[0].line), (1, 4));
        for part in
            ["page.md:4: the block differs from src/a.rs#inner", "-    four();", "+    three();", "BLESS=1"]
        {
            assert!(faults[0].to_string().contains(part), "{part}: {}", faults[0]);
        }
        let fix = faults[0].fix.clone().unwrap();
        let mended = page.replace(&page[fix.range], &fix.text);
        assert_eq!(check(&Document::parse("page.md", &mended), &repository), []);
    }

    #[test]
    fn mark_without_effect_is_found() {
        let (_directory, repository) = repository();
        let page =
            "<!-- sorce: src/a.rs -->\n```\n```\n\n<!-- source: src/a.rs -->\n\ntext\n\n<!-- lint: off -->\n";
        let faults = check(&Document::parse("page.md", page), &repository);
        let faults: Vec<_> = faults.iter().map(Fault::to_string).collect();
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].starts_with("page.md:1: 'sorce' is not a mark"), "{faults:?}");
        assert!(faults[1].starts_with("page.md:5: the mark 'source' is not above a block"), "{faults:?}");
    }

    #[test]
    fn include_is_refused() {
        let page =
            "{{#include ../src/a.rs}}\n\\{{#include nothing}}\n{{#rustdoc_include ../src/a.rs:other}}\n";
        let faults = includes(&Document::parse("book/page.md", page));
        assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [1, 3], "{faults:?}");
        assert!(faults[0].what.contains("the include of ../src/a.rs as text"), "{faults:?}");
    }

    #[test]
    fn region_must_have_a_beginning_and_an_end() {
        assert_eq!(anchors("a.rs", SOURCE), []);
        let bad = "// ANCHOR: a\n# ANCHOR: a\n// ANCHOR_END: a\n<!-- ANCHOR_END: b -->\n";
        let faults: Vec<_> = anchors("a.rs", bad).iter().map(Fault::to_string).collect();
        assert_eq!(
            faults,
            [
                "a.rs:2: the region 'a' begins a second time",
                "a.rs:4: the region 'b' ends without a beginning",
                "a.rs:2: the region 'a' has no ANCHOR_END"
            ]
        );
    }
}
