//! Check that the newest entry of the changelog is for the workspace's version, so that neither is changed
//! without the other.

use crate::repository::Repository;
use crate::{Fault, Pattern, pattern};

/// Page with the changelog.
const PAGE: &str = "docs/src/changelog.md";

/// Returns a fault for each difference between `[workspace.package] version` and the headings of the
/// changelog, which must be sorted with the newest first.
pub fn check(repository: &Repository) -> Vec<Fault> {
    let manifest = repository.find("Cargo.toml").and_then(|text| text.parse::<toml::Table>().ok());
    let version = manifest.as_ref().and_then(|manifest| {
        manifest.get("workspace")?.get("package")?.get("version")?.as_str().map(str::to_owned)
    });
    let Some(version) = version else {
        return vec![Fault::new("Cargo.toml", 0, "has no version in [workspace.package]")];
    };
    let Some(page) = repository.find(PAGE) else {
        return vec![Fault::new(PAGE, 0, "is missing; it must list the changes of each version")];
    };
    faults(&page, &version)
}

fn faults(page: &str, version: &str) -> Vec<Fault> {
    static ENTRY: Pattern = Pattern::new(|| pattern(r"^## (\d+)\.(\d+)\.(\d+)$"));
    let lines = (1..).zip(page.lines());
    let entries: Vec<(usize, [u64; 3])> = lines
        .filter_map(|(line, text)| {
            let entry = ENTRY.captures(text)?;
            let [major, minor, patch] = [1, 2, 3].map(|part| entry[part].parse().unwrap_or(0));
            Some((line, [major, minor, patch]))
        })
        .collect();
    let written = |[major, minor, patch]: [u64; 3]| format!("{major}.{minor}.{patch}");
    let mut faults = Vec::new();
    match entries.first() {
        Some((_, newest)) if written(*newest) == version => {}
        Some((line, newest)) => {
            let newest = written(*newest);
            let what = format!(
                "the newest entry is {newest}, and the workspace has {version}: add '## {version}' above it, with the \
                 changes that users notice"
            );
            faults.push(Fault::new(PAGE, *line, what));
        }
        None => {
            faults.push(Fault::new(PAGE, 0, format!("has no entry; it should begin with '## {version}'")))
        }
    }
    for pair in entries.windows(2) {
        if let [(_, newer), (line, older)] = pair
            && newer <= older
        {
            faults.push(Fault::new(PAGE, *line, format!("{} is below an older version", written(*older))));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(page: &str) -> Vec<String> {
        faults(page, "0.2.0").iter().map(Fault::to_string).collect()
    }

    #[test]
    fn newest_entry_must_match_the_workspace_version() {
        assert_eq!(
            said("# C\n\n## 0.2.0\n\n- a\n\n## 0.1.10\n\n## 0.1.9\n\n## What usually goes wrong\n"),
            [""; 0]
        );
        let behind = said("# C\n\n## 0.1.0\n");
        assert!(behind.len() == 1 && behind[0].contains(":3: the newest entry is 0.1.0"), "{behind:?}");
        assert!(said("# C\n")[0].contains("has no entry"));
        let turned = said("## 0.2.0\n## 0.1.9\n## 0.1.10\n");
        assert!(turned.len() == 1 && turned[0].contains("0.1.10 is below an older version"), "{turned:?}");
    }

    #[test]
    fn missing_changelog_is_found() {
        let directory = tempfile::tempdir().and_then(|directory| {
            let manifest = "[workspace.package]\nversion = \"1.0.0\"\n";
            std::fs::write(directory.path().join("Cargo.toml"), manifest).map(|()| directory)
        });
        let directory = directory.unwrap_or_else(|error| panic!("{error}"));
        let faults = check(&Repository::at(directory.path()));
        assert!(faults.len() == 1 && faults[0].what.contains("is missing"), "{faults:?}");
    }
}
