//! Compiles a validated configuration to a [`Snapshot`]. State that outlives a change, such as that of a
//! backend, is taken over from the previous snapshot.

pub(in crate::live) mod certificates;
mod fault;
pub(in crate::live) mod files;
pub(in crate::live) mod limiters;
pub(in crate::live) mod pools;
pub(in crate::live) mod resolve;
pub(in crate::live) mod self_signed;
pub(in crate::live) mod warnings;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::snapshot::{HostPolicies, Instance, Level, Route, Snapshot};
use crate::config::{self, Config, Domain, PathFault, PolicyTables, VirtualHost};
use crate::live::compile::certificates::certificates;
use crate::live::compile::fault::not_validated;
use crate::live::compile::limiters::Limiters;
use crate::live::compile::pools::Pools;
use crate::live::effective::{DefaultTables, EffectivePolicies};
use crate::live::settings::ProxySettings;
use crate::policy::access::Access;
use crate::policy::auth::{self, Auth, IdentityFields};
use crate::policy::body_limit::BodyLimit;
use crate::policy::client_certificate::ClientCertificates;
use crate::policy::compression::Compression;
use crate::policy::cors::Cors;
use crate::policy::fault::Fault;
use crate::policy::head_size::HeadSize;
use crate::policy::headers::HeaderRules;
use crate::policy::https_redirect::HttpsRedirect;
use crate::policy::redirect::Redirect;
use crate::policy::rewrite::Rewrite;
use crate::policy::security_headers::SecurityHeaders;
use crate::policy::signed_cookie::{CookieKey, SignedCookie};
use crate::route::{HostTable, PathRule, Rule, RuleTable};
use crate::telemetry::Metrics;
use crate::tls::Certificates;
use crate::tls::acme::AcmePlan;
use crate::upstream::{
    BackendState, BreakerRules, Endpoint, Mirror, ResolvedAddress, ResolvedAddresses, RetryRules,
    TrafficSplit, WeightedPool, fixed,
};
use crate::util::secrets::Secrets;

/// Name of a virtual host's fallback route, for requests that match no other route of the host.
const WHOLE_HOST: &str = "/";

/// Input of a compilation, besides the configuration.
pub(super) struct CompileInput<'s> {
    pub(super) metrics: &'s Arc<Metrics>,
    pub(super) cookie_key: &'s Arc<CookieKey>,
    /// Addresses that the names of backends resolve to.
    pub(super) resolved: Arc<ResolvedAddresses>,
    /// Snapshot that the new snapshot will replace; `None` when the process starts.
    pub(super) before: Option<&'s Snapshot>,
    /// Revision number of the new snapshot.
    pub(super) revision: u64,
    /// Reader of secrets, which also records which secrets are missing.
    pub(super) secrets: Secrets,
}

/// Compiles `config`. State that outlives a change is taken over from the previous snapshot. A backend with the
/// same name and address keeps its state, a rate limit with the same scope keeps its counts, and a tag keeps
/// its retry budget.
///
/// # Errors
/// Returns the faults of files that the configuration names but the gateway cannot use.
pub(super) fn compile(config: &Config, with: &CompileInput<'_>) -> Result<Snapshot, Vec<PathFault>> {
    let backends = backends(config, with)?;
    let new: Vec<Arc<BackendState>> =
        backends.iter().flatten().map(|instance| instance.state.clone()).collect();
    compile_with(backends, config, with).inspect_err(|_| {
        // The new backends got metrics, which are not needed after a failure.
        let before = with.before.iter().flat_map(|before| before.instances());
        let known: HashSet<&str> = before.map(|instance| instance.state.name.as_str()).collect();
        for state in new.iter().filter(|state| !known.contains(state.name.as_str())) {
            with.metrics.backends.forget(&state.name);
        }
    })
}

