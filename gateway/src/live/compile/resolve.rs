//! Resolves the names of backends to addresses. [`Resolution`] decides which names are looked up.

use std::collections::HashSet;

use tracing::warn;

use crate::config::{Address, Config, PathFault};
use crate::upstream::{Endpoint, LookupError, ResolvedAddress, ResolvedAddresses, look_up_now};

/// Rule that decides which names of backends are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Every name is looked up. If the lookup fails, the name keeps its earlier addresses. If the name has
    /// none, a negative answer of DNS is a fault; without an answer, the name has no addresses yet.
    Resolved,
    /// Only new names are looked up; the others keep their addresses, because a slow or unreachable resolver
    /// must not delay changes that do not concern names.
    Known,
    /// No name is looked up, so backends with a name can get no requests. Used to check a configuration without
    /// running it.
    Unresolved,
}

/// Resolves the names of the backends in `config`. `before` contains the addresses that are known so far. The
/// function blocks until the resolver answers.
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
                // DNS itself may be down, which is no reason to refuse the configuration.
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
