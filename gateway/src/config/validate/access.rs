//! Validation of `[access]`: `deny` must not contain a whole network of `allow`, which would then have no effect.

use super::Faults;
use crate::config::{Access, Cidr};

/// Adds every fault of an `[access]` table; `at` is the path of the level, such as "virtual_hosts/0/".
pub(super) fn access(at: &str, access: &Access, faults: &mut Faults) {
    let denied = Cidr::joined(&access.deny);
    for (i, allowed) in access.allow.iter().enumerate() {
        if denied.iter().any(|denied| denied.covers(allowed)) {
            let detail = format!(
                "{allowed} has no effect: `deny` covers the whole network and takes precedence; \
                         remove one of the two"
            );
            faults.add(format!("{at}access/allow/{i}"), detail);
        }
    }
}
