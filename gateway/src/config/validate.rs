//! What a configuration must be beyond well-formed: whole, without contradictions, and about things that
//! exist.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use super::document::did_you_mean;
use super::schema::{Config, LogOutput, Logging, ProbeKind, RateLimit, Retry};
use super::{OneOrMany, normalise_host};

/// The most requests in a window that the rate limiter counts to.
const MAX_RATE_LIMIT: u32 = (1 << 24) - 1;
/// The most tries that one request may cost.
const MAX_ATTEMPTS: u32 = 16;
/// The most worker threads.
const MAX_THREADS: usize = 1024;
/// The most idle upstream connections.
const MAX_POOL_SIZE: usize = 1_000_000;

/// What is wrong, each with the path of the value at fault: `backends/0/address`.
#[derive(Default)]
pub(super) struct Complaints(pub(super) Vec<(String, String)>);

impl Complaints {
    fn add(&mut self, path: impl Into<String>, detail: impl Into<String>) {
        self.0.push((path.into(), detail.into()));
    }
}

/// Everything that is wrong with the values themselves.
pub(super) fn values(config: &Config) -> Complaints {
    let mut complaints = Complaints::default();
    listeners(config, &mut complaints);
    logging(&config.logging, &mut complaints);
    health_check(config, &mut complaints);
    policies("", &config.rate_limit, &config.retry, &mut complaints);
    for (i, host) in config.virtual_hosts.iter().enumerate() {
        policies(&format!("virtual_hosts/{i}/"), &host.rate_limit, &host.retry, &mut complaints);
    }
    let hosts = config.virtual_hosts.iter().map(|host| &host.upstream);
    for upstream in hosts.chain([&config.upstream]).flatten() {
        if upstream.keepalive_pool_size.get() > MAX_POOL_SIZE {
            complaints
                .add("upstream/keepalive_pool_size", format!("at most {MAX_POOL_SIZE} connections are kept"));
        }
    }
    virtual_hosts(config, &mut complaints);
    backends(config, &mut complaints);
    complaints
}

fn listeners(config: &Config, complaints: &mut Complaints) {
    let OneOrMany(listeners) = &config.proxy.listen_addr_http;
    if listeners.is_empty() {
        complaints.add("proxy/listen_addr_http", "there is no listener; expected one address or more");
    }
    let mut seen: HashSet<SocketAddr> = HashSet::new();
    let metrics = config.metrics.enabled.then_some(("metrics/listen_addr", config.metrics.listen_addr));
    let listeners = listeners.iter().map(|address| ("proxy/listen_addr_http", *address));
    for (path, address) in listeners.chain(metrics) {
        // Port 0 is another one each time.
        if address.port() != 0 && !seen.insert(address) {
            complaints.add(path, format!("{address} is listened on twice"));
        }
    }
    if config.proxy.threads > MAX_THREADS {
        complaints.add("proxy/threads", format!("at most {MAX_THREADS} threads"));
    }
}

fn logging(logging: &Logging, complaints: &mut Complaints) {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for directive in logging.level.split(',') {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level).trim();
        if !LEVELS.contains(&level) {
            let hint = did_you_mean(level, LEVELS.into_iter());
            let levels = LEVELS.join(", ");
            complaints.add(
                "logging/level",
                format!("'{level}' is no level{hint}; expected one of {levels}, or a filter like \"info,gateway=debug\""),
            );
        }
    }
    if logging.output == LogOutput::File && logging.file_path.is_empty() {
        complaints.add("logging/file_path", "output = \"file\" needs the path of a file");
    }
}

fn health_check(config: &Config, complaints: &mut Complaints) {
    let Some(path) = &config.health_check.path else { return };
    if config.health_check.kind == Some(ProbeKind::Tcp) {
        complaints
            .add("health_check/path", "a path has no meaning with kind = \"tcp\"; leave one of them out");
    }
    let usable = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !usable {
        complaints
            .add("health_check/path", format!("{path:?} is no path; expected something like \"/health\""));
    }
}

