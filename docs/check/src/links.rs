//! Check of the links between the repository's files. The target file must exist and, if the link names a
//! heading, have this heading. Links to other sites are not followed, so that tests need no internet.

use std::collections::BTreeMap;

use crate::markdown::Document;
use crate::repository::{Repository, relative_to};
use crate::{Fault, Pattern, pattern};

/// Returns a fault for each broken link.
pub fn check(documents: &[Document], repository: &Repository) -> Vec<Fault> {
    let pages = documents.iter().map(|page| (page.path.as_str(), page)).collect();
    let mut faults = Vec::new();
    for document in documents {
        for link in &document.links {
            if let Err(what) = follow(&document.path, &link.target, &pages, repository) {
                faults.push(Fault::new(
                    &document.path,
                    link.line,
                    format!("the link {} {what}", link.target),
                ));
            }
        }
    }
    faults
}

fn follow(
    from: &str,
    target: &str,
    pages: &BTreeMap<&str, &Document>,
    repository: &Repository,
) -> Result<(), String> {
    static SCHEME: Pattern = Pattern::new(|| pattern(r"^[a-z][a-z0-9+.-]*:"));
    if SCHEME.is_match(target) {
        return elsewhere(target, repository);
    }
    let (path, fragment) = target.split_once('#').map_or((target, None), |(path, part)| (path, Some(part)));
    let path = match path {
        "" => from.to_owned(),
        path => relative_to(from, path).ok_or("leads out of the repository")?,
    };
    if !repository.root().join(&path).exists() {
        return Err(format!("leads to {path}, which does not exist"));
    }
    let Some(fragment) = fragment else { return Ok(()) };
    match pages.get(path.as_str()) {
        Some(page) if page.anchors.contains(fragment) => Ok(()),
        Some(_) => Err(format!("names a heading that {path} does not have")),
        None => {
            Err(format!("names a part of {path}, which is not a page: line numbers change, link to the file"))
        }
    }
}

/// Checks a link to another site. It must not lead to a file of this repository, because it would show the
/// branch on GitHub and not the reader's files. Cloudflare's repositories are other repositories.
fn elsewhere(target: &str, repository: &Repository) -> Result<(), String> {
    static FILE: Pattern =
        Pattern::new(|| pattern(r"^https://github\.com/([^/]+)/[^/]+/(?:blob|tree|raw)/[^/]+/([^#?]+)"));
    match FILE.captures(target) {
        Some(found) if &found[1] != "cloudflare" && repository.root().join(&found[2]).exists() => Err(
            format!("leads to GitHub for a file of this repository: write a relative link to {}", &found[2]),
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the faults of a page's links. The page lies beside `docs/other.md` and `docs/src/lib.rs`.
    fn faults(page: &str) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("docs/src")).unwrap();
        for (file, text) in
            [("docs/page.md", page), ("docs/other.md", "# The *other* one\n"), ("docs/src/lib.rs", "")]
        {
            std::fs::write(directory.path().join(file), text).unwrap();
        }
        let repository = Repository::at(directory.path());
        check(&repository.documents(), &repository).iter().map(Fault::to_string).collect()
    }

    #[test]
    fn valid_links_have_no_faults() {
        let page = "# Here\n[a](other.md) [b](other.md#the-other-one) [c](#here) [d](src/lib.rs) [e](src) \
                    [f](https://example.com/x) [g](mailto:a@b) \
                    [h](https://github.com/cloudflare/pingora/blob/main/docs/other.md)\n";
        assert_eq!(faults(page), [""; 0]);
    }

    #[test]
    fn broken_links_are_found() {
        for (target, what) in [
            ("nothing.md", "leads to docs/nothing.md, which does not exist"),
            ("../../etc/passwd", "leads out of the repository"),
            ("other.md#another", "names a heading that docs/other.md does not have"),
            ("#there", "names a heading that docs/page.md does not have"),
            ("src/lib.rs#L3", "names a part of docs/src/lib.rs, which is not a page"),
            (
                "https://github.com/someone/fork/blob/main/docs/other.md",
                "write a relative link to docs/other.md",
            ),
        ] {
            for page in [format!("\n[a]({target})\n"), format!("|x|\n|-|\n|![a]({target})|\n")] {
                let faults = faults(&page);
                assert!(faults.len() == 1 && faults[0].contains(what), "{target}: {faults:?}");
                assert!(faults[0].starts_with("docs/page.md:"), "{faults:?}");
            }
        }
    }
}
