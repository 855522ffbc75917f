//! Options of DNS lookups: those in the system's `/etc/resolv.conf` (resolv.conf(5)), or the gateway's defaults.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::proto::rr::Name;
use hickory_resolver::system_conf::parse_resolv_conf;
use tracing::warn;

/// File in which the system lists its DNS servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

const PORT: u16 = 53;

/// Timeout of a query, unless resolv.conf sets another. The system's default of five seconds would be too long,
/// because the gateway waits for the answers when it starts.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Supported options, by their names in resolv.conf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// `timeout`: timeout of a query, from 1 to 30 seconds.
    pub(super) timeout: Duration,
    /// `attempts`: number of rounds through all servers, from 1 to 5.
    pub(super) attempts: usize,
    /// `rotate`: true if each lookup begins with another server; false if each begins with the first server.
    pub(super) rotates: bool,
    /// `ndots`, at most 15: a name with fewer dots than this is tried with the search list first.
    pub(super) ndots: usize,
    /// `use-vc`: true if queries are sent only over TCP.
    pub(super) only_tcp: bool,
    /// `edns0`: true if queries have an EDNS record. Always true for the servers in `proxy.nameservers`.
    pub(super) edns: bool,
    /// True if IPv6 addresses are looked up too; false if `no-aaaa` is set.
    pub(super) asks_ipv6: bool,
    /// `single-request`: true if the query for IPv6 waits for the answer about IPv4; false if both are sent at once.
    pub(super) one_by_one: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            timeout: TIMEOUT,
            attempts: 2,
            rotates: false,
            ndots: 1,
            only_tcp: false,
            edns: true,
            asks_ipv6: true,
            one_by_one: false,
        }
    }
}

/// DNS servers to ask, and the options of the queries.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) options: Options,
    /// DNS servers to ask; if empty, only the hosts file is used.
    pub(super) servers: Vec<SocketAddr>,
    /// Domain of this machine.
    pub(super) domain: Option<Name>,
    /// Search list: domains that are appended to a short name.
    pub(super) search: Vec<Name>,
}

impl Plan {
    /// Returns a plan that asks `servers`, or the system's servers if `servers` is empty.
    pub(super) fn of(servers: &[SocketAddr]) -> Self {
        if !servers.is_empty() {
            return Plan { servers: servers.to_vec(), ..Plan::default() };
        }
        let read = std::fs::read(RESOLV_CONF).map_err(|error| error.to_string());
        read.and_then(|text| Plan::parse(&text)).unwrap_or_else(|error| {
            warn!(
                error,
                "{RESOLV_CONF} names no DNS server: names of backends are looked up in the hosts file only"
            );
            Plan::default()
        })
    }

    /// Returns the plan for the text of a resolv.conf.
    ///
    /// # Errors
    /// Returns an error if the text names no server.
    fn parse(text: &[u8]) -> Result<Self, String> {
        let (config, _) = parse_resolv_conf(text).map_err(|error| error.to_string())?;
        let (domain, search, servers) = config.into_parts();
        let servers = servers.iter().map(|server| SocketAddr::new(server.ip, PORT)).collect();
        let (said, _) = resolv_conf::Config::parse_with_errors(text);
        let timeout = match says_timeout(text) {
            true => Duration::from_secs(said.timeout.clamp(1, 30).into()),
            false => TIMEOUT,
        };
        let options = Options {
            timeout,
            attempts: said.attempts.clamp(1, 5) as usize,
            rotates: said.rotate,
            ndots: said.ndots.min(15) as usize,
            only_tcp: said.use_vc,
            edns: said.edns0,
            asks_ipv6: !said.no_aaaa,
            one_by_one: said.single_request,
        };
        Ok(Plan { options, servers, domain, search })
    }

