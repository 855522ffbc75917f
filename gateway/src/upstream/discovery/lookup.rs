//! DNS lookups of the names of backends.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{RData, RecordType};

use super::error::LookupError;
use super::resolvers::Resolvers;
use super::{LATEST, SOONEST};
use crate::config::{Address, HostPort};
use crate::upstream::Endpoint;

/// Address to connect to, found for the configured address of a backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResolvedAddress {
    /// Endpoint to connect to.
    pub endpoint: Endpoint,
    /// Host name that was looked up; `None` if the configuration gives an IP address or a Unix socket.
    pub host: Option<String>,
    /// Weight of the address among all addresses of the name, from its SRV record; 1 without SRV.
    pub weight: u32,
    /// True if the address is a backup, because another SRV record of the name has a better priority.
    pub backup: bool,
}

impl ResolvedAddress {
    fn port(&self) -> Option<u16> {
        match &self.endpoint {
            Endpoint::Inet(address) => Some(address.port()),
            Endpoint::Unix(_) | Endpoint::Unresolved(_) => None,
        }
    }
}

/// Resolved addresses, by the configured address that was looked up.
pub type ResolvedAddresses = HashMap<Address, Vec<ResolvedAddress>>;

/// Returns the resolved address of an IP address or a Unix socket; `None` for a name.
pub fn fixed(address: &Address) -> Option<ResolvedAddress> {
    let endpoint = match address {
        Address::Unix(path) => Endpoint::Unix(path.clone()),
        Address::Host(host) => SocketAddr::from((host.ip()?, host.port)).into(),
        Address::Service(_) => return None,
    };
    Some(ResolvedAddress { endpoint, host: None, weight: 1, backup: false })
}

/// Looks up each of `names`, and waits for all answers. The DNS servers in `servers` are asked, or those of the system
/// if `servers` is empty.
pub fn look_up_now<'n>(
    names: &[&'n Address],
    servers: &[SocketAddr],
) -> Vec<(&'n Address, Result<Vec<ResolvedAddress>, LookupError>)> {
    let all = async || {
        let resolver = Resolvers::new(servers)?;
        let answers = names.iter().map(|name| look_up(&resolver, name, &[]));
        Ok::<_, LookupError>(join_all(answers).await)
    };
    // The lookups run in another thread, because this thread may already run a Tokio runtime.
    let answered = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(LookupError::passing)?.block_on(all())
        });
        asking.join().unwrap_or_else(|_| Err(LookupError::passing("the resolver failed")))
    });
    match answered {
        Ok(answers) => {
            let addresses = answers.into_iter().map(|answer| answer.map(|found| found.addresses));
            names.iter().copied().zip(addresses).collect()
        }
        Err(error) => names.iter().map(|name| (*name, Err(error.clone()))).collect(),
    }
}

/// Addresses that DNS has returned for a name, and their time to live.
#[derive(Debug)]
pub(super) struct Answers {
    /// Addresses in sorted order, so that another order in DNS does not count as a change.
    pub(super) addresses: Vec<ResolvedAddress>,
    pub(super) valid_for: Duration,
}

/// Looks up `name`. `before` is the last answer: its addresses stay for each part of the lookup that fails.
pub(super) async fn look_up(
    resolver: &Resolvers,
    name: &Address,
    before: &[ResolvedAddress],
) -> Result<Answers, LookupError> {
    let mut found = match name {
        Address::Host(host) => look_up_host(resolver, host, before).await?,
        Address::Service(service) => look_up_service(resolver, service, before).await?,
        Address::Unix(_) => Answers { addresses: Vec::new(), valid_for: LATEST },
    };
    found.addresses.sort();
    found.addresses.dedup_by(|one, other| one.endpoint == other.endpoint);
    if found.addresses.is_empty() {
        return Err(LookupError::no_address());
    }
    Ok(found)
}

