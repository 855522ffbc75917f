//! Resolves the names of backends, as far as a configuration needs their addresses.

use std::collections::HashSet;

use tracing::warn;

use crate::config::{Address, Config, PathFault};
use crate::upstream::{Endpoint, LookupError, ResolvedAddress, ResolvedAddresses, look_up_now};

/// Treatment of backends that have a name instead of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Every name is looked up. A name that does not resolve is a fault, unless earlier addresses are known. A
    /// name that DNS gives no answer for has no addresses yet.
    Resolved,
    /// Only new names are looked up; the others keep their addresses. A slow or unreachable resolver must not
    /// delay changes of other parts.
    Known,
    /// No name is looked up, and no request can be sent to these backends. This is for checking a configuration
    /// without running it.
    Unresolved,
}

/// Resolves every name in `config`. `before` holds the addresses that are known so far. A lookup blocks until
/// the resolver answers.
///
/// # Errors
/// Returns a fault for each backend whose name does not resolve.
pub(in crate::live) fn resolve(
    config: &Config,
    names: Resolution,
    before: &ResolvedAddresses,
) -> Result<ResolvedAddresses, Vec<PathFault>> {
    let addresses = config.backends.iter().filter_map(|backend| backend.address.as_ref());
    let named: HashSet<&Address> = addresses.filter(|address| address.name().is_some()).collect();
    if names == Resolution::Unresolved {
        return Ok(named.into_iter().map(|name| (name.clone(), vec![unknown(name)])).collect());
    }
    let (known, unknown): (Vec<&Address>, Vec<&Address>) =
        named.into_iter().partition(|name| names == Resolution::Known && before.contains_key(*name));
    let mut resolved: ResolvedAddresses =
        known.into_iter().map(|name| (name.clone(), before[name].clone())).collect();
    if unknown.is_empty() {
        return Ok(resolved);
    }
    let mut faults = Vec::new();
    for (name, answer) in look_up_now(&unknown, &config.proxy.nameservers) {
        match (answer, before.get(name)) {
            (Ok(found), _) => {
                resolved.insert(name.clone(), found);
            }
            (Err(_), Some(before)) => {
                resolved.insert(name.clone(), before.clone());
            }
            (Err(error), None) if error.is_final => {
                faults.extend(leads_nowhere(config, name, &error.reason));
            }
            (Err(LookupError { reason, .. }), None) => {
                // DNS itself may be down. That is no reason to refuse to start.
                warn!(%name, reason, "the name of a backend cannot be looked up yet; it is asked for again");
                resolved.insert(name.clone(), Vec::new());
            }
        }
    }
    if faults.is_empty() { Ok(resolved) } else { Err(faults) }
}

fn leads_nowhere(config: &Config, name: &Address, reason: &str) -> Vec<PathFault> {
    let backends = config.backends.iter().enumerate();
    let of_name = backends.filter(|(_, backend)| backend.address.as_ref() == Some(name));
    let fault = |(i, backend): (usize, &crate::config::Backend)| PathFault {
        path: format!("backends/{i}/address"),
        detail: format!("cannot resolve '{name}', the address of backend '{}': {reason}", backend.id),
    };
    of_name.map(fault).collect()
}

/// Returns the placeholder for a name that was not looked up.
fn unknown(name: &Address) -> ResolvedAddress {
    ResolvedAddress { endpoint: Endpoint::Unresolved(name.to_string()), host: None, weight: 1, backup: false }
}
