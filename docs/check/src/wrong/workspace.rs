//! The workspace in which wrong solutions are built. It is written below the target directory, and shares its
//! lock file, its profiles and its target directory with the repository's workspace, so that no dependency is
//! built again.
//!
//! Linking a test with Pingora takes seconds and more than a hundred megabytes. So there is one test program
//! for each exercise, with a module for each wrong solution: the text of the exercise's tests, and in it the
//! solution, as a module with the name of the exercise's crate. An exercise with more sources than usual, or
//! with a program of its own, gets a package for each wrong solution instead.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::Wrong;
use crate::exercises::Exercise;
use crate::repository::Repository;

/// Sources of an ordinary exercise.
const ORDINARY: [&str; 3] = ["exercise.rs", "lib.rs", "solution.rs"];

/// File that makes the peers of most exercises.
const PEERS: &str = "docs/exercises/peer.rs";
/// Function of that file, as the exercises name it. Its module is at the root of each crate.
const PEER: &str = "crate::peer::peer";

/// Generated package with one test program.
#[derive(Debug)]
pub struct Package {
    /// Name of the package and of its directory.
    name: String,
    /// Directory of the exercise, from the repository's root.
    pub directory: String,
    /// True if the tests run a program of the exercise.
    pub has_program: bool,
    /// Wrong solutions that the test program contains.
    pub wrong: Vec<Wrong>,
    /// Manifest of the package.
    manifest: Table,
    /// Generated files, with their text.
    texts: Vec<(String, String)>,
    /// Symbolic links, with the files that they lead to.
    links: Vec<(String, PathBuf)>,
    /// First line of each solution's module, or nothing if the program has no modules.
    lines: Vec<usize>,
}

/// Generated workspace.
pub struct Workspace {
    /// Directory of the workspace.
    pub directory: PathBuf,
    /// Target directory, which is the repository's.
    pub target: PathBuf,
    packages: Vec<Package>,
}

/// Returns the packages for an exercise's wrong solutions.
pub fn packages(
    repository: &Repository,
    exercise: &Exercise,
    files: &[String],
    wrong: &[Wrong],
) -> Vec<Package> {
    let inside = |part: &str| {
        let part = format!("{}/{part}/", exercise.directory);
        files.iter().filter_map(move |file| file.strip_prefix(&part)).map(str::to_owned).collect::<Vec<_>>()
    };
    let (sources, tests) = (inside("src"), inside("tests"));
    let uses_crate = |wrong: &Wrong| repository.read(&wrong.file).replace(PEER, "").contains("crate::");
    let is_ordinary = sources == ORDINARY && tests == ["check.rs"] && !wrong.iter().any(uses_crate);
    match wrong {
        [] => Vec::new(),
        all if is_ordinary => vec![modules(repository, exercise, all)],
        all => all.iter().map(|one| alone(repository, exercise, &sources, &tests, one)).collect(),
    }
}

/// Returns a package with all wrong solutions of an exercise, each in a module.
fn modules(repository: &Repository, exercise: &Exercise, wrong: &[Wrong]) -> Package {
    let Exercise { directory, package, .. } = exercise;
    let tests = repository.read(&format!("{directory}/tests/check.rs"));
    let (mut text, mut lines) = (String::new(), Vec::new());
    if wrong.iter().any(|wrong| repository.read(&wrong.file).contains(PEER)) {
        let peer = repository.root().join(PEERS).display().to_string();
        text = format!("#[path = {peer:?}]\nmod peer;\n");
    }
    for (number, wrong) in wrong.iter().enumerate() {
        lines.push(text.lines().count() + 1);
        let file = repository.root().join(&wrong.file);
        // The tests come first, because they may begin with attributes of their module. Public items of a
        // library that no test uses are no dead code.
        text.push_str(&format!(
            "mod {} {{\n{tests}\n#[path = {:?}]\n#[allow(dead_code)]\npub mod {package};\n}}\n",
            module(number, &wrong.name),
            file.display().to_string()
        ));
    }
    let mut manifest = manifest(repository, exercise, &format!("wrong_{package}"));
    // The name of the crate is the exercise's, as it stands in log lines and type names.
    insert(&mut manifest, "test", vec![target(package, "tests.rs")]);
    Package {
        name: format!("wrong_{package}"),
        directory: directory.clone(),
        has_program: false,
        wrong: wrong.to_vec(),
        manifest,
        texts: vec![("tests.rs".to_owned(), text)],
        links: Vec::new(),
        lines,
    }
}

