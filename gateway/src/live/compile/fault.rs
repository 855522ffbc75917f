//! Fault of a configuration that validation should have refused.

use crate::config::PathFault;

/// Returns the fault for a configuration that validation should have refused. This is a defect of the gateway.
pub(super) fn not_validated(what: &str) -> Vec<PathFault> {
    vec![PathFault { path: String::new(), detail: format!("the configuration was not validated: {what}") }]
}
