//! Check that all packages share one build. Cargo gives a dependency the union of the features that the
//! selected packages ask for. If `cargo test -p ex0101` asked for fewer features than the whole workspace, a
//! learner's first command would compile Pingora a second time. So testkit asks for all features of the
//! workspace, and this check reports the ones that are missing.

use std::collections::{BTreeMap, BTreeSet};

use crate::packages::cargo;
use crate::repository::Repository;
use crate::{Fault, in_parallel};

/// Features of each package that is built for the target, and not only for the compiler's use.
type Features = BTreeMap<String, BTreeSet<String>>;

/// Returns a fault for each set of features that `cargo test -p PACKAGE` alone would give to Pingora or its
/// dependencies, if it differs from the features of the whole workspace.
pub fn check(repository: &Repository, packages: &[String]) -> Vec<Fault> {
    let pingora: BTreeSet<String> =
        features(&tree(repository, &["-p", "pingora"], "normal")).into_keys().collect();
    let mut whole = features(&tree(repository, &["--workspace"], "normal,dev"));
    whole.retain(|package, _| pingora.contains(package));
    let alone =
        in_parallel(2, packages, |package| features(&tree(repository, &["-p", package], "normal,dev")));
    let mut builds = BTreeMap::<Vec<String>, Vec<&str>>::new();
    for (package, alone) in packages.iter().zip(alone) {
        builds.entry(different(&whole, &alone)).or_default().push(package);
    }
    builds.remove(&Vec::new());
    let fault = |(features, packages): (Vec<String>, Vec<&str>)| {
        let (packages, features) = (packages.join(", "), features.join("\n"));
        let what = format!(
            "`cargo test -p` with one of {packages} alone compiles Pingora again, because these features differ from \
             the workspace's; add the missing ones to the dependencies of testkit:\n{features}"
        );
        Fault::new("docs/testkit/Cargo.toml", 0, what)
    };
    builds.into_iter().map(fault).collect()
}

fn tree(repository: &Repository, select: &[&str], edges: &str) -> String {
    let mut command = cargo(repository);
    command.arg("tree").args(select).args(["-e", edges, "--prefix", "depth", "-f", "|{p}|{f}"]);
    match command.output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(output) => panic!("cargo tree {}:\n{}", select.join(" "), String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("cannot run cargo: {error}"),
    }
}

/// Parses lines of depth, package and features. A package that was shown before is shown with `(*)` and
/// without its dependencies, so the lines are first turned into a graph. Dependencies of a procedural macro
/// are left out, because cargo builds them separately for the compiler, with other features.
fn features(tree: &str) -> Features {
    let mut below = BTreeMap::<(&str, &str), Vec<(&str, &str)>>::new();
    let (mut path, mut roots) = (Vec::new(), Vec::new());
    for line in tree.lines() {
        let mut parts = line.trim_end_matches(" (*)").splitn(3, '|');
        let (Some(depth), Some(package), Some(features)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let node = (package, features);
        path.truncate(depth.parse().unwrap_or(0));
        match path.last() {
            Some(parent) => below.entry(*parent).or_default().push(node),
            None => roots.push(node),
        }
        path.push(node);
    }
    let (mut found, mut seen) = (Features::new(), BTreeSet::new());
    while let Some(node) = roots.pop() {
        if !node.0.contains("(proc-macro)") && seen.insert(node) {
            found.entry(node.0.to_owned()).or_default().insert(node.1.to_owned());
            roots.extend(below.get(&node).into_iter().flatten());
        }
    }
    found
}

/// Returns the differences between the workspace's features and those that a package asks for alone.
fn different(whole: &Features, alone: &Features) -> Vec<String> {
    let words = |sets: &BTreeSet<String>| -> BTreeSet<String> {
        sets.iter()
            .flat_map(|set| set.split(','))
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let line = |(package, features): (&String, &BTreeSet<String>)| {
        let alone = alone.get(package).filter(|alone| *alone != features)?;
        let (whole, alone) = (words(features), words(alone));
        let list =
            |set: &mut dyn Iterator<Item = &String>| set.map(String::as_str).collect::<Vec<_>>().join(",");
        let (missing, extra) = (list(&mut whole.difference(&alone)), list(&mut alone.difference(&whole)));
        Some(format!("  {package}: missing [{missing}], more than the workspace [{extra}]"))
    };
    whole.iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "0|a v1|std\n1|m v1 (proc-macro)|\n2|log v1|host\n2|c v1|\n1|b v1|x\n2|log v1|std\n\
                        3|deep v1|\n0|c v1|\n1|log v1|std (*)\n";

    #[test]
    fn packages_for_the_compiler_only_are_left_out() {
        let features = features(TREE);
        let packages: Vec<_> = features.keys().map(String::as_str).collect();
        assert_eq!(packages, ["a v1", "b v1", "c v1", "deep v1", "log v1"]);
        assert_eq!(features["log v1"], BTreeSet::from(["std".to_owned()]));
    }

    #[test]
    fn a_feature_that_is_missing_is_found() {
        let (whole, alone) =
            (features(TREE), features(&TREE.replace("|x", "|").replace("|log v1|std", "|log v1|std,y")));
        let different = different(&whole, &alone);
        assert_eq!(
            different,
            [
                "  b v1: missing [x], more than the workspace []",
                "  log v1: missing [], more than the workspace [y]"
            ]
        );
        assert_eq!(self::different(&whole, &whole), [""; 0]);
    }
}
