//! A compiled configuration: everything that a request looks up, in the form in which it is needed.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Serialize;

use crate::config::{Algorithm, Config, HashKey, Paths};
use crate::live::compile::pools::Budgets;
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
use crate::route::{self, HostTable, RuleTable};
use crate::telemetry::Metrics;
use crate::telemetry::handles::{Lazy, RouteMetrics};
use crate::tls::Certificates;
use crate::tls::acme::AcmePlan;
use crate::upstream::{
    BackendState, BreakerRules, HealthPlan, Mirror, PeerSettings, ResolvedAddresses, RetryRules, Selection,
    SplitBucket, TrafficSplit,
};

/// Where in a configuration something was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// In the route.
    Route,
    /// In its virtual host.
    VirtualHost,
    /// At the top.
    Top,
    /// Nowhere: the default holds, which may be that there is none.
    Default,
}

impl Level {
    /// Of the path of a route's tables, as in `virtual_hosts/0/routes/1/`, the part on which the table stands.
    pub(super) fn part_of(self, at: &str) -> &str {
        match self {
            Level::Route => at,
            Level::VirtualHost => at.split("routes/").next().unwrap_or_default(),
            Level::Top | Level::Default => "",
        }
    }
}

/// One instance of a backend. There are several where its address is a name that leads to several.
#[derive(Clone)]
pub struct Instance {
    /// How it is.
    pub state: Arc<BackendState>,
    /// Its share, beside those of the others.
    pub weight: u32,
    /// Whether it is used only where no other is usable.
    pub backup: bool,
}

/// A compiled configuration. It never changes; a new one takes its place.
pub struct Snapshot {
    /// What it was compiled from.
    pub config: Arc<Config>,
    /// Counts the changes of this process, from 1.
    pub revision: u64,
    /// The virtual hosts, and the rules by which each of them routes.
    pub hosts: HostTable<Arc<RuleTable<Arc<Route>>>>,
    /// Every route, by its virtual host's domain and its name.
    pub routes: HashMap<(String, String), Arc<Route>>,
    /// Which certificate is shown to whom.
    pub certificates: Arc<Certificates>,
    /// The instances of every backend, in the order of the configuration.
    pub backends: Vec<Vec<Instance>>,
    /// Where the names among their addresses lead.
    pub places: Arc<ResolvedAddresses>,
    /// Which certificates are to be had by ACME.
    pub(super) acme: Arc<AcmePlan>,
    /// Who is probed, and how.
    pub(super) health: HealthPlan,
    /// What bounds retries, by tag.
    pub(super) budgets: Budgets,
    /// What all rate limits count in; `None` where there has never been one.
    pub counters: Option<Arc<Counters>>,
    /// What counts for several gateways.
    pub(super) stores: Vec<Arc<Store>>,
    /// The bounds of heads that some route would take.
    pub largest_head: HeadSize,
    /// The fields in which a backend is told who asks, and clients are not listened to; `None`: there are none.
    pub identity_fields: Option<IdentityFields>,
    /// What was found out about who asks, for the next one.
    pub(super) kept: AuthCaches,
    /// From a request's last byte to the response's first byte.
    pub request_timeout: Duration,
    /// Which fields tell browsers to be careful, in answers to requests that no route takes.
    pub security_headers: SecurityHeaders,
    /// Who may use answers to requests that no route takes.
    pub cors: Option<Cors>,
    /// Counts requests that no route takes.
    pub unrouted: Lazy<RouteMetrics>,
    /// Secrets that it would need to run, a line each: none where it runs.
    pub(super) missing_secrets: Vec<String>,
}

