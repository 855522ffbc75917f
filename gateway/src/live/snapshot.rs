//! Defines the compiled configuration, which contains every setting in the form in which requests use it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Serialize;

use super::settings::ProxySettings;
use crate::config::{Algorithm, Config, HashKey, Paths};
use crate::policy::access::Access;
use crate::policy::auth::{Auth, AuthCaches, IdentityFields, KeySet};
use crate::policy::body_limit::BodyLimit;
use crate::policy::client_certificate::ClientCertificates;
use crate::policy::compression::Compression;
use crate::policy::cors::Cors;
use crate::policy::fault::Fault;
use crate::policy::head_size::HeadSize;
use crate::policy::headers::HeaderRules;
use crate::policy::https_redirect::HttpsRedirect;
use crate::policy::rate_limit::{Counters, RateLimiter, Store};
use crate::policy::redirect::{Asked, Redirect};
use crate::policy::rewrite::Rewrite;
use crate::policy::security_headers::SecurityHeaders;
use crate::policy::signed_cookie::SignedCookie;
use crate::policy::{Verdict, hash_key};
use crate::reply::{self, Reply};
use crate::route::{self, HostTable, RuleTable};
use crate::telemetry::Metrics;
use crate::telemetry::handles::{Lazy, RouteMetrics};
use crate::tls::Certificates;
use crate::tls::acme::AcmePlan;
use crate::upstream::{
    BackendState, BreakerRules, HealthPlan, Mirror, PeerSettings, ResolvedAddresses, RetryBudget, RetryRules,
    Selection, SplitBucket, TrafficSplit,
};

/// Retry budgets by tag.
pub(super) type Budgets = HashMap<String, Arc<RetryBudget>>;

/// Level of the configuration at which a table was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The table was written in the route.
    Route,
    /// The table was written in the virtual host.
    VirtualHost,
    /// The table was written at the top of the configuration.
    Top,
    /// The table was written at no level, so the default applies. By default, some policies are off.
    Default,
}

/// An address of a backend, with its state. A backend has several instances if its name resolves to several
/// addresses.
#[derive(Clone)]
pub struct Instance {
    /// State of the instance: health, circuit, requests in flight. Successive snapshots share it.
    pub state: Arc<BackendState>,
    /// Weight relative to the other instances.
    pub weight: u32,
    /// True if the instance gets requests only while no primary instance is usable.
    pub backup: bool,
}

/// A compiled configuration. A snapshot never changes; a change of the configuration makes a new one.
pub struct Snapshot {
    /// Configuration that the snapshot was compiled from.
    pub config: Arc<Config>,
    /// Number of the revision. The first configuration of this process is 1, and each change adds one.
    pub revision: u64,
    /// Virtual hosts by domain, each with its table of routes.
    pub hosts: HostTable<Arc<RuleTable<Arc<Route>>>>,
    /// Every route, by the domain of its virtual host and the name of the route.
    pub routes: HashMap<(String, String), Arc<Route>>,
    /// Certificates by the server name that a client asks for.
    pub certificates: Arc<Certificates>,
    /// Instances of every backend, in the order of the configuration.
    pub backends: Vec<Vec<Instance>>,
    /// Addresses that the names of backends resolve to.
    pub resolved: Arc<ResolvedAddresses>,
    /// Plan of certificates to obtain by ACME.
    pub(super) acme: Arc<AcmePlan>,
    /// Plan of health checks: the backends that are probed, and their settings.
    pub(super) health: HealthPlan,
    /// Retry budgets by tag.
    pub(super) budgets: Budgets,
    /// Counters that all rate limits use; `None` if this process has never had a rate limit.
    pub counters: Option<Arc<Counters>>,
    /// Stores that count requests for several gateways.
    pub(super) stores: Vec<Arc<Store>>,
    /// Largest limits of a request head that any route has. Every route refuses a larger head.
    pub largest_head: HeadSize,
    /// Header fields in which the gateway tells a backend the client's identity; `None` if no `[auth]` table
    /// names such a field. The gateway removes these fields from the requests of clients.
    pub identity_fields: Option<IdentityFields>,
    /// Authentication state, such as proved passwords, which the next snapshot takes over.
    pub(super) kept: AuthCaches,
    /// Settings for every request and connection.
    pub proxy: ProxySettings,
    /// Security header fields of responses to requests without a route.
    pub security_headers: SecurityHeaders,
    /// CORS policy of responses to requests without a route; `None` adds no CORS fields.
    pub cors: Option<Cors>,
    /// Metrics of requests without a route.
    pub unrouted: Lazy<RouteMetrics>,
    /// Secrets that are missing, a line each. A snapshot that serves requests has all its secrets.
    pub(super) missing_secrets: Vec<String>,
}

