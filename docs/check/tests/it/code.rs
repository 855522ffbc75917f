//! What the architecture page and the manifests promise of the code.

use check::{hold, modules, packages};

/// What people run.
const SHIPPED: [&str; 5] = ["simple_proxy", "load_balancer", "header_filter", "gateway", "origin"];

#[test]
fn gateway_modules_use_whom_they_may() {
    hold(|repository| modules::check(&repository.documents(), "gateway/src", |file| repository.find(file)));
}

#[test]
fn no_program_is_built_from_test_helpers() {
    hold(|repository| packages::helpers_in(&packages::metadata(repository), &SHIPPED, &["testkit", "check"]));
}
