//! The workspace as cargo resolves it: its packages, the sources of a dependency, and the packages that a
//! shipped program is built from.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

use crate::Fault;
use crate::repository::Repository;

/// Returns a command that runs cargo at the root as a user would, without the variables that cargo has set
/// for this test.
pub fn cargo(repository: &Repository) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.current_dir(repository.root());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
            .iter()
            .any(|own| name.starts_with(own))
        {
            command.env_remove(&*name);
        }
    }
    command
}

/// Returns the result of `cargo metadata`.
///
/// # Panics
/// Panics if cargo fails.
pub fn metadata(repository: &Repository) -> Metadata {
    let metadata = MetadataCommand::new().current_dir(repository.root()).exec();
    metadata.unwrap_or_else(|error| panic!("cargo metadata, in {}: {error}", repository.root().display()))
}

/// Returns the names of the workspace's packages.
pub fn members(metadata: &Metadata) -> BTreeSet<String> {
    metadata.workspace_packages().into_iter().map(|package| package.name.to_string()).collect()
}

/// Returns the file that `package/path` names in the sources of a dependency.
pub fn dependency_file(metadata: &Metadata, path: &str) -> Option<PathBuf> {
    let (name, path) = path.split_once('/')?;
    let package = metadata.packages.iter().find(|package| package.name == name)?;
    Some(package.manifest_path.parent()?.join(path).into()).filter(|file: &PathBuf| file.is_file())
}

/// Returns the names of all packages that `package`'s library and programs are built from.
///
/// # Panics
/// Panics if the workspace has no such package.
pub fn built_from(metadata: &Metadata, package: &str) -> BTreeSet<String> {
    let Some(resolve) = &metadata.resolve else { panic!("cargo metadata resolved nothing") };
    let name = |id: &PackageId| metadata[id].name.to_string();
    let members = metadata.workspace_packages();
    let Some(start) = members.iter().find(|member| member.name == package) else {
        panic!("the workspace has no package {package}")
    };
    let (mut seen, mut next) = (BTreeSet::from([&start.id]), vec![&start.id]);
    while let Some(id) = next.pop() {
        let dependencies = resolve.nodes.iter().filter(|node| node.id == *id).flat_map(|node| &node.deps);
        for dependency in dependencies {
            let kinds = dependency.dep_kinds.iter();
            let used = kinds.filter(|kind| kind.kind != DependencyKind::Development).count() > 0;
            if used && seen.insert(&dependency.pkg) {
                next.push(&dependency.pkg);
            }
        }
    }
    seen.into_iter().map(name).collect()
}

/// Returns a fault for each program of `shipped` that is built from one of `helpers`.
pub fn helpers_in(metadata: &Metadata, shipped: &[&str], helpers: &[&str]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for package in shipped {
        let parts = built_from(metadata, package);
        for helper in helpers.iter().filter(|helper| parts.contains(**helper)) {
            let what =
                format!("{package} is built from {helper}, which is for tests: make it a dev-dependency");
            faults.push(Fault::new("Cargo.toml", 0, what));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helper_in_a_program_is_found() {
        let metadata = metadata(&Repository::here());
        // `check` is not shipped, but it shows that the graph is walked: it uses testkit, which uses pingora.
        let faults = helpers_in(&metadata, &["check", "gateway"], &["testkit", "pingora-core"]);
        let faults: Vec<_> = faults.iter().map(Fault::to_string).collect();
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(faults[0].starts_with("Cargo.toml: check is built from testkit"), "{faults:?}");
    }

    #[test]
    fn dependency_file_is_found() {
        let metadata = metadata(&Repository::here());
        assert!(dependency_file(&metadata, "pingora-proxy/src/proxy_trait.rs").is_some());
        assert!(dependency_file(&metadata, "pingora-proxy/src/nothing.rs").is_none());
        assert!(dependency_file(&metadata, "nothing/src/lib.rs").is_none());
    }
}