/// Returns a package with one wrong solution: the exercise, with this file in place of the starter.
fn alone(
    repository: &Repository,
    exercise: &Exercise,
    sources: &[String],
    tests: &[String],
    wrong: &Wrong,
) -> Package {
    let Exercise { directory, package, .. } = exercise;
    let name = format!("wrong_{package}_{}", wrong.name);
    let mut manifest = manifest(repository, exercise, &name);
    let mut library = Table::from_iter([("name".to_owned(), Value::from(package.as_str()))]);
    library.extend(["test", "doctest"].map(|kind| (kind.to_owned(), Value::from(false))));
    insert(&mut manifest, "lib", library);
    insert(
        &mut manifest,
        "features",
        Table::from_iter([("solution".to_owned(), Value::from(Vec::<Value>::new()))]),
    );
    insert(&mut manifest, "test", vec![target(package, "tests/check.rs")]);
    let has_program = sources.iter().any(|source| source == "main.rs");
    if has_program {
        // Each program has its own name, because all have the same output directory.
        insert(&mut manifest, "bin", vec![target(&name, "src/main.rs")]);
    }
    let root = repository.root();
    let mut links = Vec::new();
    for source in sources.iter().filter(|source| *source != "solution.rs") {
        let file = if source == "exercise.rs" { &wrong.file } else { &format!("{directory}/src/{source}") };
        links.push((format!("src/{source}"), root.join(file)));
    }
    for test in tests.iter().filter(|test| *test != "check.rs") {
        links.push((format!("tests/{test}"), root.join(format!("{directory}/tests/{test}"))));
    }
    // A step of the capstone uses the files of the steps before it: `#[path = "../../NN_step/src/file.rs"]`.
    let chapter = root.join(directory).parent().map(std::fs::read_dir);
    for step in chapter.into_iter().flatten().flatten().flatten() {
        links.push((format!("../{}", step.file_name().to_string_lossy()), step.path()));
    }
    // `lib.rs` names the file of the peers as `../../../peer.rs`.
    links.push(("../../peer.rs".to_owned(), root.join(PEERS)));
    let text = repository.read(&format!("{directory}/tests/check.rs"));
    let text = text.replace(&format!("CARGO_BIN_EXE_{package}"), &format!("CARGO_BIN_EXE_{name}"));
    Package {
        name,
        directory: directory.clone(),
        has_program,
        wrong: vec![wrong.clone()],
        manifest,
        texts: vec![("tests/check.rs".to_owned(), text)],
        links,
        lines: Vec::new(),
    }
}

/// Returns the name of a solution's module. Because of the number, no name is a part of another one, and the
/// name of a module selects its tests alone.
fn module(number: usize, name: &str) -> String {
    format!("w{number:02}_{name}")
}

/// Returns a manifest with the exercise's dependencies and no target.
fn manifest(repository: &Repository, exercise: &Exercise, name: &str) -> Table {
    let written = table(repository, &format!("{}/Cargo.toml", exercise.directory));
    let package = [("name", name), ("version", "0.0.0"), ("edition", "2024")];
    let mut package = Table::from_iter(package.map(|(key, value)| (key.to_owned(), Value::from(value))));
    insert(&mut package, "publish", false);
    insert(&mut package, "autobins", false);
    insert(&mut package, "autotests", false);
    let mut manifest = Table::new();
    insert(&mut manifest, "package", package);
    for key in ["dependencies", "dev-dependencies"] {
        manifest.extend(written.get(key).map(|value| (key.to_owned(), value.clone())));
    }
    manifest
}

fn target(name: &str, path: &str) -> Table {
    Table::from_iter(
        [("name", name), ("path", path)].map(|(key, value)| (key.to_owned(), Value::from(value))),
    )
}

fn insert(table: &mut Table, key: &str, value: impl Into<Value>) {
    table.insert(key.to_owned(), value.into());
}

fn table(repository: &Repository, file: &str) -> Table {
    let text = repository.read(file);
    text.parse().unwrap_or_else(|error| panic!("{file} is not valid: {error}"))
}

