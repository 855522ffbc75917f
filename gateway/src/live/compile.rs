//! From a validated configuration to a [`Snapshot`].

use std::cell::OnceCell;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use http::HeaderValue;

use super::snapshot::{Level, Route, Snapshot};
use crate::config::{self, Config, Domain, HostPort, PathFault, RateLimitScope, VirtualHost};
use crate::policy::headers::HeaderRules;
use crate::policy::rate_limit::{Counters, RateLimiter};
use crate::policy::rewrite::Rewrite;
use crate::policy::signed_cookie::{CookieKey, SignedCookie};
use crate::route::{HostTable, PathRule, Rule, RuleTable};
use crate::telemetry::Metrics;
use crate::upstream::{Arm, BackendState, PeerSettings, Pool, Split};

/// The route of the requests that no route of their virtual host takes.
const WHOLE_HOST: &str = "/";

/// What a snapshot is compiled with, besides the configuration.
pub(super) struct Surroundings<'s> {
    pub(super) metrics: &'s Arc<Metrics>,
    pub(super) cookie_key: &'s Arc<CookieKey>,
    pub(super) names: Names,
    /// What it will take the place of.
    pub(super) before: Option<&'s Snapshot>,
}

/// What becomes of backends that have a name in place of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// The system's resolver is asked for each; one that leads nowhere is a fault.
    Resolved,
    /// It is asked for those that are new; the others keep the address that they have. A name that leads
    /// nowhere for a while must not hold up what is changed elsewhere.
    Known,
    /// Nobody is asked, and nothing can be sent to them: for looking at a configuration without running it.
    Unresolved,
}

/// Compiles `config`. Names of backends are resolved, which may take the resolver's time. What outlives a
/// change is taken over by identity from the snapshot before: a backend's state by its id and address, a
/// client's counts by the scope of the rate limit.
///
/// # Errors
/// Names that lead nowhere.
pub(super) fn compile(config: &Config, with: &Surroundings<'_>) -> Result<Snapshot, Vec<PathFault>> {
    let backends = backends(config, with)?;
    let counters = with.before.and_then(|before| before.counters.clone());
    let mut compiler = Compiler {
        config,
        metrics: with.metrics,
        cookie_key: with.cookie_key,
        pools: pools(config, &backends),
        counters: counters.map_or_else(OnceCell::new, OnceCell::from),
        routes: HashMap::new(),
    };
    let mut hosts = HostTable::default();
    for host in &config.virtual_hosts {
        let rules = Arc::new(compiler.rules(host)?);
        for domain in std::iter::once(&host.domain).chain(&host.aliases) {
            let domain: Domain =
                domain.parse().map_err(|_| not_validated("a virtual host's domain is no host"))?;
            hosts.insert(domain, rules.clone());
        }
    }
    Ok(Snapshot {
        config: Arc::new(config.clone()),
        revision: with.before.map_or(1, |before| before.revision + 1),
        hosts,
        routes: compiler.routes,
        backends,
        counters: compiler.counters.into_inner(),
        keepalive_timeout: config.proxy.keepalive_timeout_secs.duration(),
        request_timeout: config.proxy.request_timeout_secs.duration(),
        unrouted: with.metrics.lazy_route("", ""),
    })
}

/// A defect: validation should have refused this.
fn not_validated(what: &str) -> Vec<PathFault> {
    vec![PathFault { path: String::new(), detail: format!("the configuration was not validated: {what}") }]
}

/// Every backend, or every one whose name leads nowhere.
fn backends(config: &Config, with: &Surroundings<'_>) -> Result<Vec<Arc<BackendState>>, Vec<PathFault>> {
    let (mut resolved, mut unresolved) = (Vec::new(), Vec::new());
    let before = with.before.filter(|_| with.names == Names::Known).into_iter();
    let before = before.flat_map(|before| before.config.backends.iter().zip(&before.backends));
    let addresses: HashMap<_, _> =
        before.filter_map(|(backend, state)| Some((backend.address.as_ref()?, state.address))).collect();
    for (i, backend) in config.backends.iter().enumerate() {
        let address = backend.address.as_ref().ok_or_else(|| not_validated("a backend has no address"))?;
        let found = addresses.get(address).map_or_else(|| resolve(address, with.names), |known| Ok(*known));
        match found {
            Ok(found) => resolved.push((backend.id.as_str(), found)),
            Err(reason) => {
                let id = &backend.id;
                let detail = format!("cannot resolve '{address}', the address of backend '{id}': {reason}");
                unresolved.push(PathFault { path: format!("backends/{i}/address"), detail });
            }
        }
    }
    if !unresolved.is_empty() {
        return Err(unresolved);
    }
    let known = with.before.iter().flat_map(|before| &before.backends);
    let known: HashMap<_, _> = known.map(|state| ((state.id.as_str(), state.address), state)).collect();
    let state = |(id, address): (&str, SocketAddr)| match known.get(&(id, address)) {
        Some(state) => (*state).clone(),
        None => Arc::new(BackendState::new(id.to_owned(), address, with.metrics.backend(id))),
    };
    Ok(resolved.into_iter().map(state).collect())
}