/// Compiled settings for those requests of a virtual host that match a route.
pub struct Route {
    /// Domain of the route's virtual host.
    pub domain: String,
    /// Name of the route in its virtual host; "/" for the route of requests that match no other route.
    pub name: String,
    /// Policies that all routes of the virtual host share.
    pub host_policies: Arc<HostPolicies>,
    /// Policies of the route, each with the level of the configuration that it comes from.
    pub policies: Vec<(&'static str, Level)>,
    /// Redirect that answers the request; `None` redirects nothing.
    pub redirect: Option<Redirect>,
    /// Injected fault; `None` injects nothing.
    pub fault: Option<Fault>,
    /// Rewrite of the path before the request is forwarded.
    pub rewrite: Rewrite,
    /// Pools of the route: one tag, or several tags that share the requests.
    pub split: TrafficSplit,
    /// Cookie that keeps a client on the tag of its first request; `None` chooses the tag for each request
    /// anew.
    pub split_cookie: Option<SignedCookie>,
    /// Load balancing algorithm.
    pub algorithm: Algorithm,
    /// Source of the hash key for consistent hashing.
    pub hash_key: HashKey,
    /// Cookie that keeps a client on the backend of its first request; `None` chooses the backend for each
    /// request anew.
    pub sticky_cookie: Option<SignedCookie>,
    /// Settings of connections to the backends.
    pub peers: Arc<PeerSettings>,
    /// Rules for retries.
    pub retry: RetryRules,
    /// Rules of the circuit breaker.
    pub breaker: BreakerRules,
    /// Mirror that gets a copy of each request whose method allows that; `None` mirrors nothing.
    pub mirror: Option<Mirror>,
    /// Addresses that clients may come from; `None` admits every address.
    pub access: Option<Arc<Access>>,
    /// Authentication that the route requires; `None` requires none.
    pub auth: Option<Arc<Auth>>,
    /// Header fields with credentials for outer `[auth]` tables, which this route's table replaces. The gateway
    /// removes these fields, so that no backend of the route gets them.
    pub foreign_proofs: Box<[HeaderName]>,
    /// Rate limit per client; `None` sets no limit.
    pub rate_limit: Option<RateLimiter>,
    /// Size limits of a request head.
    pub head_size: HeadSize,
    /// Maximum size and minimum rate of a request body.
    pub body_limit: BodyLimit,
    /// Changes of header fields.
    pub headers: HeaderRules,
    /// Security header fields of responses.
    pub security_headers: SecurityHeaders,
    /// CORS policy; `None` leaves CORS to the backend.
    pub cors: Option<Cors>,
    /// Compression of responses; `None` compresses nothing.
    pub compression: Option<Compression>,
    /// Metrics of the route.
    pub metrics: Lazy<RouteMetrics>,
}

/// Policies for every request of a virtual host, no matter which route the request matches.
pub struct HostPolicies {
    /// Redirect for requests without TLS; `None` serves these requests.
    pub https_redirect: Option<HttpsRedirect>,
    /// Check of client certificates; `None` checks none.
    pub client_certificate: Option<ClientCertificates>,
}

impl Snapshot {
    /// Returns the page that explains problems, if the request is for it and the gateway itself serves it.
    pub fn problem_page(&self, request: &RequestHeader) -> Option<Reply> {
        let is_here = self.proxy.problems_url.is_none();
        reply::problems(&request.method, request.uri.path()).filter(|_| is_here)
    }

    /// Returns every instance of every backend.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.backends.iter().flatten()
    }

    /// Returns a line for each secret that the snapshot needs to serve requests and that is missing.
    pub fn missing_secrets(&self) -> &[String] {
        &self.missing_secrets
    }

    /// Returns the tags that have metrics, each with the domain of its virtual host.
    pub(super) fn compared_tags(&self) -> HashSet<(&str, &str)> {
        let weighted_pools = self.routes.values().flat_map(|route| {
            route.split.weighted_pools().map(|weighted_pool| (&*route.domain, weighted_pool))
        });
        weighted_pools
            .filter(|(_, weighted_pool)| weighted_pool.metrics.is_some())
            .map(|(domain, weighted_pool)| (domain, weighted_pool.tag.as_str()))
            .collect()
    }

