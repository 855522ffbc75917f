//! The DNS servers, each asked by itself: where one fails, the next is asked. (The library asks several at once, and
//! takes a failure of one for an answer.)

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hickory_resolver::Resolver;
use hickory_resolver::config::ResolverOpts;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};
use tracing::info;

use super::error::LookupError;
use super::options::{Options, Plan};
use super::udp::Runtime;

/// The servers.
pub(super) struct Resolvers {
    servers: Vec<Server>,
    options: Options,
    /// The one that is asked first next time, where they take turns.
    turn: AtomicUsize,
}

/// A DNS server.
struct Server {
    /// Its address, as messages name it.
    name: String,
    /// Asks it with an EDNS record; `None` where that is not wanted.
    with_edns: Option<Resolver<Runtime>>,
    /// Asks it without one.
    without_edns: Resolver<Runtime>,
    /// Becomes true when it has answered only without one.
    refuses_edns: AtomicBool,
}

impl Resolvers {
    /// Asks `servers`, or if there are none, the system's.
    ///
    /// # Errors
    /// What the library says.
    pub(super) fn new(servers: &[SocketAddr]) -> Result<Self, LookupError> {
        Resolvers::with_plan(&Plan::of(servers))
    }

    fn with_plan(plan: &Plan) -> Result<Self, LookupError> {
        let servers = match &plan.servers[..] {
            // The hosts file is left.
            [] => vec![Server::new(plan, None)?],
            some => some.iter().map(|server| Server::new(plan, Some(*server))).collect::<Result<_, _>>()?,
        };
        Ok(Resolvers { servers, options: plan.options.clone(), turn: AtomicUsize::new(0) })
    }

    /// How they are asked.
    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// Returns the first answer about `name`, be it that there is nothing.
    ///
    /// # Errors
    /// That there is nothing, or what went wrong with each server.
    pub(super) async fn lookup(&self, name: &str, kind: RecordType) -> Result<Lookup, LookupError> {
        // Not by the rules of host names, which have no `_`: any byte may stand in a name (RFC 2181 11).
        let name = Name::from_ascii(name)
            .map_err(|error| LookupError::lasting(format!("'{name}' is no name in DNS: {error}")))?;
        let first = match self.options.rotates {
            true => self.turn.fetch_add(1, Ordering::Relaxed),
            false => 0,
        };
        let mut reasons: Vec<String> = Vec::new();
        for turn in 0..self.options.attempts * self.servers.len() {
            let server = &self.servers[first.wrapping_add(turn) % self.servers.len()];
            match server.lookup(&name, kind).await {
                Ok(found) => return Ok(found),
                Err(error) if error.is_final => return Err(error),
                Err(LookupError { reason, .. }) if reasons.contains(&reason) => {}
                Err(LookupError { reason, .. }) => reasons.push(reason),
            }
        }
        Err(LookupError::passing(reasons.join("; ")))
    }
}

impl Server {
    fn new(plan: &Plan, address: Option<SocketAddr>) -> Result<Self, LookupError> {
        let resolver = |edns: bool| {
            let mut options = ResolverOpts::default();
            options.timeout = plan.options.timeout;
            options.ndots = plan.options.ndots;
            options.edns0 = edns;
            // Attempts are counted over all servers, and when to ask again says the time to live.
            options.attempts = 0;
            options.cache_size = 0;
            let builder = Resolver::builder_with_config(plan.config(address), Runtime::default());
            builder.with_options(options).build().map_err(LookupError::passing)
        };
        Ok(Server {
            name: address.map_or_else(|| "no DNS server".to_owned(), |address| address.to_string()),
            with_edns: plan.options.edns.then(|| resolver(true)).transpose()?,
            without_edns: resolver(false)?,
            refuses_edns: AtomicBool::new(false),
        })
    }

