//! Check that every page of the book begins with its goal and its minutes, and ends with the section on
//! frequent errors, so that a reader knows what to expect and where to look for help.

use crate::Fault;
use crate::markdown::Document;

/// Directory of the pages.
const DIRECTORY: &str = "docs/src/";
/// Title of the last section of each page.
const END: &str = "What usually goes wrong";

/// Returns a fault for each page that lacks one of the three parts.
pub fn check(documents: &[Document]) -> Vec<Fault> {
    let pages = documents.iter().filter(|page| page.path.starts_with(DIRECTORY));
    pages.filter(|page| !page.path.ends_with("/SUMMARY.md")).flat_map(faults).collect()
}

fn faults(page: &Document) -> Vec<Fault> {
    let opening = page.text.split("\n## ").next().unwrap_or(&page.text);
    let mut faults = Vec::new();
    for mark in ["**Goal**: ", "**Minutes**: "] {
        if !opening.contains(mark) {
            faults.push(Fault::new(&page.path, 1, format!("has no line with {mark}below its title")));
        }
    }
    if page.text.rsplit("\n## ").next().and_then(|section| section.lines().next()) != Some(END) {
        faults.push(Fault::new(&page.path, 0, format!("does not end with the section '## {END}'")));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(path: &str, text: &str) -> Vec<String> {
        check(&[Document::parse(path, text)]).iter().map(Fault::to_string).collect()
    }

    #[test]
    fn page_without_goal_minutes_or_end_is_found() {
        let whole = format!(
            "# T\n\n**Goal**: to know. **Minutes**: 5.\n\n## A\n\n## {END}\n\n- **Nothing.** It works.\n"
        );
        assert_eq!(said("docs/src/a.md", &whole), [""; 0]);
        for (part, fault) in [
            ("**Goal**: to know. ", "docs/src/a.md:1: has no line with **Goal**"),
            ("**Minutes**: 5.", "docs/src/a.md:1: has no line with **Minutes**"),
            ("\n## What usually goes wrong", "docs/src/a.md: does not end with"),
        ] {
            let faults = said("docs/src/a.md", &whole.replace(part, ""));
            assert!(faults.len() == 1 && faults[0].starts_with(fault), "{faults:?}");
        }
        assert_eq!(said("docs/src/SUMMARY.md", "# S\n"), [""; 0]);
        assert_eq!(said("README.md", "# R\n"), [""; 0]);
    }
}
