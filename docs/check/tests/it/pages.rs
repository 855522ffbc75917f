//! What stands on pages: snippets, tables, diagrams' names and links.

use check::{changelog, chapters, diagrams, hold, links, packages, snippets};

#[test]
fn blocks_with_a_source_say_what_it_says() {
    hold(|repository| {
        let documents = repository.documents();
        documents.iter().flat_map(|document| snippets::check(document, repository)).collect()
    });
}

#[test]
fn what_the_book_includes_is_there() {
    hold(|repository| {
        let mut faults = Vec::new();
        for document in repository.documents().iter().filter(|page| page.path.starts_with("docs/src/")) {
            faults.extend(snippets::includes(document, repository));
        }
        // Regions stand in text files only; what is no text has none.
        for file in repository.files() {
            let text = repository.find(&file);
            faults.extend(text.into_iter().flat_map(|text| snippets::anchors(&file, &text)));
        }
        faults
    });
}

#[test]
fn chapters_say_what_they_are_for() {
    hold(|repository| chapters::check(&repository.documents()));
}

#[test]
fn the_changelog_tells_of_this_version() {
    hold(changelog::check);
}

#[test]
fn links_lead_somewhere() {
    hold(|repository| links::check(&repository.documents(), repository));
}

#[test]
fn diagrams_name_methods_that_there_are() {
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