fn policies(at: &str, rate_limit: &Option<RateLimit>, retry: &Option<Retry>, complaints: &mut Complaints) {
    if rate_limit.as_ref().is_some_and(|limit| limit.requests.get() > MAX_RATE_LIMIT) {
        complaints.add(
            format!("{at}rate_limit/requests"),
            format!("at most {MAX_RATE_LIMIT} requests are counted"),
        );
    }
    if retry.as_ref().is_some_and(|retry| retry.attempts.get() > MAX_ATTEMPTS) {
        complaints
            .add(format!("{at}retry/attempts"), format!("at most {MAX_ATTEMPTS} tries for one request"));
    }
}

fn virtual_hosts(config: &Config, complaints: &mut Complaints) {
    if config.virtual_hosts.is_empty() {
        complaints.add(
            "virtual_hosts",
            "there is no virtual host, so nothing would be served; add a [[virtual_hosts]]",
        );
    }
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (i, host) in config.virtual_hosts.iter().enumerate() {
        let at = format!("virtual_hosts/{i}");
        let domain = host.domain.as_str();
        let form = match domain {
            "" => {
                complaints.add(
                    at.as_str(),
                    "a virtual host needs a `domain`: a host name, or \"*\" for every other",
                );
                continue;
            }
            "*" => domain.to_owned(),
            _ if domain.starts_with("*.") => {
                complaints
                    .add(format!("{at}/domain"), format!("the wildcard '{domain}' is not supported yet"));
                continue;
            }
            _ => match normalise_host(domain) {
                Ok(form) if has_no_port(domain) => form.into_owned(),
                _ => {
                    complaints.add(
                        format!("{at}/domain"),
                        format!("'{domain}' is no host name (without a port) or \"*\""),
                    );
                    continue;
                }
            },
        };
        if let Some(first) = seen.insert(form, i) {
            let first = &config.virtual_hosts[first].domain;
            complaints
                .add(format!("{at}/domain"), format!("'{domain}' is there twice (the first is '{first}')"));
        }
        if host.enabled_backends_tag.is_empty() {
            complaints.add(at, format!("'{domain}' needs `enabled_backends_tag`: which backends serve it"));
        }
    }
}

fn has_no_port(domain: &str) -> bool {
    domain.ends_with(']') || !domain.contains(':')
}

fn backends(config: &Config, complaints: &mut Complaints) {
    let mut seen: HashSet<&str> = HashSet::new();
    for (i, backend) in config.backends.iter().enumerate() {
        let at = format!("backends/{i}");
        if backend.id.is_empty() {
            complaints.add(at.as_str(), "a backend needs an `id`: its name in logs, metrics and answers");
        } else if !is_id(&backend.id) {
            complaints.add(
                format!("{at}/id"),
                format!(
                    "{:?} is no id; expected at most 64 letters, digits, '-', '_', '.' or ':'",
                    backend.id
                ),
            );
        } else if !seen.insert(&backend.id) {
            complaints.add(format!("{at}/id"), format!("'{}' is there twice", backend.id));
        }
        if backend.tags.is_empty() || backend.tags.iter().any(String::is_empty) {
            complaints.add(format!("{at}/tags"), "a backend needs `tags`: the pools to which it belongs");
        }
    }
}

fn is_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    id.len() <= 64 && id.bytes().all(allowed)
}

/// What is missing, and names that lead nowhere. Only worth asking where all that was written could be
/// read: a backend whose address was misspelt is not missing.
pub(super) fn references(config: &Config) -> Complaints {
    let mut complaints = Complaints::default();
    for (i, backend) in config.backends.iter().enumerate() {
        if backend.address.is_none() {
            let id = &backend.id;
            complaints.add(format!("backends/{i}"), format!("backend '{id}' needs an `address`: host:port"));
        }
    }
    let tags: HashSet<&str> =
        config.backends.iter().flat_map(|backend| &backend.tags).map(String::as_str).collect();
    for (i, host) in config.virtual_hosts.iter().enumerate() {
        let tag = host.enabled_backends_tag.as_str();
        if !tag.is_empty() && !tags.contains(tag) {
            let hint = did_you_mean(tag, tags.iter().copied());
            complaints.add(
                format!("virtual_hosts/{i}/enabled_backends_tag"),
                format!("no backend bears the tag '{tag}'{hint}"),
            );
        }
    }
    complaints
}
