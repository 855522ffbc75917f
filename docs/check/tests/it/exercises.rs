//! Exercises are complete, starters fail in a way that helps, and no exercise has a build of its own.

use check::exercises::{self, DIRECTORY};
use check::{Fault, hold, packages, starters, tables, unification};

#[test]
fn exercises_are_complete() {
    hold(|repository| exercises::check(&repository.files(), |file| repository.find(file)));
}

#[test]
fn tables_are_made_from_the_manifests() {
    hold(|repository| {
        let (exercises, _) = exercises::find(&repository.files(), |file| repository.find(file));
        tables::check(&repository.documents(), &exercises)
    });
}

#[test]
fn workshop_runner_finds_them() {
    hold(|repository| {
        let setting = format!("exercises_dir = \"{DIRECTORY}\"");
        let found = repository.find(".wr.toml").is_some_and(|text| text.lines().any(|line| line == setting));
        let fault = || Fault::new(".wr.toml", 0, format!("does not say {setting}, which `wr` goes by"));
        (!found).then(fault).into_iter().collect()
    });
}

#[test]
fn starters_compile_and_fail_in_a_way_that_helps() {
    hold(starters::check);
}

#[test]
fn one_build_serves_all() {
    hold(|repository| {
        let packages = packages::members(&packages::metadata(repository));
        unification::check(repository, &packages.into_iter().collect::<Vec<_>>())
    });
}
