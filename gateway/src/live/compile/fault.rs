//! Fault of a configuration that validation should have refused.

use crate::config::PathFault;

/// Returns the fault for an invalid configuration that the validation has accepted because of a bug.
pub(super) fn not_validated(what: &str) -> Vec<PathFault> {
    let detail = format!(
        "the configuration was not validated: {what}; this is a bug in the gateway, please report it"
    );
    vec![PathFault { path: String::new(), detail }]
}