/// The address of a backend now, or what the resolver said.
fn resolve(address: &HostPort, names: Names) -> Result<SocketAddr, String> {
    if let Some(ip) = address.ip() {
        return Ok(SocketAddr::from((ip, address.port)));
    }
    if names == Names::Unresolved {
        return Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port)));
    }
    let found = (address.host.as_str(), address.port).to_socket_addrs().map_err(|error| error.to_string())?;
    let found: Vec<SocketAddr> = found.collect();
    // A name such as localhost has both kinds of address, and services listen on IPv4 more often.
    let preferred = found.iter().find(|address| address.is_ipv4()).or(found.first());
    preferred.copied().ok_or_else(|| "the name has no address".to_owned())
}

fn pools<'c>(config: &'c Config, backends: &[Arc<BackendState>]) -> HashMap<&'c str, Arc<Pool>> {
    let mut members: HashMap<&str, Vec<Arc<BackendState>>> = HashMap::new();
    for (backend, state) in config.backends.iter().zip(backends) {
        for tag in &backend.tags {
            members.entry(tag).or_default().push(state.clone());
        }
    }
    for tag in &config.empty_tags {
        members.entry(tag).or_default();
    }
    let pool =
        |(tag, members): (&'c str, Vec<_>)| (tag, Arc::new(Pool::new(members, config.balancing.algorithm)));
    members.into_iter().map(pool).collect()
}

/// What the routes of all virtual hosts are made from.
struct Compiler<'c> {
    config: &'c Config,
    metrics: &'c Arc<Metrics>,
    cookie_key: &'c Arc<CookieKey>,
    pools: HashMap<&'c str, Arc<Pool>>,
    /// For all rate limits together, and only made where there is one.
    counters: OnceCell<Arc<Counters>>,
    /// What has been made so far.
    routes: HashMap<(String, String), Arc<Route>>,
}