    async fn lookup(&self, name: &Name, kind: RecordType) -> Result<Lookup, LookupError> {
        let with_edns = self.with_edns.as_ref().filter(|_| !self.refuses_edns.load(Ordering::Relaxed));
        if let Some(with_edns) = with_edns {
            let answer = self.heard(with_edns.lookup(name.clone(), kind).await);
            let Err(Failure { is_for_edns: true, error: refusal }) = answer else {
                return answer.map_err(|failure| failure.error);
            };
            // RFC 6891 7: it may be the EDNS record that it does not know.
            let answer = self.heard(self.without_edns.lookup(name.clone(), kind).await);
            let is_answered = answer.as_ref().map_or_else(|failure| failure.error.is_final, |_| true);
            if is_answered && !self.refuses_edns.swap(true, Ordering::Relaxed) {
                info!("{}: it is asked without EDNS from now on", refusal.reason);
            }
            return answer.map_err(|failure| failure.error);
        }
        self.heard(self.without_edns.lookup(name.clone(), kind).await).map_err(|failure| failure.error)
    }

    /// What the library makes of a response. It takes one with a code that it does not know for an empty answer.
    fn heard(&self, answer: Result<Lookup, NetError>) -> Result<Lookup, Failure> {
        match answer {
            Ok(found) => match found.message().metadata.response_code {
                code @ ResponseCode::Unknown(_) => {
                    let error = LookupError::answered(&self.name, code);
                    Err(Failure { error, is_for_edns: false })
                }
                _ => Ok(found),
            },
            Err(error) => {
                let is_for_edns = matches!(
                    error,
                    NetError::Dns(DnsError::ResponseCode(
                        ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS
                    ))
                );
                Err(Failure { error: LookupError::of(&self.name, &error), is_for_edns })
            }
        }
    }
}

/// Why a server gave no answer.
struct Failure {
    error: LookupError,
    /// Whether that is how a server answers that does not know EDNS.
    is_for_edns: bool,
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use testkit::{Dns, Failure};

    use super::*;
    use crate::config::Address;

    const NAME: &str = "web.test";

    fn plan(servers: &[&Dns], options: Options) -> Plan {
        Plan { options, servers: servers.iter().map(|dns| dns.address()).collect(), ..Plan::default() }
    }

    async fn addresses(resolvers: &Resolvers, name: &str) -> Result<Vec<String>, LookupError> {
        let found = resolvers.lookup(name, RecordType::A).await?;
        Ok(found.answers().iter().map(|record| record.data.to_string()).collect())
    }