fn compile_with(
    backends: Vec<Vec<Instance>>,
    config: &Config,
    with: &CompileInput<'_>,
) -> Result<Snapshot, Vec<PathFault>> {
    let defaults = DefaultTables::default();
    let acme = AcmePlan::new(config).map_err(|bad| {
        vec![PathFault { path: "lets_encrypt/ca_file".to_owned(), detail: bad.to_string() }]
    })?;
    let certificates = certificates(config, &acme, with.before)?;
    let mut compiler = Compiler {
        top: config.policy_tables(),
        defaults: &defaults,
        metrics: with.metrics,
        cookie_key: with.cookie_key,
        certificates: &certificates,
        https_port: https_port(config),
        pools: Pools::new(config, &backends, with.before),
        limiters: Limiters::new(config, with.before, with.metrics, &with.secrets),
        auth: auth::Compiler::new(
            with.before.map(|before| before.kept.clone()).unwrap_or_default(),
            |url| with.metrics.auth.key_set(url),
            &with.secrets,
        ),
        access: HashMap::new(),
        routes: HashMap::new(),
    };
    let mut hosts = HostTable::default();
    for (i, host) in config.virtual_hosts.iter().enumerate() {
        let rules = Arc::new(compiler.rules(i, host)?);
        for domain in std::iter::once(&host.domain).chain(&host.aliases) {
            let domain: Domain =
                domain.parse().map_err(|_| not_validated("the domain of a virtual host is not valid"))?;
            hosts.insert(domain, rules.clone());
        }
    }
    let top = EffectivePolicies::new(&[(Level::Top, config.policy_tables())], &defaults);
    let (health, budgets) = compiler.pools.finish(&top, &backends)?;
    let (counters, stores) = compiler.limiters.finish();
    let security_headers = SecurityHeaders::from(top.security_headers.table);
    let of_top = HeadSize::from(top.limits.table);
    let largest_head = compiler.routes.values().map(|route| route.head_size).fold(of_top, HeadSize::or);
    Ok(Snapshot {
        config: Arc::new(config.clone()),
        revision: with.revision,
        hosts,
        routes: compiler.routes,
        certificates: certificates.clone(),
        backends,
        resolved: with.resolved.clone(),
        acme: Arc::new(acme),
        health,
        budgets,
        counters,
        stores,
        largest_head,
        identity_fields: identity_fields(config),
        kept: compiler.auth.finish(),
        proxy: ProxySettings::from(&config.proxy),
        security_headers,
        cors: top.cors.map(|found| Cors::from(found.table)),
        unrouted: with.metrics.lazy_route("", ""),
        missing_secrets: with.secrets.missing(),
    })
}

/// Returns the header fields in which any `[auth]` table tells backends the client's identity.
fn identity_fields(config: &Config) -> Option<IdentityFields> {
    let tables = config.levels().filter_map(|(_, tables)| tables.auth);
    IdentityFields::new(tables.flat_map(config::Auth::identity_headers))
}

/// Returns the HTTPS port that clients use: `proxy.https_port`, or else the port of the first HTTPS listener,
/// or else 443.
fn https_port(config: &Config) -> u16 {
    let listener = config.proxy.listen_addr.0.first().map_or(0, std::net::SocketAddr::port);
    match (config.proxy.https_port, listener) {
        (0, 0) => 443,
        (0, listener) => listener,
        (port, _) => port,
    }
}

/// Returns the instances of every backend, in the order of the configuration.
fn backends(config: &Config, with: &CompileInput<'_>) -> Result<Vec<Vec<Instance>>, Vec<PathFault>> {
    let known = with.before.iter().flat_map(|before| before.instances());
    let known: HashMap<_, _> =
        known.map(|instance| ((&*instance.state.name, &instance.state.endpoint), &instance.state)).collect();
    let state = |name: String, place: &ResolvedAddress| match known.get(&(&*name, &place.endpoint)) {
        Some(state) => (*state).clone(),
        None => {
            let metrics = with.metrics.backends.handles(&name);
            Arc::new(BackendState::new(name, place.endpoint.clone(), place.host.clone(), metrics))
        }
    };
    let mut backends = Vec::new();
    for backend in &config.backends {
        let address = backend.address.as_ref().ok_or_else(|| not_validated("a backend has no address"))?;
        let fixed = fixed(address).map(|place| vec![place]);
        let named = address.name().is_some();
        let resolved = fixed.as_ref().or_else(|| with.resolved.get(address));
        let resolved = resolved.ok_or_else(|| not_validated("the name of a backend was not resolved"))?;
        let instance = |place: &ResolvedAddress| {
            let name = match &place.endpoint {
                Endpoint::Inet(address) if named => format!("{}@{address}", backend.id),
                _ => backend.id.clone(),
            };
            Instance {
                state: state(name, place),
                weight: backend.weight.get().saturating_mul(place.weight),
                backup: backend.backup || place.backup,
            }
        };
        backends.push(resolved.iter().map(instance).collect());
    }
    Ok(backends)
}

/// Compiler for the routes of all virtual hosts, with the parts that the routes share.
struct Compiler<'c> {
    /// Policy tables at the top of the configuration.
    top: PolicyTables<'c>,
    defaults: &'c DefaultTables,
    metrics: &'c Arc<Metrics>,
    cookie_key: &'c Arc<CookieKey>,
    certificates: &'c Certificates,
    https_port: u16,
    pools: Pools<'c>,
    limiters: Limiters<'c>,
    auth: auth::Compiler<'c>,
    /// Compiled `[access]` tables, by the memory address of the table.
    access: HashMap<usize, Option<Arc<Access>>>,
    /// Routes that have been compiled so far, by domain and name.
    routes: HashMap<(String, String), Arc<Route>>,
}

