//! The exercises, as their manifests describe them, and the check that each is complete: a name that
//! workshop-runner accepts, a starter with a task, a short solution, one or two hints, and its minutes.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use similar::{ChangeTag, TextDiff};

use crate::{Fault, Pattern, pattern};

/// Directory of all exercises.
pub const DIRECTORY: &str = "docs/exercises";
/// Maximum number of lines that a learner writes.
const LONGEST_PART: usize = 35;

/// Exercise of the workshop, as its manifest describes it.
#[derive(Debug, Clone)]
pub struct Exercise {
    /// Directory of the exercise: `docs/exercises/NN_topic/NN_name`.
    pub directory: String,
    /// Name of the package: `exNNNN`.
    pub package: String,
    /// Title of the exercise.
    pub title: String,
    /// Time that a beginner needs, in minutes.
    pub minutes: u32,
    /// Packages of the exercises that must be done before.
    pub needs: Vec<String>,
    /// Topic that the learner studies.
    pub learn: String,
    hint: String,
    more: Option<String>,
    features: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct Manifest {
    package: Package,
    #[serde(default)]
    features: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    description: String,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    workshop: Workshop,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Workshop {
    title: String,
    minutes: u32,
    needs: Vec<String>,
    /// First hint, which names what to look for.
    hint: String,
    /// Second hint, which says how to do it, for learners who ask for it.
    more: Option<String>,
}

impl Exercise {
    /// Returns the directory of the exercise's chapter, `NN_topic`.
    pub fn chapter(&self) -> &str {
        self.directory.split('/').nth(2).unwrap_or("")
    }

    fn parse(directory: &str, manifest: &str) -> Result<Self, toml::de::Error> {
        let Manifest { package, features } = toml::from_str(manifest)?;
        let Workshop { title, minutes, needs, hint, more } = package.metadata.workshop;
        let (directory, learn) = (directory.to_owned(), package.description);
        Ok(Exercise { directory, package: package.name, title, minutes, needs, learn, hint, more, features })
    }
}

/// Returns all exercises among `files`, in order, and a fault for each directory that is not a valid
/// exercise.
pub fn find(files: &[String], read: impl Fn(&str) -> Option<String>) -> (Vec<Exercise>, Vec<Fault>) {
    static INSIDE: Pattern = Pattern::new(|| pattern(&format!("^({DIRECTORY}/[^/]+/[^/]+)/")));
    let inside = files.iter().filter_map(|file| INSIDE.captures(file));
    let directories: BTreeSet<String> = inside.map(|found| found[1].to_owned()).collect();
    let (mut exercises, mut faults) = (Vec::new(), Vec::new());
    for directory in directories {
        let file = format!("{directory}/Cargo.toml");
        match read(&file).map(|manifest| Exercise::parse(&directory, &manifest)) {
            Some(Ok(exercise)) => exercises.push(exercise),
            Some(Err(error)) => {
                faults.push(Fault::new(&file, 0, format!("is not a valid manifest of an exercise: {error}")))
            }
            None => faults.push(Fault::new(&directory, 0, "has no Cargo.toml: is it an exercise?")),
        }
    }
    (exercises, faults)
}

/// Returns the faults of the exercises, of each one and of the series. A starter that `solved` names may have
/// no TODO.
pub fn check(
    files: &[String],
    read: impl Fn(&str) -> Option<String>,
    solved: impl Fn(&str) -> bool,
) -> Vec<Fault> {
    let (exercises, mut faults) = find(files, &read);
    faults.extend(numbers(&exercises));
    for (place, exercise) in exercises.iter().enumerate() {
        let Exercise { directory, .. } = exercise;
        let manifest = format!("{directory}/Cargo.toml");
        let told = manifest_faults(exercise, &exercises[..place], &read(&manifest).unwrap_or_default());
        faults.extend(told.into_iter().map(|what| Fault::new(&manifest, 0, what)));
        let mut text = |file: &str| {
            let text = read(&format!("{directory}/{file}"));
            if text.is_none() {
                faults.push(Fault::new(
                    &format!("{directory}/{file}"),
                    0,
                    "is missing; every exercise must have one",
                ));
            }
            text.unwrap_or_default()
        };
        let [starter, solution, _, _] =
            ["src/exercise.rs", "src/solution.rs", "src/lib.rs", "tests/check.rs"].map(&mut text);
        faults.extend(part_faults(directory, &starter, &solution, &solved));
    }
    faults
}

/// Returns a fault for each name that workshop-runner does not accept, and for each gap in the numbers.
fn numbers(exercises: &[Exercise]) -> Vec<Fault> {
    static NAME: Pattern = Pattern::new(|| pattern(r"^(\d{2})_\w+$"));
    let mut chapters = BTreeMap::<&str, Vec<&str>>::new();
    for exercise in exercises {
        let name = exercise.directory.rsplit('/').next().unwrap_or("");
        chapters.entry(exercise.chapter()).or_default().push(name);
    }
    let series = chapters.iter().map(|(chapter, names)| (format!("{DIRECTORY}/{chapter}"), names.clone()));
    let all = [(DIRECTORY.to_owned(), chapters.keys().copied().collect())].into_iter().chain(series);
    let mut faults = Vec::new();
    for (directory, names) in all {
        for (number, name) in (1..).zip(names) {
            let what = match NAME.captures(name) {
                None => format!(
                    "{name} is not a name that workshop-runner accepts; expected two digits, _ and a word"
                ),
                Some(found) if found[1] != format!("{number:02}") => {
                    format!("{name} is number {number} here: numbers go on from 01 without a gap")
                }
                Some(_) => continue,
            };
            faults.push(Fault::new(&directory, 0, what));
        }
    }
    faults
}

/// Returns the faults of a manifest; `earlier` are the exercises before this one.
fn manifest_faults(exercise: &Exercise, earlier: &[Exercise], manifest: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut require = |fine: bool, what: String| {
        if !fine {
            faults.push(what)
        }
    };
    let numbers = exercise.directory.split('/').skip(2).filter_map(|name| name.get(..2));
    let package = format!("ex{}", numbers.collect::<String>());
    require(exercise.package == package, format!("the package is {}, expected {package}", exercise.package));
    let texts = [("description", &exercise.learn), ("title", &exercise.title), ("hint", &exercise.hint)];
    let more = exercise.more.as_ref().map(|more| ("more", more));
    for (key, value) in texts.into_iter().chain(more) {
        require(!value.trim().is_empty(), format!("`{key}` is empty"));
    }
    require(exercise.more.as_ref() != Some(&exercise.hint), "`more` says the same as `hint`".to_owned());
    let minutes = exercise.minutes;
    require(
        (1..=60).contains(&minutes),
        format!("`minutes` is {minutes}, expected 1 to 60: split a longer exercise"),
    );
    for need in &exercise.needs {
        let known = earlier.iter().any(|exercise| exercise.package == *need);
        require(known, format!("`needs` names {need}, which is not an earlier exercise"));
    }
    // testkit reads the hints from single lines, so that an exercise's test needs no TOML parser.
    for key in ["hint"].into_iter().chain(more.map(|(key, _)| key)) {
        let begins = |line: &str, with: &str| line.starts_with(&format!("{key} = {with}"));
        let on_a_line = manifest.lines().any(|line| begins(line, "\"") && !begins(line, "\"\"\""));
        let what =
            format!("`{key}` is not written as {key} = \"…\" on one line, as testkit's expect! reads it");
        require(on_a_line, what);
    }
    let features = &exercise.features;
    require(features.contains_key("solution"), "has no feature `solution`".to_owned());
    let default = features.get("default").is_some_and(|features| !features.is_empty());
    require(!default, "has default features: a learner must get the starter".to_owned());
    faults
}

/// Returns the faults of a starter and its solution.
fn part_faults(directory: &str, starter: &str, solution: &str, solved: impl Fn(&str) -> bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault =
        |file: &str, what: String| faults.push(Fault::new(&format!("{directory}/src/{file}"), 0, what));
    if !starter.contains("// TODO") && !solved(&format!("{directory}/src/exercise.rs")) {
        fault("exercise.rs", "has no `// TODO` that says what to write".to_owned());
    }
    if solution.contains("TODO") {
        fault("solution.rs", "has a TODO left".to_owned());
    }
    let part = part(starter, solution);
    if part > LONGEST_PART {
        fault(
            "solution.rs",
            format!(
                "a learner writes {part} lines, more than {LONGEST_PART}: move what teaches nothing into the starter"
            ),
        );
    }
    faults
}

/// Returns the number of lines that a learner adds to the starter to get the solution. Comments, empty lines
/// and imports are not counted.
fn part(starter: &str, solution: &str) -> usize {
    let diff = TextDiff::from_lines(starter, solution);
    let added = diff.iter_all_changes().filter(|change| change.tag() == ChangeTag::Insert);
    let lines = added.map(|change| change.value().trim());
    lines.filter(|line| !line.is_empty() && !line.starts_with("//") && !line.starts_with("use ")).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "[package]\nname = \"ex0101\"\ndescription = \"the phases\"\n\n\
                            [package.metadata.workshop]\ntitle = \"First\"\nminutes = 10\nneeds = []\n\
                            hint = \"do it\"\n\n[features]\nsolution = []\n";

    /// Starter that a learner has solved.
    const SOLVED: &str = "docs/exercises/01_upstream/01_solved/src/exercise.rs";

    /// Returns the faults of one exercise after `change` has changed its files.
    fn faults(change: impl Fn(&mut BTreeMap<String, String>)) -> Vec<String> {
        let directory = "docs/exercises/01_upstream/01_first";
        let mut files = BTreeMap::new();
        for (file, text) in [
            ("Cargo.toml", MANIFEST),
            ("src/exercise.rs", "fn a() {\n    // TODO: write it\n}\n"),
            ("src/solution.rs", "fn a() {\n    it();\n}\n"),
            ("src/lib.rs", ""),
            ("tests/check.rs", ""),
        ] {
            files.insert(format!("{directory}/{file}"), text.to_owned());
        }
        change(&mut files);
        let names: Vec<String> = files.keys().cloned().collect();
        check(&names, |file| files.get(file).cloned(), |file| SOLVED == file)
            .iter()
            .map(Fault::to_string)
            .collect()
    }

    /// Returns the faults of one exercise after a text in one file was replaced.
    fn with(file: &str, old: &str, new: &str) -> Vec<String> {
        faults(|files| {
            let file = files.iter_mut().find(|(name, _)| name.ends_with(file)).unwrap().1;
            assert!(file.contains(old));
            *file = file.replace(old, new);
        })
    }

    #[test]
    fn complete_exercise_has_no_faults() {
        assert_eq!(faults(|_| ()), [""; 0]);
        assert_eq!(with("Cargo.toml", "needs = []", "needs = []\nmore = \"do it so\""), [""; 0]);
    }

    #[test]
    fn incomplete_manifest_is_found() {
        for (old, new, fault) in [
            ("ex0101", "ex0102", "the package is ex0102, expected ex0101"),
            ("minutes = 10\n", "", "missing field `minutes`"),
            ("minutes = 10", "minutes = 90", "`minutes` is 90, expected 1 to 60"),
            ("hint = \"do it\"\n", "", "missing field `hint`"),
            ("\"do it\"", "\" \"", "`hint` is empty"),
            ("hint = \"do it\"", "hint = \"\"\"\ndo it\"\"\"", "`hint` is not written as"),
            ("title = \"First\"", "title = \"\"", "`title` is empty"),
            ("needs = []", "needs = [\"ex0102\"]", "names ex0102, which is not an earlier exercise"),
            ("the phases", "", "`description` is empty"),
            ("solution = []", "", "has no feature `solution`"),
            ("solution = []", "solution = []\ndefault = [\"solution\"]", "has default features"),
            ("needs = []", "needs = []\nminute = 1", "unknown field `minute`"),
            ("needs = []", "needs = []\nmore = \"\"", "`more` is empty"),
            ("needs = []", "needs = []\nmore = \"do it\"", "`more` says the same as `hint`"),
            ("needs = []", "needs = []\nmore = 'so'", "`more` is not written as"),
        ] {
            let faults = with("Cargo.toml", old, new);
            assert!(faults.len() == 1 && faults[0].contains(fault), "{fault}: {faults:?}");
        }
    }

    #[test]
    fn missing_files_of_an_exercise_are_found() {
        for file in ["src/exercise.rs", "src/solution.rs", "src/lib.rs", "tests/check.rs", "Cargo.toml"] {
            let faults = faults(|files| files.retain(|name, _| !name.ends_with(file)));
            assert!(faults[0].contains(file), "{file}: {faults:?}");
        }
        assert!(with("exercise.rs", "// TODO", "//")[0].contains("has no `// TODO`"));
        let solved = faults(|files| {
            let old = std::mem::take(files).into_iter();
            let solve = |text: String| text.replace("// TODO: write it", "it();");
            files.extend(old.map(|(name, text)| (name.replace("01_first", "01_solved"), solve(text))));
        });
        assert_eq!(solved, [""; 0]);
        assert!(with("solution.rs", "it();", "it(); // TODO")[0].contains("has a TODO left"));
    }

    #[test]
    fn long_solution_is_found_and_comments_do_not_count() {
        let lines = |line: &str, count| format!("{}\n", vec![line; count].join("\n"));
        assert_eq!(with("solution.rs", "it();\n", &lines("it();", 35)), [""; 0]);
        assert!(with("solution.rs", "it();\n", &lines("it();", 36))[0].contains("a learner writes 36 lines"));
        assert_eq!(with("solution.rs", "it();\n", &(lines("// so", 20) + &lines("it();", 35))), [""; 0]);
    }

    #[test]
    fn names_and_numbers_match_workshop_runner() {
        let moved = |to: &str| {
            faults(|files| {
                let old = std::mem::take(files);
                files.extend(
                    old.into_iter().map(|(name, text)| (name.replace("01_upstream/01_first", to), text)),
                );
            })
        };
        for (to, fault) in [
            ("01_upstream/first", "first is not a name that workshop-runner accepts"),
            ("upstream/01_first", "upstream is not a name that workshop-runner accepts"),
            ("01_upstream/01-first", "01-first is not a name that"),
            ("01_upstream/02_first", "02_first is number 1 here"),
            ("02_upstream/01_first", "02_upstream is number 1 here"),
        ] {
            let faults = moved(to);
            assert!(faults.iter().any(|found| found.contains(fault)), "{fault}: {faults:?}");
        }
    }
}