    /// Returns the rate limit windows, each as the domain of its host, the name of its route, and its own name.
    pub(super) fn windows(&self) -> HashSet<(&str, &str, &str)> {
        let limited = self.routes.values().filter_map(|route| Some((route, route.rate_limit.as_ref()?)));
        limited
            .flat_map(|(route, limiter)| {
                limiter.windows().map(|window| (&*route.domain, &*route.name, &*window.name))
            })
            .collect()
    }

    /// Returns the key sets of token issuers that must be fetched.
    pub(super) fn key_sets(&self) -> Arc<Vec<Arc<KeySet>>> {
        Arc::new(self.kept.key_sets().cloned().collect())
    }

    /// Returns the certificates, each as its virtual host's domain and the kind of its key.
    pub(super) fn shown_certificates(&self) -> impl Iterator<Item = (&str, &str)> {
        let hosts = self.certificates.all().iter();
        hosts.flat_map(|host| host.certificates.iter().map(|certificate| (&*host.domain, certificate.kind)))
    }

    /// Drains the backends that the configuration drains, and updates the metrics of certificates and of
    /// health.
    pub(super) fn take_effect(&self, metrics: &Metrics) {
        for host in self.certificates.all() {
            for certificate in &host.certificates {
                let (begins, ends) = (certificate.not_before, certificate.not_after);
                metrics.certificate(&host.domain, certificate.kind, begins, ends);
            }
        }
        metrics.self_signed.set(i64::try_from(self.self_signed().count()).unwrap_or(i64::MAX));
        for (instances, config) in self.backends.iter().zip(&self.config.backends) {
            for Instance { state, .. } in instances {
                state.set_drained(config.drained);
                state.show_health();
            }
        }
    }
}

/// Returns the path by which the request was routed, and the path that is sent to the backend.
fn both<'r>(request: &'r RequestHeader, paths: Option<&'r Paths>) -> (&'r str, &'r str) {
    let written = request.uri.path();
    paths.map_or((written, written), |paths| (&*paths.compared, &*paths.sent))
}

impl Route {
    /// Redirects a request without TLS to HTTPS, if its virtual host is configured to do so.
    pub fn to_https(&self, request: &RequestHeader, is_https: bool) -> Verdict {
        let Some(https_redirect) = &self.host_policies.https_redirect else { return Verdict::Continue(()) };
        let host = route::authority(request).ok().flatten();
        let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
        https_redirect.check(is_https, host, target)
    }

    /// Redirects the request, if the route has a redirect. `paths` is as in [`Route::rewritten`].
    pub fn to_elsewhere(&self, request: &RequestHeader, paths: Option<&Paths>, is_https: bool) -> Verdict {
        let Some(redirect) = &self.redirect else { return Verdict::Continue(()) };
        let (compared, sent) = both(request, paths);
        let mut target = request.raw_path().splitn(2, |byte| *byte == b'?').skip(1);
        let query = target.next().unwrap_or_default();
        let host = route::authority(request).ok().flatten();
        Verdict::Reply(redirect.answer(&Asked { compared, sent, query, host, is_https }))
    }

    /// Returns the rewritten path for the backend, or `None` if the rewrite changes nothing. `paths` are the
    /// paths of the request for matching and for the backend; `None` if both are the path that the client sent.
    pub fn rewritten(&self, request: &RequestHeader, paths: Option<&Paths>) -> Verdict<Option<String>> {
        let (compared, sent) = both(request, paths);
        self.rewrite.check(compared, sent)
    }

    /// Returns the split bucket from the client's cookie; `None` without a valid cookie.
    pub fn sticky_bucket(&self, headers: &HeaderMap) -> Option<SplitBucket> {
        let number = self.split_cookie.as_ref()?.read(headers)?;
        SplitBucket::new(number.parse().ok()?)
    }

    /// Returns the sticky id of a backend from the client's cookie; `None` without a valid cookie.
    pub fn sticky_id<'h>(&'h self, headers: &'h HeaderMap) -> Option<&'h str> {
        self.sticky_cookie.as_ref()?.read(headers)
    }

    /// Returns the criteria by which a backend of the pool is chosen. `sticky_id` is the id from the request's
    /// cookie. `room` is a buffer for an address that serves as hash key.
    pub fn selection<'r>(
        &'r self,
        request: &'r RequestHeader,
        client: Option<IpAddr>,
        sticky_id: Option<&'r str>,
        room: &'r mut [u8; 16],
    ) -> Selection<'r> {
        let hashes = self.algorithm == Algorithm::ConsistentHash;
        Selection {
            key: if hashes { hash_key::of(&self.hash_key, request, client, room) } else { b"" },
            sticky_id,
            limit: self.peers.max_inflight(),
            respects_circuits: self.breaker.is_enabled(),
        }
    }
}