async fn look_up_host(
    resolver: &Resolvers,
    host: &HostPort,
    before: &[ResolvedAddress],
) -> Result<Answers, LookupError> {
    let name = host.host.as_str();
    let v4 = resolver.lookup(name, RecordType::A);
    let v6 = async {
        match resolver.options().asks_ipv6 {
            true => resolver.lookup(name, RecordType::AAAA).await,
            false => Err(LookupError::no_address()),
        }
    };
    let (v4, v6) = match resolver.options().one_by_one {
        true => (v4.await, v6.await),
        false => futures::join!(v4, v6),
    };
    let mut found = Answers { addresses: Vec::new(), valid_for: LATEST };
    let (mut failures, mut reasons) = (Vec::new(), Vec::new());
    for (answer, is_v4) in [(v4, true), (v6, false)] {
        match answer {
            Ok(answer) => {
                for record in answer.answers() {
                    let ip = match &record.data {
                        RData::A(ip) => IpAddr::V4(ip.0),
                        RData::AAAA(ip) => IpAddr::V6(ip.0),
                        _ => continue,
                    };
                    found.valid_for = found.valid_for.min(Duration::from_secs(record.ttl.into()));
                    found.addresses.push(ResolvedAddress {
                        endpoint: SocketAddr::from((ip, host.port)).into(),
                        host: Some(without_dot(name).to_owned()),
                        weight: 1,
                        backup: false,
                    });
                }
            }
            Err(error) if error.is_final => reasons.push(error),
            Err(error) => {
                // The query for this kind (IPv4 or IPv6) has failed, so the known addresses of this kind stay.
                let is_kind = |place: &&ResolvedAddress| matches!(place.endpoint, Endpoint::Inet(address) if address.is_ipv4() == is_v4);
                found.addresses.extend(before.iter().filter(is_kind).cloned());
                found.valid_for = SOONEST;
                failures.push(error);
            }
        }
    }
    match failures.pop() {
        // Either both queries failed, or one failed and there is no address at all.
        Some(error) if found.addresses.is_empty() || !failures.is_empty() => Err(error),
        _ if found.addresses.is_empty() => Err(reasons.pop().unwrap_or_else(LookupError::no_address)),
        _ => Ok(found),
    }
}

/// Looks up all targets that the SRV records of `service` name (RFC 2782). Targets without the best priority are
/// backups.
async fn look_up_service(
    resolver: &Resolvers,
    service: &str,
    before: &[ResolvedAddress],
) -> Result<Answers, LookupError> {
    let answer = resolver.lookup(service, RecordType::SRV).await?;
    let mut valid_for = LATEST;
    let mut records: Vec<&SRV> = Vec::new();
    for record in answer.answers() {
        if let RData::SRV(srv) = &record.data {
            valid_for = valid_for.min(Duration::from_secs(record.ttl.into()));
            records.push(srv);
        }
    }
    let first = records.iter().map(|record| record.priority).min();
    // RFC 2782: the root as target means that the service is not available.
    let targets = records.into_iter().filter(|record| !record.target.is_root()).map(|record| async move {
        // The target keeps the dot at its end, so that the search list is not used: that list is only for names that
        // people write.
        let host = HostPort { host: record.target.to_ascii(), port: record.port };
        let name = without_dot(&host.host);
        let is_target =
            |place: &&ResolvedAddress| place.host.as_deref() == Some(name) && place.port() == Some(host.port);
        let known: Vec<ResolvedAddress> = before.iter().filter(is_target).cloned().collect();
        let found = match look_up_host(resolver, &host, &known).await {
            Err(_) if !known.is_empty() => Answers { addresses: known, valid_for: SOONEST },
            found => found?,
        };
        let place = |place: ResolvedAddress| ResolvedAddress {
            weight: u32::from(record.weight).max(1),
            backup: Some(record.priority) != first,
            ..place
        };
        Ok(Answers {
            addresses: found.addresses.into_iter().map(place).collect(),
            valid_for: found.valid_for,
        })
    });
    let mut all = Answers { addresses: Vec::new(), valid_for };
    let mut failure = None;
    for found in join_all(targets).await {
        match found {
            Ok(found) => {
                all.valid_for = all.valid_for.min(found.valid_for);
                all.addresses.extend(found.addresses);
            }
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if all.addresses.is_empty() => Err(error),
        _ => Ok(all),
    }
}

/// Returns `name` without the dot at its end, because names in TLS and HTTP have no such dot (RFC 6066 3).
fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_without_name_resolves_to_one_endpoint() {
        for (text, endpoint) in [
            ("127.0.0.1:80", Some("127.0.0.1:80")),
            ("[::1]:80", Some("[::1]:80")),
            ("unix:/run/app.sock", Some("unix:/run/app.sock")),
            ("web:80", None),
            ("srv:_http._tcp.web", None),
        ] {
            let place = fixed(&text.parse().unwrap()).map(|place| place.endpoint.to_string());
            assert_eq!(place.as_deref(), endpoint, "{text}");
        }
    }

    #[test]
    fn lookup_without_answer_is_an_error_and_no_panic() {
        let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address: Address = "web.test:80".parse().unwrap();
        let answers = look_up_now(&[&address], &[nobody.local_addr().unwrap()]);
        assert!(answers[0].1.is_err(), "{answers:?}");
    }
}