impl<'c> Compiler<'c> {
    fn rules(
        &mut self,
        index: usize,
        host: &'c VirtualHost,
    ) -> Result<RuleTable<Arc<Route>>, Vec<PathFault>> {
        let at = format!("virtual_hosts/{index}/");
        let host_policies = Arc::new(self.host_policies(host));
        let mut rules = Vec::new();
        for (i, route) in host.routes.iter().enumerate() {
            rules.push(Rule {
                path: path_rule(route),
                methods: route.methods.iter().map(|method| method.0.clone()).collect(),
                headers: route.header_match.0.iter().map(|(n, v)| (n.0.clone(), v.0.clone())).collect(),
                target: self.add(&format!("{at}routes/{i}/"), host, &host_policies, Some(route))?,
            });
        }
        Ok(RuleTable::new(rules, self.add(&at, host, &host_policies, None)?))
    }

    /// Compiles the policies that all routes of `host` share.
    fn host_policies(&self, host: &VirtualHost) -> HostPolicies {
        // The search is skipped without a client CA, because there may be many hosts.
        let mut shown = self.certificates.all().iter().filter(|_| !host.client_ca_file.is_empty());
        let shown = shown.find(|shown| shown.domain == host.domain);
        let authority = shown.and_then(|shown| shown.client.as_ref());
        HostPolicies {
            https_redirect: host.http_to_https.then(|| HttpsRedirect::new(self.https_port)),
            client_certificate: authority
                .map(|authority| ClientCertificates::new(authority.id, host.client_certificate)),
        }
    }

    fn add(
        &mut self,
        at: &str,
        host: &'c VirtualHost,
        host_policies: &Arc<HostPolicies>,
        route: Option<&'c config::Route>,
    ) -> Result<Arc<Route>, Vec<PathFault>> {
        let name = route.map_or_else(|| WHOLE_HOST.to_owned(), config::Route::name);
        let made = Arc::new(self.route(at, host, host_policies, route, &name)?);
        self.routes.insert((host.domain.clone(), name), made.clone());
        Ok(made)
    }

    /// Compiles a route of `host`, or the fallback route if `route` is `None` (see [`WHOLE_HOST`]).
    fn route(
        &mut self,
        at: &str,
        host: &'c VirtualHost,
        host_policies: &Arc<HostPolicies>,
        route: Option<&'c config::Route>,
        name: &str,
    ) -> Result<Route, Vec<PathFault>> {
        let levels = [
            (Level::Route, route.map(config::Route::policy_tables).unwrap_or_default()),
            (Level::VirtualHost, host.policy_tables()),
            (Level::Top, self.top),
        ];
        let policies = EffectivePolicies::new(&levels, self.defaults);
        let own_tag = route.map(|route| route.enabled_backends_tag.as_str()).filter(|tag| !tag.is_empty());
        let split = match own_tag {
            Some(tag) => TrafficSplit::new(self.weighted_pool(at, &policies, tag)?, Vec::new()),
            None => self.split(at, &policies, host)?,
        };
        let cookie = Some(&*host.split_cookie).filter(|name| !name.is_empty() && split.is_shared());
        let purpose = format!("split {}", host.domain);
        let (redirect, rewrite) = match route {
            Some(route) => (Redirect::new(route), Rewrite::new(route)),
            None => (Ok(None), Ok(Rewrite::Keep)),
        };
        let breaker = BreakerRules::from(policies.circuit_breaker.table);
        let mirror_tag = route.map(|route| route.mirror_tag.as_str()).filter(|tag| !tag.is_empty());
        let mirror = mirror_tag.map(|tag| {
            let (pool, peers) = (self.pools.pool(tag, &policies)?, self.pools.peers(at, &policies)?);
            self.pools.probe(at, tag, &policies)?;
            Ok::<_, Vec<PathFault>>(Mirror { tag: tag.to_owned(), pool, peers })
        });
        Ok(Route {
            domain: host.domain.clone(),
            name: name.to_owned(),
            host_policies: host_policies.clone(),
            policies: policies.levels(),
            redirect: redirect.map_err(|_| not_validated("the target of a redirect is not valid"))?,
            rewrite: rewrite.map_err(|_| not_validated("the rewrite of a path is not valid"))?,
            fault: route.and_then(|route| Fault::new(route.fault)),
            split_cookie: cookie.map(|name| SignedCookie::new(name, purpose, self.cookie_key.clone())),
            split,
            algorithm: policies.balancing.table.algorithm,
            hash_key: policies.balancing.table.hash_key.clone(),
            sticky_cookie: self.sticky_cookie(host, own_tag, &policies),
            peers: self.pools.peers(at, &policies)?,
            retry: RetryRules::from(policies.retry.table),
            breaker,
            mirror: mirror.transpose()?,
            access: policies.access.and_then(|found| self.access(found.table)),
            auth: self.auth(at, &policies)?,
            foreign_proofs: policies.foreign_proofs(&levels),
            rate_limit: self.limiters.limiter(at, host, &policies, name)?,
            head_size: HeadSize::from(policies.limits.table),
            body_limit: BodyLimit::from(policies.limits.table),
            headers: HeaderRules::from(policies.headers.table),
            security_headers: SecurityHeaders::from(policies.security_headers.table),
            cors: policies.cors.map(|found| Cors::from(found.table)),
            compression: policies.compression.map(|found| Compression::from(found.table)),
            metrics: self.metrics.lazy_route(&host.domain, name),
        })
    }

