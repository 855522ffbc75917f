//! Tests of promises about the code, on the architecture page and in the manifests.

use check::{hold, modules, packages};

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
