//! Where the names of backends lead, as far as a configuration needs to know.

use std::collections::HashSet;

use tracing::warn;

use crate::config::{Address, Config, PathFault};
use crate::upstream::{Endpoint, LookupError, ResolvedAddress, ResolvedAddresses, look_up_now};

/// What becomes of backends that have a name in place of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Each is looked up. One that leads nowhere is a fault, unless it is known where it led before. One that
    /// DNS does not answer for leads nowhere so far.
    Resolved,
    /// Those that are new are looked up; the others lead where they did. A resolver that is slow or down must
    /// not hold up what is changed elsewhere.
    Known,
    /// None is looked up, and nothing can be sent to them: for looking at a configuration without running it.
    Unresolved,
}

/// Where each name in `config` leads, of which `before` was known. It may take the resolver's time.
///
/// # Errors
/// Names that lead nowhere.
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
    let mut places: ResolvedAddresses =
        known.into_iter().map(|name| (name.clone(), before[name].clone())).collect();
    if unknown.is_empty() {
        return Ok(places);
    }
    let mut faults = Vec::new();
    for (name, answer) in look_up_now(&unknown, &config.proxy.nameservers) {
        match (answer, before.get(name)) {
            (Ok(found), _) => {
                places.insert(name.clone(), found);
            }
            (Err(_), Some(before)) => {
                places.insert(name.clone(), before.clone());
            }
            (Err(error), None) if error.is_final => {
                faults.extend(leads_nowhere(config, name, &error.reason));
            }
            (Err(LookupError { reason, .. }), None) => {
                // It may be DNS that is down, and no reason to stay down as well.
                warn!(%name, reason, "the name of a backend cannot be looked up yet; it is asked for again");
                places.insert(name.clone(), Vec::new());
            }
        }
    }
    if faults.is_empty() { Ok(places) } else { Err(faults) }
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

/// One place, of which nothing is known.
fn unknown(name: &Address) -> ResolvedAddress {
    ResolvedAddress { endpoint: Endpoint::Unresolved(name.to_string()), host: None, weight: 1, backup: false }
}
