//! Where a name leads, asked of DNS.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use tracing::warn;

use super::{LATEST, SOONEST};
use crate::config::{Address, HostPort};
use crate::upstream::Endpoint;

/// How long a server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Somewhere that an address leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Where to connect.
    pub endpoint: Endpoint,
    /// The host name by which it was found.
    pub host: Option<String>,
    /// Its weight among the places of the address.
    pub weight: u32,
    /// Whether others of the address come before it.
    pub backup: bool,
}

impl Place {
    fn port(&self) -> Option<u16> {
        match &self.endpoint {
            Endpoint::Inet(address) => Some(address.port()),
            Endpoint::Unix(_) | Endpoint::Unresolved(_) => None,
        }
    }
}

/// Where names lead.
pub type Places = HashMap<Address, Vec<Place>>;

/// Where an address leads that is no name.
pub fn fixed(address: &Address) -> Option<Place> {
    let endpoint = match address {
        Address::Unix(path) => Endpoint::Unix(path.clone()),
        Address::Host(host) => SocketAddr::from((host.ip()?, host.port)).into(),
        Address::Service(_) => return None,
    };
    Some(Place { endpoint, host: None, weight: 1, backup: false })
}

/// Why it is not known where a name leads.
#[derive(Clone, Debug)]
pub struct LookupError {
    /// In words.
    pub reason: String,
    /// Whether that is DNS's answer. Where not, it may have another one in a moment.
    pub is_answer: bool,
}

impl LookupError {
    fn unanswered(reason: impl ToString) -> Self {
        LookupError { reason: reason.to_string(), is_answer: false }
    }

    fn no_address() -> Self {
        LookupError { reason: "the name has no address".to_owned(), is_answer: true }
    }
}

impl From<&NetError> for LookupError {
    fn from(error: &NetError) -> Self {
        match error {
            error if error.is_nx_domain() => {
                LookupError { reason: "there is no such name".to_owned(), is_answer: true }
            }
            error if error.is_no_records_found() => LookupError::no_address(),
            error => LookupError::unanswered(error),
        }
    }
}

/// Asks DNS where each of `names` leads, and waits for all the answers. `servers`: which are asked; empty: the
/// system's.
pub fn look_up_now<'n>(
    names: &[&'n Address],
    servers: &[SocketAddr],
) -> Vec<(&'n Address, Result<Vec<Place>, LookupError>)> {
    let all = async || {
        let resolver = Resolvers::new(servers)?;
        let answers = names.iter().map(|name| look_up(&resolver, name, &[]));
        Ok::<_, LookupError>(join_all(answers).await)
    };
    // A thread of its own: whoever waits here may be part of a runtime already.
    let answered = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(LookupError::unanswered)?.block_on(all())
        });
        asking.join().unwrap_or_else(|_| Err(LookupError::unanswered("the resolver failed")))
    });
    match answered {
        Ok(answers) => {
            let places = answers.into_iter().map(|answer| answer.map(|found| found.places));
            names.iter().copied().zip(places).collect()
        }
        Err(error) => names.iter().map(|name| (*name, Err(error.clone()))).collect(),
    }
}

/// The servers, each by itself: where one fails, the next is asked. (The library asks several at once, and takes
/// a failure of one for an answer.)
pub(super) struct Resolvers(Vec<TokioResolver>);

impl Resolvers {
    /// `servers`, or if there are none, the system's.
    pub(super) fn new(servers: &[SocketAddr]) -> Result<Self, LookupError> {
        let server = |address: &SocketAddr| {
            let at_port = |mut connection: ConnectionConfig| {
                connection.port = address.port();
                connection
            };
            let connections = vec![at_port(ConnectionConfig::udp()), at_port(ConnectionConfig::tcp())];
            NameServerConfig::new(address.ip(), true, connections)
        };
        let (domain, search, servers) = match servers {
            [] => system_servers().into_parts(),
            some => (None, Vec::new(), some.iter().map(server).collect()),
        };
        let mut options = ResolverOpts::default();
        options.timeout = TIMEOUT;
        options.attempts = 1;
        // It is this module that knows when to ask again.
        options.cache_size = 0;
        let one = |servers: Vec<NameServerConfig>| {
            let config = ResolverConfig::from_parts(domain.clone(), search.clone(), servers);
            let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            builder.with_options(options.clone()).build().map_err(LookupError::unanswered)
        };
        if servers.is_empty() {
            // The hosts file is left.
            return Ok(Resolvers(vec![one(Vec::new())?]));
        }
        servers.into_iter().map(|server| one(vec![server])).collect::<Result<_, _>>().map(Resolvers)
    }