impl Compiler<'_> {
    fn rules(&mut self, host: &VirtualHost) -> Result<RuleTable<Arc<Route>>, Vec<PathFault>> {
        let mut rules = Vec::new();
        for route in &host.routes {
            rules.push(Rule {
                path: path_rule(route),
                methods: route.methods.iter().map(|method| method.0.clone()).collect(),
                headers: route.header_match.0.iter().map(|(n, v)| (n.0.clone(), v.0.clone())).collect(),
                target: self.add(host, Some(route))?,
            });
        }
        Ok(RuleTable::new(rules, self.add(host, None)?))
    }

    fn add(
        &mut self,
        host: &VirtualHost,
        route: Option<&config::Route>,
    ) -> Result<Arc<Route>, Vec<PathFault>> {
        let name = route.map_or_else(|| WHOLE_HOST.to_owned(), config::Route::name);
        let made = Arc::new(self.route(host, route, &name)?);
        self.routes.insert((host.domain.clone(), name), made.clone());
        Ok(made)
    }

    /// A route of `host`, or that of the requests which none of its routes takes.
    fn route(
        &self,
        host: &VirtualHost,
        route: Option<&config::Route>,
        name: &str,
    ) -> Result<Route, Vec<PathFault>> {
        let config = self.config;
        let own_tag = route.map(|route| route.enabled_backends_tag.as_str()).filter(|tag| !tag.is_empty());
        let split = match own_tag {
            Some(tag) => Split::new(self.arm(tag)?, Vec::new()),
            None => self.split(host)?,
        };
        let cookie = Some(&*host.split_cookie).filter(|name| !name.is_empty() && split.is_shared());
        let purpose = format!("split {}", host.domain);
        let upstream = innermost(route.map(|r| &r.upstream), &host.upstream, &config.upstream);
        let retry = innermost(route.map(|r| &r.retry), &host.retry, &config.retry);
        let headers = innermost(route.map(|r| &r.headers), &host.headers, &config.headers);
        let redirect = route.map(|route| route.redirect.as_str()).filter(|target| !target.is_empty());
        let redirect = redirect.map(HeaderValue::from_str).transpose();
        let limit = innermost(route.map(|r| &r.rate_limit), &host.rate_limit, &config.rate_limit);
        Ok(Route {
            domain: host.domain.clone(),
            name: name.to_owned(),
            policies: [
                ("upstream", level(upstream)),
                ("retry", level(retry)),
                ("rate_limit", level(limit)),
                ("headers", level(headers)),
            ],
            redirect: redirect.map_err(|_| not_validated("a redirect leads nowhere"))?,
            rewrite: route.map_or(Rewrite::Keep, Rewrite::from),
            split_cookie: cookie.map(|name| SignedCookie::new(name, purpose, self.cookie_key.clone())),
            split,
            peers: PeerSettings::from(&table(upstream)),
            attempts: table(retry).attempts.get(),
            rate_limit: self.rate_limit(host, route, name),
            headers: HeaderRules::from(&table(headers)),
            metrics: self.metrics.lazy_route(&host.domain, name),
        })
    }

    /// How a virtual host shares the requests that no route of it sends elsewhere.
    fn split(&self, host: &VirtualHost) -> Result<Split, Vec<PathFault>> {
        let shares = host.split.iter().map(|share| (&share.tag, share.percent, false));
        let rollout = host.rollout.iter().filter_map(|rollout| Some((&rollout.to, rollout.share()?, true)));
        let mut others = Vec::new();
        for (tag, percent, provisional) in shares.chain(rollout) {
            others.push(Arm { percent: percent.get(), provisional, ..self.compared_arm(host, tag)? });
        }
        if others.is_empty() {
            return Ok(Split::new(self.arm(&host.enabled_backends_tag)?, others));
        }
        let percent = others.iter().map(|arm| arm.percent).fold(100_u8, u8::saturating_sub);
        Ok(Split::new(Arm { percent, ..self.compared_arm(host, &host.enabled_backends_tag)? }, others))
    }

    /// All requests for the backends with `tag`.
    fn arm(&self, tag: &str) -> Result<Arm, Vec<PathFault>> {
        let pool = self.pools.get(tag).ok_or_else(|| not_validated("a tag has no backends"))?.clone();
        Ok(Arm { tag: tag.to_owned(), pool, percent: 100, provisional: false, metrics: None })
    }

    /// The same, counted, to be compared with others.
    fn compared_arm(&self, host: &VirtualHost, tag: &str) -> Result<Arm, Vec<PathFault>> {
        Ok(Arm { metrics: Some(self.metrics.lazy_tag(&host.domain, tag)), ..self.arm(tag)? })
    }

    fn rate_limit(
        &self,
        host: &VirtualHost,
        route: Option<&config::Route>,
        name: &str,
    ) -> Option<RateLimiter> {
        let (limit, level) =
            innermost(route.map(|r| &r.rate_limit), &host.rate_limit, &self.config.rate_limit)?;
        let scope = match (limit.scope, level) {
            (RateLimitScope::Global, Level::Top) => "gateway".to_owned(),
            (RateLimitScope::Global, Level::VirtualHost) => format!("host {}", host.domain),
            _ => format!("route {} {name}", host.domain),
        };
        Some(RateLimiter::new(limit, scope, self.counters.get_or_init(Arc::default).clone()))
    }
}

fn path_rule(route: &config::Route) -> PathRule {
    match (&route.path, &route.path_regex, &route.path_prefix) {
        (Some(path), _, _) => PathRule::Exact(path.clone()),
        (None, Some(pattern), _) => PathRule::Regex(pattern.0.clone()),
        // One without a path is for all of them.
        (None, None, prefix) => PathRule::Prefix(prefix.clone().unwrap_or_else(|| "/".to_owned())),
    }
}

/// Of a policy's tables, the one that holds: the innermost, whole; and where it was written.
fn innermost<'c, T>(
    route: Option<&'c Option<T>>,
    host: &'c Option<T>,
    top: &'c Option<T>,
) -> Option<(&'c T, Level)> {
    let route = route.and_then(Option::as_ref).map(|table| (table, Level::Route));
    let host = || host.as_ref().map(|table| (table, Level::VirtualHost));
    route.or_else(host).or_else(|| top.as_ref().map(|table| (table, Level::Top)))
}

fn table<T: Clone + Default>(found: Option<(&T, Level)>) -> T {
    found.map(|(table, _)| table.clone()).unwrap_or_default()
}

fn level<T>(found: Option<(&T, Level)>) -> Level {
    found.map_or(Level::Default, |(_, level)| level)
}
