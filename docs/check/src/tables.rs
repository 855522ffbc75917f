//! Tables that are generated from the exercises' manifests, on a page between `<!-- generated: exercises -->`
//! and `<!-- /generated -->`.

use crate::exercises::Exercise;
use crate::markdown::Document;
use crate::repository::link_from;
use crate::{Fault, Fix, diff};

/// Page that must list every exercise.
pub const LIST: &str = "docs/exercises/README.md";

/// Returns a fault for each generated region that differs from the exercises' manifests.
pub fn check(documents: &[Document], exercises: &[Exercise]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for document in documents {
        faults.extend(regions(document, exercises));
    }
    let lists = |document: &Document| {
        document.path == LIST
            && document.marks.iter().any(|mark| mark.key == "generated" && mark.value == "exercises")
    };
    if !documents.iter().any(lists) {
        let what = "lists no exercises: write `<!-- generated: exercises -->` and `<!-- /generated -->`";
        faults.push(Fault::new(LIST, 0, format!("{what}, then BLESS=1 cargo test -p check")));
    }
    faults
}

fn regions(document: &Document, exercises: &[Exercise]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (place, mark) in document.marks.iter().enumerate().filter(|(_, mark)| mark.key == "generated") {
        let mut fault = |what: String| faults.push(Fault::new(&document.path, mark.line, what));
        let right = match mark.value.as_str() {
            "exercises" => table(&document.path, exercises),
            other => {
                fault(format!("'{other}' cannot be generated; expected exercises"));
                continue;
            }
        };
        let Some(end) = document.marks.get(place + 1).filter(|next| next.key == "/generated") else {
            fault("the region has no end: write `<!-- /generated -->` below it".to_owned());
            continue;
        };
        let range = mark.range.end..end.range.start;
        let right = format!("\n{right}\n");
        let written = &document.text[range.clone()];
        if written.trim() != right.trim() {
            let what = format!("the generated text differs from the manifests\n{}", diff(written, &right));
            faults.push(Fault::fixable(&document.path, mark.line, what, Fix { range, text: right }));
        }
    }
    faults
}

/// Returns the exercises by chapter.
fn chapters(exercises: &[Exercise]) -> Vec<&[Exercise]> {
    exercises.chunk_by(|one, next| one.chapter() == next.chapter()).collect()
}

/// Returns the name of a chapter for people, such as `1 upstream` for `01_upstream`.
fn name(chapter: &str) -> String {
    let (number, topic) = chapter.split_once('_').unwrap_or(("", chapter));
    format!("{} {}", number.trim_start_matches('0'), topic.replace('_', " "))
}

/// Returns a table for each chapter, with links relative to `page`.
fn table(page: &str, exercises: &[Exercise]) -> String {
    let mut text = String::new();
    for chapter in chapters(exercises) {
        let heading = chapter.first().map_or(String::new(), |exercise| name(exercise.chapter()));
        text.push_str(&format!("### {heading}\n\n| exercise | title | what you learn | minutes | after |\n"));
        text.push_str("|---|---|---|---|---|\n");
        for Exercise { directory, package, title, minutes, needs, learn, .. } in chapter {
            let link = link_from(page, &format!("{directory}/src/exercise.rs"));
            let (title, learn, needs) = (cell(title), cell(learn), needs.join(", "));
            text.push_str(&format!("| [{package}]({link}) | {title} | {learn} | {minutes} | {needs} |\n"));
        }
        text.push('\n');
    }
    text.trim_end().to_owned() + "\n"
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exercises::DIRECTORY;

    fn exercises() -> Vec<Exercise> {
        let manifest = |package: &str, minutes: u32, needs: &str| {
            format!(
                "[package]\nname = \"{package}\"\ndescription = \"a | b\"\n[package.metadata.workshop]\n\
                 title = \"T\"\nminutes = {minutes}\nneeds = [{needs}]\nhint = \"h\"\n"
            )
        };
        let files = [
            ("01_up/01_a", manifest("ex0101", 50, "")),
            ("01_up/02_b", manifest("ex0102", 25, "\"ex0101\"")),
            ("02_filter/01_c", manifest("ex0201", 50, "")),
        ];
        let files = files.map(|(directory, text)| (format!("{DIRECTORY}/{directory}/Cargo.toml"), text));
        let names: Vec<String> = files.iter().map(|(name, _)| name.clone()).collect();
        let read = |file: &str| Some(files.iter().find(|(name, _)| name == file)?.1.clone());
        crate::exercises::find(&names, read).0
    }

    fn faults(path: &str, text: &str) -> Vec<Fault> {
        check(&[Document::parse(path, text)], &exercises())
    }

    #[test]
    fn list_is_generated_and_then_accepted() {
        let page = "# E\n\n<!-- generated: exercises -->\n<!-- /generated -->\n";
        let found = faults(LIST, page);
        assert_eq!((found.len(), found[0].line), (1, 3), "{found:?}");
        let fix = found[0].fix.clone().unwrap();
        for part in [
            "### 1 up\n",
            "| [ex0101](01_up/01_a/src/exercise.rs) | T | a \\| b | 50 |  |\n",
            "| [ex0102](01_up/02_b/src/exercise.rs) | T | a \\| b | 25 | ex0101 |\n\n### 2 filter\n",
        ] {
            assert!(fix.text.contains(part), "{part}: {}", fix.text);
        }
        let mut page = page.to_owned();
        page.replace_range(fix.range, &fix.text);
        assert_eq!(faults(LIST, &page), []);
        let stale = page.replace("| 25 |", "| 20 |");
        assert!(faults(LIST, &stale)[0].what.contains("BLESS=1"));
        let without_a_row: Vec<&str> = page.lines().filter(|line| !line.contains("ex0201")).collect();
        assert_eq!(faults(LIST, &without_a_row.join("\n")).len(), 1);
    }

    #[test]
    fn invalid_generated_regions_are_found() {
        for (page, fault) in [
            ("<!-- generated: weather -->\n<!-- /generated -->\n", "'weather' cannot be generated"),
            ("<!-- generated: exercises -->\n", "the region has no end"),
        ] {
            let found = faults("docs/src/a.md", page);
            assert!(found[0].what.starts_with(fault), "{found:?}");
            assert!(
                found[1].to_string().starts_with("docs/exercises/README.md: lists no exercises"),
                "{found:?}"
            );
        }
    }
}