    async fn server() -> Dns {
        let dns = Dns::start().await;
        dns.addresses(NAME, 5, &[IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        dns
    }

    #[tokio::test]
    async fn a_server_that_refuses_edns_is_asked_without() {
        for code in [1, 4] {
            let dns = server().await;
            dns.refuse_edns(code);
            let resolvers = Resolvers::new(&[dns.address()]).unwrap();
            assert_eq!(addresses(&resolvers, NAME).await.unwrap(), ["127.0.0.1"], "response code {code}");
            assert!(
                resolvers.servers[0].refuses_edns.load(Ordering::Relaxed),
                "and it is known from then on"
            );
            let asked = dns.asked(NAME);
            assert_eq!(addresses(&resolvers, NAME).await.unwrap(), ["127.0.0.1"]);
            assert_eq!(dns.asked(NAME), asked + 1, "it is asked once");
            let error = addresses(&resolvers, "unknown.test").await.unwrap_err();
            assert!(error.is_final, "{error:?}");
        }
    }

    #[tokio::test]
    async fn what_a_server_answers_is_told() {
        let dns = server().await;
        dns.fail(NAME, Failure::ServerFailure);
        let resolvers = Resolvers::new(&[dns.address()]).unwrap();
        let error = addresses(&resolvers, NAME).await.unwrap_err();
        assert_eq!(error, LookupError::passing(format!("{} answered with SERVFAIL", dns.address())));
        assert!(!resolvers.servers[0].refuses_edns.load(Ordering::Relaxed), "that says nothing of EDNS");
        // A header alone, to every question.
        dns.refuse_edns(5);
        let error = addresses(&resolvers, NAME).await.unwrap_err();
        assert_eq!(error, LookupError::passing(format!("{} answered with REFUSED", dns.address())));
    }

    #[tokio::test]
    async fn all_servers_are_asked_as_often_as_there_are_attempts() {
        let (one, other) = (server().await, server().await);
        for dns in [&one, &other] {
            dns.fail(NAME, Failure::ServerFailure);
        }
        let options = Options { attempts: 3, ..Options::default() };
        let resolvers = Resolvers::with_plan(&plan(&[&one, &other], options)).unwrap();
        let reason = addresses(&resolvers, NAME).await.unwrap_err().reason;
        assert_eq!((one.asked(NAME), other.asked(NAME)), (3, 3));
        let both =
            format!("{} answered with SERVFAIL; {} answered with SERVFAIL", one.address(), other.address());
        assert_eq!(reason, both, "each is named once");
    }

    #[tokio::test]
    async fn servers_take_turns_where_they_shall() {
        let (one, other) = (server().await, server().await);
        for (rotates, each) in [(false, (4, 0)), (true, (2, 2))] {
            let options = Options { rotates, ..Options::default() };
            let resolvers = Resolvers::with_plan(&plan(&[&one, &other], options)).unwrap();
            let before = (one.asked(NAME), other.asked(NAME));
            for _ in 0..4 {
                addresses(&resolvers, NAME).await.unwrap();
            }
            assert_eq!((one.asked(NAME) - before.0, other.asked(NAME) - before.1), each, "rotate: {rotates}");
        }
    }

    #[tokio::test]
    async fn only_tcp_is_spoken_where_it_shall_be() {
        let dns = server().await;
        let options = Options { only_tcp: true, attempts: 1, ..Options::default() };
        let resolvers = Resolvers::with_plan(&plan(&[&dns], options)).unwrap();
        // It is there over UDP only.
        assert!(!addresses(&resolvers, NAME).await.unwrap_err().is_final);
        assert_eq!(dns.asked(NAME), 0);
    }

    #[tokio::test]
    async fn the_search_list_comes_first_where_a_name_has_too_few_dots() {
        let dns = server().await;
        dns.addresses("web.test.svc.test", 5, &[IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))]);
        for (ndots, name, expected) in
            [(1, NAME, "127.0.0.1"), (5, NAME, "127.0.0.2"), (5, "web.test.", "127.0.0.1")]
        {
            let plan = plan(&[&dns], Options { ndots, ..Options::default() });
            let plan = Plan { search: vec![Name::from_ascii("svc.test").unwrap()], ..plan };
            let resolvers = Resolvers::with_plan(&plan).unwrap();
            assert_eq!(addresses(&resolvers, name).await.unwrap(), [expected], "{name}, ndots:{ndots}");
        }
    }

    #[tokio::test]
    async fn every_name_that_a_configuration_may_have_can_be_asked_for() {
        let dns = server().await;
        let resolvers = Resolvers::new(&[dns.address()]).unwrap();
        let longest = vec!["a_".repeat(31); 4].join(".");
        let names = [
            "web",
            "shop-web-1",
            "shop_web_1",
            "my_app.internal",
            "a__b",
            "_app",
            "app_",
            "ab--cd",
            "xn--4ca.test",
            "1web",
            "web.internal.",
            "WEB_1",
            &longest,
        ];
        for name in names {
            let address: Address = format!("{name}:80").parse().unwrap();
            assert_eq!(address.name(), Some(name));
            dns.addresses(name, 5, &[IpAddr::V4(Ipv4Addr::LOCALHOST)]);
            assert_eq!(addresses(&resolvers, name).await.unwrap(), ["127.0.0.1"], "{name}");
        }
        let error = addresses(&resolvers, "web..test").await.unwrap_err();
        assert!(
            error.is_final && error.reason.contains("is no name in DNS"),
            "asking again would not help: {error:?}"
        );
    }
}
