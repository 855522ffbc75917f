//! Tests that exercises are complete, starters fail helpfully, and all packages share one build.

use check::exercises::{self, DIRECTORY};
use check::solved::Changed;
use check::{Fault, hold, own_policy, packages, starters, tables, timetable, unification, wrong};

#[test]
fn exercises_are_complete() {
    hold(|repository| {
        let changed = Changed::starters(repository);
        let read = |file: &str| repository.find(file);
        exercises::check(&repository.files(), read, |file| changed.is_solved(file))
    });
}

#[test]
fn tables_are_made_from_the_manifests() {
    hold(|repository| {
        let (exercises, _) = exercises::find(&repository.files(), |file| repository.find(file));
        tables::check(&repository.documents(), &exercises)
    });
}

#[test]
fn timetables_follow_the_manifests() {
    hold(|repository| {
        let (exercises, _) = exercises::find(&repository.files(), |file| repository.find(file));
        timetable::check(&repository.documents(), &exercises)
    });
}

#[test]
fn patches_of_the_own_policy_chapter_fit_the_gateway() {
    hold(own_policy::check);
}

#[test]
fn workshop_runner_finds_the_exercises() {
    hold(|repository| {
        let setting = format!("exercises_dir = \"{DIRECTORY}\"");
        let found = repository.find(".wr.toml").is_some_and(|text| text.lines().any(|line| line == setting));
        let fault = || Fault::new(".wr.toml", 0, format!("has no line {setting}, which `wr` needs"));
        (!found).then(fault).into_iter().collect()
    });
}

#[test]
fn starters_compile_and_fail_with_a_helpful_message() {
    hold(starters::check);
}

#[test]
fn wrong_solutions_are_caught() {
    hold(wrong::check);
}

#[test]
fn all_packages_share_one_build_of_pingora() {
    hold(|repository| {
        let packages = packages::members(&packages::metadata(repository));
        unification::check(repository, &packages.into_iter().collect::<Vec<_>>())
    });
}
