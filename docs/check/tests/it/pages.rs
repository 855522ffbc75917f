//! Tests of the pages: snippets, tables, names in diagrams, and links.

use check::{changelog, chapters, diagrams, hold, links, packages, snippets};

#[test]
fn code_blocks_equal_their_sources() {
    hold(|repository| {
        let documents = repository.documents();
        documents.iter().flat_map(|document| snippets::check(document, repository)).collect()
    });
}

#[test]
fn pages_include_nothing_and_regions_are_whole() {
    hold(|repository| {
        let mut faults = Vec::new();
        for document in repository.documents().iter().filter(|page| page.path.starts_with("docs/src/")) {
            faults.extend(snippets::includes(document));
        }
        // Regions exist only in text files; other files are skipped.
        for file in repository.files() {
            let text = repository.find(&file);
            faults.extend(text.into_iter().flat_map(|text| snippets::anchors(&file, &text)));
        }
        faults
    });
}

#[test]
fn chapters_have_goal_minutes_and_last_section() {
    hold(|repository| chapters::check(&repository.documents()));
}

#[test]
fn changelog_has_an_entry_for_this_version() {
    hold(changelog::check);
}

#[test]
fn links_have_existing_targets() {
    hold(|repository| links::check(&repository.documents(), repository));
}

#[test]
fn diagrams_name_existing_methods() {
    hold(|repository| {
        let metadata = packages::metadata(repository);
        let members = packages::members(&metadata);
        let read = |file: &str| {
            let dependency = || std::fs::read_to_string(packages::dependency_file(&metadata, file)?).ok();
            repository.find(file).or_else(dependency)
        };
        let documents = repository.documents();
        documents.iter().flat_map(|document| diagrams::check(document, &members, read)).collect()
    });
}
