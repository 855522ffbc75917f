//! Check of the timetables on the instructors' page: each exercise stands in one of them, after the exercises that it
//! needs, and the minutes are those of the manifests and of the chapters. `BLESS=1` writes the minutes and the times.

use std::collections::BTreeSet;

use crate::exercises::Exercise;
use crate::markdown::Document;
use crate::{Fault, Fix, Pattern, pattern};

/// Page with the timetables.
const PAGE: &str = "docs/src/instructor.md";

/// Returns a fault for each row that is not true, and for each exercise without a row.
pub fn check(documents: &[Document], exercises: &[Exercise]) -> Vec<Fault> {
    static MARK: Pattern = Pattern::new(|| pattern(r"^<!-- timetable: .+ -->$"));
    static CHAPTER: Pattern = Pattern::new(|| pattern(r"\]\((\w+\.md)\)"));
    static MINUTES: Pattern = Pattern::new(|| pattern(r"\*\*Minutes\*\*: (\d+)"));
    let Some(page) = documents.iter().find(|page| page.path == PAGE) else {
        return vec![Fault::new(PAGE, 0, "is missing")];
    };
    let (mut faults, mut seen) = (Vec::new(), BTreeSet::new());
    // Time of the day and sum of the minutes in the current table.
    let mut table: Option<(u32, u32)> = None;
    let mut byte = 0;
    for (number, line) in (1..).zip(page.text.split_inclusive('\n')) {
        let range = byte..byte + line.len();
        byte = range.end;
        if MARK.is_match(line.trim_end()) {
            table = Some((0, 0));
            continue;
        }
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let cells: Option<[&str; 4]> = cells.try_into().ok().filter(|_| line.starts_with('|'));
        let (Some((now, sum)), Some([at, what, package, written])) = (table, cells) else { continue };
        if at == "at" || at.starts_with("--") {
            continue;
        }
        let clock = |text: &str| {
            let (hours, minutes) = text.split_once(':')?;
            Some(hours.parse::<u32>().ok()? * 60 + minutes.parse::<u32>().ok()?)
        };
        // The first row says when the day begins.
        let now = if sum == 0 { clock(at).unwrap_or(now) } else { now };
        let exercise = exercises.iter().find(|exercise| exercise.package == package);
        let chapter = CHAPTER.captures(what).and_then(|found| {
            let path = format!("docs/src/{}", &found[1]);
            let chapter = documents.iter().find(|page| page.path == path)?;
            MINUTES.captures(&chapter.text)?[1].parse::<u32>().ok()
        });
        let mut fault = |what: String| faults.push(Fault::new(PAGE, number, what));
        if let Some(exercise) = exercise {
            for need in exercise.needs.iter().filter(|need| !seen.contains(need.as_str())) {
                fault(format!("{package} needs {need}, which is not in a row before it"));
            }
            if !seen.insert(package) {
                fault(format!("{package} stands in the timetables twice"));
            }
        } else if !package.is_empty() {
            fault(format!("there is no exercise {package}"));
        }
        let title = exercise.map_or(what, |exercise| &exercise.title);
        let minutes = match (exercise, chapter) {
            _ if what == "end" => sum,
            (Some(exercise), _) => exercise.minutes,
            (None, Some(minutes)) => minutes,
            (None, None) => written.parse().unwrap_or_default(),
        };
        let time = if at.is_empty() { String::new() } else { format!("{}:{:02}", now / 60, now % 60) };
        let cell = |text: &str| if text.is_empty() { " ".to_owned() } else { format!(" {text} ") };
        let right = format!("|{}|{}|{}| {minutes} |\n", cell(&time), cell(title), cell(package));
        if line != right {
            let what = format!("the row is not true; expected: {}", right.trim_end());
            faults.push(Fault::fixable(PAGE, number, what, Fix { range, text: right }));
        }
        table = (what != "end").then_some((now + minutes, sum + minutes));
    }
    let missing = exercises.iter().filter(|exercise| !seen.contains(exercise.package.as_str()));
    let missing =
        missing.map(|exercise| Fault::new(PAGE, 0, format!("{} is in no timetable", exercise.package)));
    faults.extend(missing);
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns two exercises of 10 and 15 minutes; the second needs the first.
    fn exercises() -> Vec<Exercise> {
        let manifest = |package: &str, minutes: u32, needs: &str| {
            format!(
                "[package]\nname = \"{package}\"\ndescription = \"d\"\n[package.metadata.workshop]\n\
                 title = \"T {package}\"\nminutes = {minutes}\nneeds = [{needs}]\nhint = \"h\"\n"
            )
        };
        let directory = |name: &str| format!("{}/01_up/{name}/Cargo.toml", crate::exercises::DIRECTORY);
        let files = [
            (directory("01_a"), manifest("ex0101", 10, "")),
            (directory("02_b"), manifest("ex0102", 15, "\"ex0101\"")),
        ];
        let names: Vec<String> = files.iter().map(|(name, _)| name.clone()).collect();
        crate::exercises::find(&names, |file| Some(files.iter().find(|(name, _)| name == file)?.1.clone())).0
    }

    fn faults(rows: &str) -> Vec<Fault> {
        let page = format!(
            "# I\n\n<!-- timetable: day one -->\n| at | what | package | minutes |\n|---|---|---|---|\n{rows}"
        );
        let chapter = Document::parse("docs/src/a.md", "# A\n\n**Goal**: g. **Minutes**: 20.\n");
        check(&[Document::parse(PAGE, &page), chapter], &exercises())
    }

    const RIGHT: &str = "| 9:00 | [A](a.md) |   | 20 |\n| 9:20 | T ex0101 | ex0101 | 10 |\n\
                         | 9:30 | break |   | 5 |\n| 9:35 | T ex0102 | ex0102 | 15 |\n| 9:50 | end |   | 50 |\n";

    #[test]
    fn timetable_that_follows_the_manifests_has_no_faults() {
        assert_eq!(faults(&RIGHT.replace("   ", " ")), []);
    }

    #[test]
    fn wrong_minutes_and_times_can_be_rewritten() {
        let right = RIGHT.replace("   ", " ");
        let found = faults(&right.replace("| 9:35 | T ex0102 | ex0102 | 15 |", "| 9:40 | T | ex0102 | 25 |"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].fix.as_ref().unwrap().text, "| 9:35 | T ex0102 | ex0102 | 15 |\n");
    }

    #[test]
    fn exercise_without_a_row_or_before_its_needs_is_found() {
        let found = faults("| 9:00 | T ex0102 | ex0102 | 15 |\n| 9:15 | end | | 15 |\n");
        let found: Vec<_> = found.iter().map(|fault| fault.what.as_str()).collect();
        assert_eq!(
            found,
            ["ex0102 needs ex0101, which is not in a row before it", "ex0101 is in no timetable"]
        );
        assert!(faults("| 9:00 | T | ex0900 | 1 |\n")[0].what.starts_with("there is no exercise ex0900"));
    }
}