/// Returns the manifest of the workspace: dependencies and profiles of the repository's.
fn root(repository: &Repository, packages: &[Package]) -> Table {
    let mut written = table(repository, "Cargo.toml");
    let Some(Value::Table(mut workspace)) = written.remove("workspace") else {
        panic!("Cargo.toml is not the manifest of a workspace")
    };
    workspace.retain(|key, _| key == "resolver" || key == "dependencies");
    let names = packages.iter().map(|package| Value::from(package.name.as_str()));
    insert(&mut workspace, "members", names.collect::<Vec<_>>());
    if let Some(Value::Table(dependencies)) = workspace.get_mut("dependencies") {
        let tables = dependencies.iter_mut().filter_map(|(_, value)| value.as_table_mut());
        for path in tables.filter_map(|table| table.get_mut("path")) {
            let absolute = path.as_str().map(|path| repository.root().join(path));
            *path = Value::from(absolute.unwrap_or_default().display().to_string());
        }
    }
    let mut profiles: Table =
        written.remove("profile").and_then(|profile| profile.try_into().ok()).unwrap_or_default();
    if let Value::Table(dev) = profiles.entry("dev").or_insert_with(|| Table::new().into()) {
        // The programs run once, and a failure needs no backtrace: do what makes the build short and small.
        // Dependencies keep their profile.
        insert(dev, "debug", false);
        insert(dev, "incremental", false);
    }
    let mut root = Table::new();
    insert(&mut root, "workspace", workspace);
    insert(&mut root, "profile", profiles);
    root
}

impl Workspace {
    /// Writes the workspace below the target directory. Files that do not change keep their time, so that
    /// cargo does not build them again.
    ///
    /// # Panics
    /// Panics if a file cannot be written.
    pub fn write(repository: &Repository, target: &Path, packages: Vec<Package>) -> Workspace {
        let directory = target.join("wrong/packages");
        let root = root(repository, &packages);
        let workspace = Workspace { directory, target: target.to_owned(), packages };
        let written = workspace.write_files(&root, &repository.root().join("Cargo.lock"));
        written.unwrap_or_else(|error| panic!("cannot write {}: {error}", workspace.directory.display()));
        workspace
    }

    fn write_files(&self, root: &Table, lock: &Path) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let names: BTreeSet<&str> = self.packages.iter().map(|package| package.name.as_str()).collect();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() && !names.contains(&*entry.file_name().to_string_lossy()) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        write(&self.directory.join("Cargo.toml"), &root.to_string())?;
        // Cargo removes the packages that are not needed here, and changes no version.
        fs::copy(lock, self.directory.join("Cargo.lock"))?;
        for package in &self.packages {
            let directory = self.directory.join(&package.name);
            write(&directory.join("Cargo.toml"), &package.manifest.to_string())?;
            for (file, text) in &package.texts {
                write(&directory.join(file), text)?;
            }
            for (file, to) in &package.links {
                link(&directory.join(file), to)?;
            }
        }
        Ok(())
    }

    /// Returns the package that a source belongs to.
    pub fn package(&self, source: impl AsRef<Path>) -> Option<&Package> {
        let inside = source.as_ref().strip_prefix(&self.directory).ok()?;
        let name = inside.components().next()?.as_os_str().to_str()?;
        self.packages.iter().find(|package| package.name == name)
    }
}

impl Package {
    /// Returns the arguments with which the test program runs the tests of one solution only.
    pub fn only(&self, wrong: &Wrong) -> Option<String> {
        let number = self.wrong.iter().position(|other| other == wrong)?;
        (!self.lines.is_empty()).then(|| format!("{}::", module(number, &wrong.name)))
    }

    /// Returns the solution whose module contains this line of the test program, or the only one.
    pub fn at_line(&self, line: usize) -> Option<&Wrong> {
        let place = self.lines.iter().filter(|first| **first <= line).count();
        self.wrong.get(place.saturating_sub(1))
    }
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(file).is_ok_and(|written| written == text) {
        return Ok(());
    }
    fs::create_dir_all(file.parent().unwrap_or(file))?;
    fs::write(file, text)
}

fn link(file: &Path, to: &Path) -> io::Result<()> {
    if fs::read_link(file).is_ok_and(|written| written == to) {
        return Ok(());
    }
    fs::create_dir_all(file.parent().unwrap_or(file))?;
    // Removal fails if there is no link yet.
    let _ = fs::remove_file(file);
    std::os::unix::fs::symlink(to, file)
}