    /// Compiles the traffic split of `host`. Routes that name a tag do not use this split.
    fn split(
        &mut self,
        at: &str,
        policies: &EffectivePolicies<'c>,
        host: &VirtualHost,
    ) -> Result<TrafficSplit, Vec<PathFault>> {
        let shares = host.split.iter().map(|share| (&share.tag, share.percent, false));
        let rollout = host.rollout.iter().filter_map(|rollout| Some((&rollout.to, rollout.share()?, true)));
        let mut others = Vec::new();
        for (tag, percent, provisional) in shares.chain(rollout) {
            let weighted_pool = self.compared_pool(at, policies, host, tag)?;
            others.push(WeightedPool { percent: percent.get(), provisional, ..weighted_pool });
        }
        let tag = &host.enabled_backends_tag;
        if others.is_empty() {
            return Ok(TrafficSplit::new(self.weighted_pool(at, policies, tag)?, others));
        }
        let percent =
            others.iter().map(|weighted_pool| weighted_pool.percent).fold(100_u8, u8::saturating_sub);
        Ok(TrafficSplit::new(
            WeightedPool { percent, ..self.compared_pool(at, policies, host, tag)? },
            others,
        ))
    }

    /// Returns the pool of `tag`, with a share of 100 percent.
    fn weighted_pool(
        &mut self,
        at: &str,
        policies: &EffectivePolicies<'c>,
        tag: &str,
    ) -> Result<WeightedPool, Vec<PathFault>> {
        let pool = self.pools.pool(tag, policies)?;
        self.pools.probe(at, tag, policies)?;
        Ok(WeightedPool { tag: tag.to_owned(), pool, percent: 100, provisional: false, metrics: None })
    }

    /// Returns the pool of `tag`, with a share of 100 percent, and with metrics by which the tag can be
    /// compared with the other tags of its split.
    fn compared_pool(
        &mut self,
        at: &str,
        policies: &EffectivePolicies<'c>,
        host: &VirtualHost,
        tag: &str,
    ) -> Result<WeightedPool, Vec<PathFault>> {
        let weighted_pool = self.weighted_pool(at, policies, tag)?;
        Ok(WeightedPool { metrics: Some(self.metrics.lazy_tag(&host.domain, tag)), ..weighted_pool })
    }

    /// Returns the cookie that keeps a client on a backend. A route whose tag differs from that of the host
    /// gets a cookie with another name. Otherwise both tags would keep overwriting each other's cookie.
    fn sticky_cookie(
        &self,
        host: &VirtualHost,
        own_tag: Option<&str>,
        policies: &EffectivePolicies<'_>,
    ) -> Option<SignedCookie> {
        let name = Some(&policies.balancing.table.sticky_cookie).filter(|name| !name.is_empty())?;
        let name = match own_tag {
            Some(tag) if tag != host.enabled_backends_tag => {
                let hash = openssl::sha::sha256(tag.as_bytes());
                format!("{name}-{}", hex::encode(&hash[..3]))
            }
            _ => name.clone(),
        };
        let purpose = format!("sticky {}", host.domain);
        Some(SignedCookie::new(&name, purpose, self.cookie_key.clone()))
    }

    fn access(&mut self, table: &config::Access) -> Option<Arc<Access>> {
        let made = self.access.entry(std::ptr::from_ref(table).addr());
        made.or_insert_with(|| Access::new(table).map(Arc::new)).clone()
    }

    fn auth(
        &mut self,
        at: &str,
        policies: &EffectivePolicies<'c>,
    ) -> Result<Option<Arc<Auth>>, Vec<PathFault>> {
        let Some(auth) = policies.auth else { return Ok(None) };
        let compiled = self.auth.compile(auth.table);
        compiled.map_err(|bad| auth.fault(at, &format!("auth/{}", bad.key), bad.detail))
    }
}

fn path_rule(route: &config::Route) -> PathRule {
    match (&route.path, &route.path_regex, &route.path_prefix) {
        (Some(path), _, _) => PathRule::Exact(path.clone()),
        (None, Some(pattern), _) => PathRule::Regex(pattern.0.clone()),
        // A route without a path matches every path.
        (None, None, prefix) => PathRule::Prefix(prefix.clone().unwrap_or_else(|| "/".to_owned())),
    }
}