    /// The first answer, be it that there is nothing.
    async fn lookup(&self, name: &str, kind: RecordType) -> Result<Lookup, LookupError> {
        let mut failure = LookupError::no_address();
        for resolver in &self.0 {
            match resolver.lookup(name, kind).await {
                Ok(found) => return Ok(found),
                Err(error) => failure = (&error).into(),
            }
            if failure.is_answer {
                break;
            }
        }
        Err(failure)
    }
}

fn system_servers() -> ResolverConfig {
    match read_system_conf() {
        Ok((config, _)) => config,
        Err(error) => {
            warn!(%error, "the system says of no DNS servers");
            ResolverConfig::from_name_servers(Vec::new())
        }
    }
}

/// What DNS answered.
#[derive(Debug)]
pub(super) struct Found {
    /// In an order of their own, so that the same answer in another order is no change.
    pub(super) places: Vec<Place>,
    pub(super) valid_for: Duration,
}

/// Asks where `name` led `before`, and leads now.
pub(super) async fn look_up(
    resolver: &Resolvers,
    name: &Address,
    before: &[Place],
) -> Result<Found, LookupError> {
    let mut found = match name {
        Address::Host(host) => look_up_host(resolver, host, before).await?,
        Address::Service(service) => look_up_service(resolver, service, before).await?,
        Address::Unix(_) => Found { places: Vec::new(), valid_for: LATEST },
    };
    found.places.sort();
    found.places.dedup_by(|one, other| one.endpoint == other.endpoint);
    if found.places.is_empty() {
        return Err(LookupError::no_address());
    }
    Ok(found)
}

async fn look_up_host(resolver: &Resolvers, host: &HostPort, before: &[Place]) -> Result<Found, LookupError> {
    let name = host.host.as_str();
    let (v4, v6) =
        futures::join!(resolver.lookup(name, RecordType::A), resolver.lookup(name, RecordType::AAAA));
    let mut found = Found { places: Vec::new(), valid_for: LATEST };
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
                    found.places.push(Place {
                        endpoint: SocketAddr::from((ip, host.port)).into(),
                        host: Some(name.to_owned()),
                        weight: 1,
                        backup: false,
                    });
                }
            }
            Err(error) if error.is_answer => reasons.push(error),
            Err(error) => {
                // What is known of the one kind of address stays, though the other kind was answered.
                let is_kind = |place: &&Place| matches!(place.endpoint, Endpoint::Inet(address) if address.is_ipv4() == is_v4);
                found.places.extend(before.iter().filter(is_kind).cloned());
                found.valid_for = SOONEST;
                failures.push(error);
            }
        }
    }
    match failures.pop() {
        // Both kinds failed, or the one that did has nothing to stay with.
        Some(error) if found.places.is_empty() || !failures.is_empty() => Err(error),
        _ if found.places.is_empty() => Err(reasons.pop().unwrap_or_else(LookupError::no_address)),
        _ => Ok(found),
    }
}

/// Everything that the SRV records of `service` lead to (RFC 2782). Targets of another priority than the first
/// are backups.
async fn look_up_service(
    resolver: &Resolvers,
    service: &str,
    before: &[Place],
) -> Result<Found, LookupError> {
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
    let targets = records.into_iter().map(|record| async move {
        let target = record.target.to_utf8();
        let host = HostPort { host: target.trim_end_matches('.').to_owned(), port: record.port };
        let is_target =
            |place: &&Place| place.host.as_deref() == Some(&host.host) && place.port() == Some(host.port);
        let known: Vec<Place> = before.iter().filter(is_target).cloned().collect();
        let found = match look_up_host(resolver, &host, &known).await {
            Err(_) if !known.is_empty() => Found { places: known, valid_for: SOONEST },
            found => found?,
        };
        let place = |place: Place| Place {
            weight: u32::from(record.weight).max(1),
            backup: Some(record.priority) != first,
            ..place
        };
        Ok(Found { places: found.places.into_iter().map(place).collect(), valid_for: found.valid_for })
    });
    let mut all = Found { places: Vec::new(), valid_for };
    let mut failure = None;
    for found in join_all(targets).await {
        match found {
            Ok(found) => {
                all.valid_for = all.valid_for.min(found.valid_for);
                all.places.extend(found.places);
            }
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if all.places.is_empty() => Err(error),
        _ => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_no_name_leads_to_one_place() {
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
    fn a_name_that_nobody_answers_for_is_an_error_and_no_panic() {
        let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address: Address = "web.test:80".parse().unwrap();
        let answers = look_up_now(&[&address], &[nobody.local_addr().unwrap()]);
        assert!(answers[0].1.is_err(), "{answers:?}");
    }
}
