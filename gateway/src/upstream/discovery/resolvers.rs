//! DNS servers, asked one after the other: if a server fails, the next server is asked. The library's own list of
//! servers is not used, because the library asks several at once, and treats a failure of one as the answer.

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

/// DNS servers that the gateway asks, and the options of the queries.
pub(super) struct Resolvers {
    servers: Vec<Server>,
    options: Options,
    /// Counter that selects the first server of the next lookup, if the option `rotate` is set.
    turn: AtomicUsize,
}

/// DNS server, with the resolvers that send queries to it.
struct Server {
    /// Address of the server, for messages.
    name: String,
    /// Resolver that sends an EDNS record; `None` if EDNS is switched off.
    with_edns: Option<Resolver<Runtime>>,
    /// Resolver that sends no EDNS record.
    without_edns: Resolver<Runtime>,
    /// True once the server has refused a query with EDNS and answered the same query without EDNS.
    refuses_edns: AtomicBool,
}

impl Resolvers {
    /// Returns resolvers for `servers`, or for the system's servers if `servers` is empty.
    ///
    /// # Errors
    /// Returns an error if the library cannot use the settings.
    pub(super) fn new(servers: &[SocketAddr]) -> Result<Self, LookupError> {
        Resolvers::with_plan(&Plan::of(servers))
    }

    fn with_plan(plan: &Plan) -> Result<Self, LookupError> {
        let servers = match &plan.servers[..] {
            // Without a server, only the hosts file is used.
            [] => vec![Server::new(plan, None)?],
            some => some.iter().map(|server| Server::new(plan, Some(*server))).collect::<Result<_, _>>()?,
        };
        Ok(Resolvers { servers, options: plan.options.clone(), turn: AtomicUsize::new(0) })
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// Returns the records of `name` from the first server that answers.
    ///
    /// # Errors
    /// Returns an error if the first answer is that there is no such name or record, or if every server has failed.
    pub(super) async fn lookup(&self, name: &str, kind: RecordType) -> Result<Lookup, LookupError> {
        // A DNS name may have any byte (RFC 2181 11). The rules for host names do not apply: they forbid `_`.
        let name = Name::from_ascii(name)
            .map_err(|error| LookupError::lasting(format!("'{name}' is not a valid DNS name: {error}")))?;
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
            // No retries and no cache in the library: the gateway itself counts attempts and schedules lookups.
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
            // RFC 6891 7: the server may have failed because it does not know the EDNS record.
            let answer = self.heard(self.without_edns.lookup(name.clone(), kind).await);
            let is_answered = answer.as_ref().map_or_else(|failure| failure.error.is_final, |_| true);
            if is_answered && !self.refuses_edns.swap(true, Ordering::Relaxed) {
                info!("{}: further queries to it go without EDNS", refusal.reason);
            }
            return answer.map_err(|failure| failure.error);
        }
        self.heard(self.without_edns.lookup(name.clone(), kind).await).map_err(|failure| failure.error)
    }

    /// Converts the library's result. The library returns a response with an unknown code as an empty answer; this
    /// function returns an error for it.
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

/// Reason why a server gave no answer.
struct Failure {
    error: LookupError,
    /// True if the EDNS record may be the cause, so that a query without EDNS may succeed.
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
    async fn response_code_of_server_is_in_error() {
        let dns = server().await;
        dns.fail(NAME, Failure::ServerFailure);
        let resolvers = Resolvers::new(&[dns.address()]).unwrap();
        let error = addresses(&resolvers, NAME).await.unwrap_err();
        assert_eq!(error, LookupError::passing(format!("{} answered with SERVFAIL", dns.address())));
        assert!(!resolvers.servers[0].refuses_edns.load(Ordering::Relaxed), "that says nothing of EDNS");
        // From here on, the server answers every query with a header alone.
        dns.refuse_edns(5);
        let error = addresses(&resolvers, NAME).await.unwrap_err();
        assert_eq!(error, LookupError::passing(format!("{} answered with REFUSED", dns.address())));
    }

    #[tokio::test]
    async fn failing_servers_are_asked_once_per_attempt() {
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
    async fn rotate_option_spreads_lookups_over_servers() {
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
    async fn use_vc_option_sends_no_udp_query() {
        let dns = server().await;
        let options = Options { only_tcp: true, attempts: 1, ..Options::default() };
        let resolvers = Resolvers::with_plan(&plan(&[&dns], options)).unwrap();
        // The query fails, because the test's server listens only on UDP.
        assert!(!addresses(&resolvers, NAME).await.unwrap_err().is_final);
        assert_eq!(dns.asked(NAME), 0);
    }

    #[tokio::test]
    async fn name_with_too_few_dots_uses_search_list_first() {
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
    async fn name_valid_in_configuration_can_be_looked_up() {
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
            error.is_final && error.reason.contains("is not a valid DNS name"),
            "asking again would not help: {error:?}"
        );
    }
}
