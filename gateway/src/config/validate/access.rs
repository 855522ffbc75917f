//! What `[access]` must be, wherever it stands: whoever is let in by one list must not be kept out by the other.

use super::Faults;
use crate::config::{Access, Cidr};

/// Everything that is wrong with a table; `at` is where it stands.
pub(super) fn access(at: &str, access: &Access, faults: &mut Faults) {
    let denied = Cidr::joined(&access.deny);
    for (i, allowed) in access.allow.iter().enumerate() {
        if denied.iter().any(|denied| denied.covers(allowed)) {
            let detail =
                format!("nobody comes in by {allowed}: `deny` names all of it, and wins; leave one out");
            faults.add(format!("{at}access/allow/{i}"), detail);
        }
    }
}