    /// Returns the library's configuration for queries to `server`. Without a server, only the hosts file is used.
    pub(super) fn config(&self, server: Option<SocketAddr>) -> ResolverConfig {
        let server = server.map(|address| {
            let at_port = |mut connection: ConnectionConfig| {
                connection.port = address.port();
                connection
            };
            let udp = (!self.options.only_tcp).then(ConnectionConfig::udp);
            let connections = udp.into_iter().chain([ConnectionConfig::tcp()]).map(at_port);
            NameServerConfig::new(address.ip(), true, connections.collect())
        });
        ResolverConfig::from_parts(self.domain.clone(), self.search.clone(), server.into_iter().collect())
    }
}

/// Returns true if `text` sets the option `timeout`. The library cannot tell: without the option it returns its
/// default, as if the option had that value.
fn says_timeout(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines().map(str::split_whitespace);
    lines.any(|mut words| words.next() == Some("options") && words.any(|word| word.starts_with("timeout:")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Options {
        Plan::parse(format!("nameserver 192.0.2.53\n{text}").as_bytes()).unwrap().options
    }

    /// Returns the options for a file without options: those of the system's resolver, except for the timeout.
    fn usual() -> Options {
        Options { edns: false, ..Options::default() }
    }

    #[test]
    fn resolv_conf_options_are_applied() {
        assert_eq!(options(""), usual());
        let seconds = |seconds| Options { timeout: Duration::from_secs(seconds), ..usual() };
        for (text, expected) in [
            ("options timeout:7", seconds(7)),
            ("options timeout:5", seconds(5)),
            ("options timeout:0", seconds(1)),
            ("options timeout:99", seconds(30)),
            ("options attempts:4", Options { attempts: 4, ..usual() }),
            ("options attempts:0", Options { attempts: 1, ..usual() }),
            ("options attempts:99", Options { attempts: 5, ..usual() }),
            ("options rotate", Options { rotates: true, ..usual() }),
            ("options ndots:5", Options { ndots: 5, ..usual() }),
            ("options ndots:0", Options { ndots: 0, ..usual() }),
            ("options ndots:99", Options { ndots: 15, ..usual() }),
            ("options use-vc", Options { only_tcp: true, ..usual() }),
            ("options edns0 trust-ad", Options { edns: true, ..usual() }),
            ("options no-aaaa", Options { asks_ipv6: false, ..usual() }),
            ("options single-request", Options { one_by_one: true, ..usual() }),
            ("options nonsense ndots:many", usual()),
            ("# options timeout:9", usual()),
            (
                "options rotate\noptions ndots:2 edns0",
                Options { rotates: true, ndots: 2, edns: true, ..usual() },
            ),
        ] {
            assert_eq!(options(text), expected, "{text}");
        }
    }

    #[test]
    fn servers_and_search_list_are_taken_from_the_file() {
        let plan =
            Plan::parse(b"search a.test b.test\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n").unwrap();
        let servers: Vec<String> = plan.servers.iter().map(SocketAddr::to_string).collect();
        assert_eq!(servers, ["192.0.2.53:53", "[2001:db8::53]:53"]);
        assert_eq!(plan.search.iter().map(Name::to_string).collect::<Vec<_>>(), ["a.test", "b.test"]);
        for text in [&b""[..], b"search a.test\n", b"nameserver nonsense\n", b"\xff\xfe"] {
            assert!(Plan::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn configured_server_is_asked_with_edns_over_udp_and_tcp() {
        let server: SocketAddr = "127.0.0.1:5353".parse().unwrap();
        let plan = Plan::of(&[server]);
        assert_eq!((&plan.options, &plan.servers[..]), (&Options::default(), &[server][..]));
        let ports = |plan: &Plan| -> Vec<u16> {
            let config = plan.config(Some(server));
            config.name_servers()[0].connections.iter().map(|connection| connection.port).collect()
        };
        assert_eq!(ports(&plan), [5353, 5353]);
        let only_tcp = Plan { options: Options { only_tcp: true, ..Options::default() }, ..plan };
        assert_eq!(ports(&only_tcp), [5353]);
        assert!(only_tcp.config(None).name_servers().is_empty());
    }
}