/// What holds for the requests of a virtual host, or of a part of it.
pub struct Route {
    /// The domain of its virtual host.
    pub domain: String,
    /// Its name in that virtual host; "/" is that of the requests which no other takes.
    pub name: String,
    /// What holds at the door of its virtual host.
    pub entrance: Arc<HostPolicies>,
    /// Its policies, and at which level of the configuration each was written.
    pub policies: [(&'static str, Level); 13],
    /// Where clients are sent in place of an answer; `None`: nowhere.
    pub redirect: Option<Redirect>,
    /// What it does wrong on purpose.
    pub fault: Option<Fault>,
    /// What becomes of the path on its way up.
    pub rewrite: Rewrite,
    /// The backends that serve it: one tag's, or several that share its requests.
    pub split: TrafficSplit,
    /// Keeps a client with the tag that it got first; `None`: each request for itself.
    pub split_cookie: Option<SignedCookie>,
    /// How one of them is chosen.
    pub algorithm: Algorithm,
    /// What consistent hashing goes by.
    pub hash_key: HashKey,
    /// Keeps a client with the backend that it got first; `None`: each request for itself.
    pub sticky_cookie: Option<SignedCookie>,
    /// How they are spoken to.
    pub peers: Arc<PeerSettings>,
    /// What is tried again.
    pub retry: RetryRules,
    /// When a backend gets no requests for a while.
    pub breaker: BreakerRules,
    /// Who gets a copy of each request.
    pub mirror: Option<Mirror>,
    /// From where clients may come; `None`: from everywhere.
    pub access: Option<Arc<Access>>,
    /// What a request must bear; `None`: nothing.
    pub auth: Option<Arc<Auth>>,
    /// The fields with what is proved around this route, which no backend of it shall get.
    pub foreign_proofs: Box<[HeaderName]>,
    /// How much a client may ask; `None`: any number.
    pub rate_limit: Option<RateLimiter>,
    /// How large the head of a request may be.
    pub head_size: HeadSize,
    /// How long its body may be, and how slowly it may come.
    pub body_limit: BodyLimit,
    /// Which header fields are changed.
    pub headers: HeaderRules,
    /// Which fields tell browsers to be careful.
    pub security_headers: SecurityHeaders,
    /// Which pages of other origins may use responses; `None`: as the backend says.
    pub cors: Option<Cors>,
    /// Which responses are compressed; `None`: none.
    pub compression: Option<Compression>,
    /// Its counters.
    pub metrics: Lazy<RouteMetrics>,
}

/// What holds for every request of a virtual host, whichever route it takes.
pub struct HostPolicies {
    /// Where clients are sent that come without TLS; `None`: they are let in.
    pub https_redirect: Option<HttpsRedirect>,
    /// What clients must prove; `None`: nothing.
    pub client_certificate: Option<ClientCertificates>,
}

impl Snapshot {
    /// Every instance of every backend.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.backends.iter().flatten()
    }

    /// Returns a line for each secret that is missing and that it would need to run.
    pub fn missing_secrets(&self) -> &[String] {
        &self.missing_secrets
    }

    /// The tags that are counted, each with its virtual host's domain.
    pub(super) fn compared_tags(&self) -> HashSet<(&str, &str)> {
        let arms = self.routes.values().flat_map(|route| route.split.arms().map(|arm| (&*route.domain, arm)));
        arms.filter(|(_, arm)| arm.metrics.is_some())
            .map(|(domain, arm)| (domain, arm.tag.as_str()))
            .collect()
    }

    /// The windows of rate limits, each with its virtual host's domain and its route's name.
    pub(super) fn windows(&self) -> HashSet<(&str, &str, &str)> {
        let limited = self.routes.values().filter_map(|route| Some((route, route.rate_limit.as_ref()?)));
        limited
            .flat_map(|(route, limiter)| {
                limiter.windows().map(|window| (&*route.domain, &*route.name, &*window.name))
            })
            .collect()
    }

    /// The keys of issuers of tokens that are to be fetched.
    pub(super) fn key_sets(&self) -> Arc<Vec<Arc<KeySet>>> {
        Arc::new(self.kept.key_sets().cloned().collect())
    }

    /// The certificates, each by its virtual host's domain and the kind of its key.
    pub(super) fn shown_certificates(&self) -> impl Iterator<Item = (&str, &str)> {
        let hosts = self.certificates.all().iter();
        hosts.flat_map(|host| host.certificates.iter().map(|certificate| (&*host.domain, certificate.kind)))
    }

    /// Has the backends be as the configuration says, from now on, and tells how long certificates last.
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

/// A request's path as it was routed, and as it goes up.
fn both<'r>(request: &'r RequestHeader, paths: Option<&'r Paths>) -> (&'r str, &'r str) {
    let written = request.uri.path();
    paths.map_or((written, written), |paths| (&*paths.compared, &*paths.sent))
}

impl Route {
    /// Sends a client that has come without TLS to the same place with it, where its virtual host says so.
    pub fn to_https(&self, request: &RequestHeader, is_https: bool) -> Verdict {
        let Some(https_redirect) = &self.entrance.https_redirect else { return Verdict::Continue(()) };
        let host = route::authority(request).ok().flatten();
        let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
        https_redirect.check(is_https, host, target)
    }

    /// Sends a client somewhere else, where the route says so; `paths` as in [`Route::rewritten`].
    pub fn to_elsewhere(&self, request: &RequestHeader, paths: Option<&Paths>, is_https: bool) -> Verdict {
        let Some(redirect) = &self.redirect else { return Verdict::Continue(()) };
        let (compared, sent) = both(request, paths);
        let mut target = request.raw_path().splitn(2, |byte| *byte == b'?').skip(1);
        let query = target.next().unwrap_or_default();
        let host = route::authority(request).ok().flatten();
        Verdict::Reply(redirect.answer(&Asked { compared, sent, query, host, is_https }))
    }

    /// Returns the path that the backend gets to see where it is another one than goes up anyway. `paths` says by what
    /// the request was routed; `None`: by its path as it is.
    pub fn rewritten(&self, request: &RequestHeader, paths: Option<&Paths>) -> Verdict<Option<String>> {
        let (compared, sent) = both(request, paths);
        self.rewrite.check(compared, sent)
    }

    /// The draw that a client has brought along in its cookie.
    pub fn known_draw(&self, headers: &HeaderMap) -> Option<SplitBucket> {
        let number = self.split_cookie.as_ref()?.read(headers)?;
        SplitBucket::new(number.parse().ok()?)
    }

    /// The mark of the backend that a client has brought along in its cookie.
    pub fn sticky_id<'h>(&'h self, headers: &'h HeaderMap) -> Option<&'h str> {
        self.sticky_cookie.as_ref()?.read(headers)
    }

    /// What a request wants of a pool; `known` is the mark that it has brought along, and `room` is where an
    /// address becomes a key.
    pub fn wanted<'r>(
        &'r self,
        request: &'r RequestHeader,
        client: Option<IpAddr>,
        known: Option<&'r str>,
        room: &'r mut [u8; 16],
    ) -> Selection<'r> {
        let hashes = self.algorithm == Algorithm::ConsistentHash;
        Selection {
            key: if hashes { hash_key::of(&self.hash_key, request, client, room) } else { b"" },
            known,
            limit: self.peers.max_inflight(),
            heeds_circuits: self.breaker.is_enabled(),
        }
    }
}
