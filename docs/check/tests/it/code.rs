//! Tests of promises about the code, on the architecture page and in the manifests.

use check::{hold, modules, packages, prose};

/// Programs that are shipped to users.
const SHIPPED: [&str; 5] = ["simple_proxy", "load_balancer", "header_filter", "gateway", "origin"];

#[test]
fn gateway_modules_use_only_allowed_modules() {
    hold(|repository| modules::check(&repository.documents(), "gateway/src", |file| repository.find(file)));
}

#[test]
fn no_program_is_built_from_test_helpers() {
    hold(|repository| packages::helpers_in(&packages::metadata(repository), &SHIPPED, &["testkit", "check"]));
}

#[test]
fn comments_name_what_they_document() {
    const DIRECTORIES: [&str; 11] = [
        "gateway/src",
        "gateway/tests",
        "gateway/fuzz",
        "docs/testkit",
        "docs/check",
        "docs/exercises",
        "docs/origin",
        "gateway/benches",
        "simple_proxy",
        "load_balancer",
        "header_filter",
    ];
    hold(|repository| {
        let files = repository.files();
        let check = |directory: &str| {
            let inside = files.iter().filter(|file| file.starts_with(directory) && file.ends_with(".rs"));
            let texts: Vec<_> = inside.map(|file| (file.clone(), repository.read(file))).collect();
            prose::check(directory, &texts)
        };
        DIRECTORIES.into_iter().flat_map(check).collect()
    });
}
