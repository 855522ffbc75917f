//! Check that all packages share one build. Cargo gives a dependency the union of the features that the selected
//! packages ask for. If `cargo run -p simple_proxy` or `cargo test -p ex0101` asked for fewer features than the whole
//! workspace, a learner's next command would compile Pingora a second time. So the package `one_build` asks for all
//! features, every program and every test depends on it, and this check reports the features that are missing.

use std::collections::{BTreeMap, BTreeSet};

use crate::packages::cargo;
use crate::repository::Repository;
use crate::{Fault, in_parallel};

/// Packages that a learner runs with `cargo run -p`.
const PROGRAMS: [&str; 5] = ["gateway", "origin", "simple_proxy", "load_balancer", "header_filter"];

/// Sets of features with which each package is built. A package has a second set if the compiler's own programs (build
/// scripts and procedural macros) need it, too.
type Features = BTreeMap<String, BTreeSet<String>>;

/// Returns a fault for each set of features that `cargo run -p PACKAGE` or `cargo test -p PACKAGE` alone would build,
/// and that a build of the whole workspace does not contain. For tests, only Pingora and its dependencies count: a few
/// small packages that one exercise uses are built quickly.
pub fn check(repository: &Repository, packages: &[String]) -> Vec<Fault> {
    let whole = features(&tree(repository, &["--workspace"], "normal,build,dev"));
    let pingora = features(&tree(repository, &["-p", "pingora"], "normal"));
    let mut builds = BTreeMap::<Vec<String>, Vec<String>>::new();
    let programs: Vec<String> = PROGRAMS.map(str::to_owned).to_vec();
    for (command, edges, packages) in
        [("run", "normal,build", &programs[..]), ("test", "normal,build,dev", packages)]
    {
        let alone = in_parallel(2, packages, |package| features(&tree(repository, &["-p", package], edges)));
        for (package, mut alone) in packages.iter().zip(alone) {
            alone.retain(|dependency, _| command == "run" || pingora.contains_key(dependency));
            let command = format!("cargo {command} -p {package}");
            builds.entry(different(&whole, &alone)).or_default().push(command);
        }
    }
    builds.remove(&Vec::new());
    let fault = |(features, commands): (Vec<String>, Vec<String>)| {
        let (commands, features) = (commands.join(", "), features.join("\n"));
        let what = format!(
            "these commands compile dependencies again, because their features differ from the workspace's \
             ({commands}); add the missing ones to the dependencies of one_build:\n{features}"
        );
        Fault::new("docs/one_build/Cargo.toml", 0, what)
    };
    builds.into_iter().map(fault).collect()
}

fn tree(repository: &Repository, select: &[&str], edges: &str) -> String {
    let mut command = cargo(repository);
    command.arg("tree").args(select).args(["-e", edges, "--prefix", "none", "-f", "{p}|{f}"]);
    match command.output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(output) => panic!("cargo tree {}:\n{}", select.join(" "), String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("cannot run cargo: {error}"),
    }
}

/// Parses lines of package and features. `(*)` marks a package that was shown before.
fn features(tree: &str) -> Features {
    let mut found = Features::new();
    for line in tree.lines() {
        let mut parts = line.trim_end_matches(" (*)").splitn(2, '|');
        if let (Some(package), Some(features)) = (parts.next(), parts.next()) {
            let package = package.trim_end_matches(" (proc-macro)");
            found.entry(package.to_owned()).or_default().insert(features.to_owned());
        }
    }
    found
}

/// Returns the sets of features that only the package alone asks for.
fn different(whole: &Features, alone: &Features) -> Vec<String> {
    let line = |(package, sets): (&String, &BTreeSet<String>)| {
        let shared = whole.get(package)?;
        let set = sets.iter().find(|set| !shared.contains(*set))?;
        let shared = shared.iter().map(String::as_str).collect::<Vec<_>>().join("] or [");
        Some(format!("  {package}: [{set}], and the workspace has [{shared}]"))
    };
    alone.iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str =
        "a v1|std\nm v1 (proc-macro)|\nlog v1|host\nc v1|\nb v1|x\nlog v1|std\nlog v1|std (*)\n";

    #[test]
    fn package_for_program_and_compiler_has_two_sets() {
        let features = features(TREE);
        let packages: Vec<_> = features.keys().map(String::as_str).collect();
        assert_eq!(packages, ["a v1", "b v1", "c v1", "log v1", "m v1"]);
        assert_eq!(features["log v1"], BTreeSet::from(["host".to_owned(), "std".to_owned()]));
    }

    #[test]
    fn set_of_features_outside_the_workspace_is_found() {
        let (whole, alone) = (features(TREE), features("b v1|\nlog v1|std\nother v1|\n"));
        assert_eq!(different(&whole, &alone), ["  b v1: [], and the workspace has [x]"]);
        assert_eq!(different(&whole, &whole), [""; 0]);
    }
}
