//! Validation of a configuration that could be read: every required value is set, values do not contradict each other,
//! and every referenced name exists.

mod access;
mod acme;
mod auth;
mod hosts;
mod identity_fields;
mod policies;
mod rate_limit;
mod responses;
mod shares;
mod tls;

use std::collections::HashSet;
use std::net::SocketAddr;

use tracing_subscriber::EnvFilter;

use super::cases::Expect;
use super::document::did_you_mean;
use super::logging::{LogOutput, Logging};
use super::schema::Config;
use super::values::OneOrMany;

/// Maximum number of worker threads.
const MAX_THREADS: usize = 1024;
/// Maximum length of a Unix socket's path that every system allows, in bytes (`sun_path`, without its final NUL).
const MAX_SOCKET_PATH: usize = 103;
pub use policies::MAX_ATTEMPTS;
pub use rate_limit::{MAX_RATE_LIMIT, MAX_RATE_LIMITS};

/// Fault at a path, such as `backends/0/address`. The position in the text is looked up later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathFault {
    /// Path of the faulty key, without a slash before it.
    pub path: String,
    /// Description of the fault.
    pub detail: String,
}

#[derive(Default)]
struct Faults(Vec<PathFault>);

impl Faults {
    fn add(&mut self, path: impl Into<String>, detail: impl Into<String>) {
        self.0.push(PathFault { path: path.into(), detail: detail.into() });
    }
}

/// Returns every fault except missing values and references to unknown names; for those, see [`references`].
pub(super) fn values(config: &Config) -> Vec<PathFault> {
    let mut faults = Faults::default();
    listeners(config, &mut faults);
    logging(&config.logging, &mut faults);
    policies::policies(config, &mut faults);
    rate_limit::clients(config, &mut faults);
    hosts::virtual_hosts(config, &mut faults);
    acme::acme(config, &mut faults);
    shares::shares(config, &mut faults);
    tls::tls(config, &mut faults);
    backends(config, &mut faults);
    faults.0
}

/// Maximum size of an HTTP/1 response head that Pingora reads, in bytes.
const MAX_RESPONSE_HEADER_BYTES: u32 = 1_048_575;

/// Maximum number of header fields in an HTTP/1 response that Pingora reads.
const MAX_RESPONSE_HEADER_FIELDS: u32 = 256;

fn listeners(config: &Config, faults: &mut Faults) {
    let OneOrMany(listeners) = &config.proxy.listen_addr_http;
    if listeners.is_empty() {
        faults.add("proxy/listen_addr_http", "there is no listener; expected one address or more");
    }
    let mut seen: HashSet<SocketAddr> = HashSet::new();
    let metrics = config.metrics.enabled.then_some(("metrics/listen_addr", config.metrics.listen_addr));
    let management = config.proxy.management_api.then_some(config.proxy.management_api_addr);
    let management = management.map(|address| ("proxy/management_api_addr", address));
    let listeners = listeners.iter().map(|address| ("proxy/listen_addr_http", *address));
    let OneOrMany(https) = &config.proxy.listen_addr;
    let https = https.iter().map(|address| ("proxy/listen_addr", *address));
    for (path, address) in listeners.chain(https).chain(management).chain(metrics) {
        // Two listeners can have port 0, because the system replaces each with a different free port.
        if address.port() != 0 && !seen.insert(address) {
            faults.add(path, format!("{address} is used by two listeners"));
        }
    }
    upgrade_sock(&config.proxy.upgrade_sock, faults);
    problems_url(&config.proxy.problems_url, faults);
    if config.proxy.min_send_bytes_per_sec > policies::MAX_RATE {
        let detail = format!("at most {} bytes a second", policies::MAX_RATE);
        faults.add("proxy/min_send_bytes_per_sec", detail);
    }
    let largest = [
        (
            "max_response_header_bytes",
            config.proxy.max_response_header_bytes.get(),
            MAX_RESPONSE_HEADER_BYTES,
        ),
        (
            "max_response_header_fields",
            config.proxy.max_response_header_fields.get(),
            MAX_RESPONSE_HEADER_FIELDS,
        ),
    ];
    for (key, value, largest) in largest {
        if value > largest {
            faults.add(
                format!("proxy/{key}"),
                format!("at most {largest}: the gateway reads no more of a backend's response head"),
            );
        }
    }
    let (each, all) = (config.proxy.max_connections_per_ip, config.proxy.max_connections);
    if usize::try_from(each).is_ok_and(|each| each > all.get()) {
        faults.add(
            "proxy/max_connections_per_ip",
            "it is larger than `max_connections`, the limit for all clients together",
        );
    }
    if config.proxy.threads > MAX_THREADS {
        faults.add("proxy/threads", format!("at most {MAX_THREADS} threads"));
    }
}

fn upgrade_sock(path: &str, faults: &mut Faults) {
    if !path.is_empty() && !path.starts_with('/') {
        // The running and the new process must find the same socket, but their working directories may differ.
        faults.add(
            "proxy/upgrade_sock",
            format!("\"{path}\" is relative; expected a path that begins with '/'"),
        );
    } else if path.len() > MAX_SOCKET_PATH || path.contains('\0') {
        let detail = format!(
            "not a valid path of a Unix socket; expected at most {MAX_SOCKET_PATH} bytes, without NUL"
        );
        faults.add("proxy/upgrade_sock", detail);
    }
}

fn problems_url(url: &str, faults: &mut Faults) {
    let is_url = url.starts_with('/') || url.starts_with("http://") || url.starts_with("https://");
    // The gateway writes the URL into a header field, in angle brackets, and appends a fragment to it.
    let is_plain = url.parse::<http::Uri>().is_ok() && !url.contains(['#', '<', '>', '"', '\\']);
    if !(url.is_empty() || is_url && is_plain) {
        let detail = format!(
            "{url:?} is not a valid URL of a page; expected something like \
             \"https://docs.example.com/problems\""
        );
        faults.add("proxy/problems_url", detail);
    }
}

fn logging(logging: &Logging, faults: &mut Faults) {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let levels =
        logging.level.split(',').map(|part| part.rsplit_once('=').map_or(part, |(_, level)| level).trim());
    if let Some(level) = levels.into_iter().find(|level| !LEVELS.contains(level)) {
        let hint = did_you_mean(level, LEVELS.into_iter());
        let levels = LEVELS.join(", ");
        faults.add(
            "logging/level",
            format!(
                "'{level}' is not a log level{hint}; expected one of {levels}, or a filter like \
                     \"info,gateway=debug\""
            ),
        );
    } else if let Err(error) = EnvFilter::builder().parse(&logging.level) {
        faults.add("logging/level", format!("'{}' is not a valid filter: {error}", logging.level));
    }
    if logging.output == LogOutput::File && logging.file_path.is_empty() {
        faults.add("logging/file_path", "output = \"file\" needs the path of a file");
    }
    if let Err(detail) = logging.access_format() {
        faults.add("logging/access_format", detail);
    }
    for (class, percent) in &logging.access_sample_percent {
        if *percent > 100 {
            let class = serde_json::to_string(class).unwrap_or_default();
            let key = format!("logging/access_sample_percent/{}", class.trim_matches('"'));
            faults.add(key, format!("{percent} is not a share; expected 0 to 100"));
        }
    }
}

fn tests(config: &Config, faults: &mut Faults) {
    for (i, case) in config.tests.iter().enumerate() {
        if case.request.url.authority().is_none() {
            let detail = "a test needs a `request`, as in \"GET http://app.example.com/api\"";
            faults.add(format!("tests/{i}"), detail);
        }
        if case.expect == Expect::default() {
            let detail = "a test needs something to `expect`, as in { route = \"/api\" }";
            faults.add(format!("tests/{i}"), detail);
        }
    }
}

fn backends(config: &Config, faults: &mut Faults) {
    let mut seen: HashSet<&str> = HashSet::new();
    for (i, backend) in config.backends.iter().enumerate() {
        let at = format!("backends/{i}");
        if backend.id.is_empty() {
            faults.add(at.as_str(), "a backend needs an `id`, its name in logs, metrics and responses");
        } else if !is_id(&backend.id) {
            faults.add(
                format!("{at}/id"),
                format!(
                    "{:?} is not a valid id; expected at most 64 letters, digits, '-', '_', '.' or ':', \
                     with at least one letter or digit",
                    backend.id
                ),
            );
        } else if !seen.insert(&backend.id) {
            faults.add(format!("{at}/id"), format!("'{}' is defined twice", backend.id));
        }
        let tags: HashSet<&String> = backend.tags.iter().collect();
        if tags.len() < backend.tags.len() {
            faults.add(format!("{at}/tags"), "a tag is listed twice");
        }
        if backend.tags.is_empty() || backend.tags.iter().any(String::is_empty) {
            faults.add(format!("{at}/tags"), "a backend needs `tags`, the pools to which it belongs");
        }
    }
}

fn is_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    id.len() <= 64 && id.bytes().all(allowed) && id.bytes().any(|byte| byte.is_ascii_alphanumeric())
}

/// Returns faults of missing values and of references to unknown names. They are only checked if all hosts and
/// backends could be read; otherwise, a backend with an invalid address would be reported as missing.
pub(super) fn references(config: &Config) -> Vec<PathFault> {
    let mut faults = Faults::default();
    tests(config, &mut faults);
    for (i, backend) in config.backends.iter().enumerate() {
        if backend.address.is_none() {
            let id = &backend.id;
            faults.add(
                format!("backends/{i}"),
                format!("backend '{id}' needs an `address`, as in 127.0.0.1:3001"),
            );
        }
    }
    let borne = config.backends.iter().flat_map(|backend| &backend.tags);
    let tags: HashSet<&str> = borne.chain(&config.empty_tags).map(String::as_str).collect();
    let mut exists = |tag: &str, at: String| {
        if !tag.is_empty() && !tags.contains(tag) {
            // A program has written so many tags, and probably the wrong one, too; a similar name would not help.
            let hint = if tags.len() > 100 { String::new() } else { did_you_mean(tag, tags.iter().copied()) };
            faults.add(at, format!("no backend has the tag '{tag}'{hint}"));
        }
    };
    for (i, host) in config.virtual_hosts.iter().enumerate() {
        let at = format!("virtual_hosts/{i}");
        exists(&host.enabled_backends_tag, format!("{at}/enabled_backends_tag"));
        for (j, share) in host.split.iter().enumerate() {
            exists(&share.tag, format!("{at}/split/{j}/tag"));
        }
        if let Some(rollout) = host.rollout.as_ref().filter(|rollout| rollout.share().is_some()) {
            exists(&rollout.to, format!("{at}/rollout/to"));
        }
        for (j, route) in host.routes.iter().enumerate() {
            exists(&route.enabled_backends_tag, format!("{at}/routes/{j}/enabled_backends_tag"));
            exists(&route.mirror_tag, format!("{at}/routes/{j}/mirror_tag"));
        }
    }
    policies::server_names(config, &mut faults);
    responses::incomplete(config, &mut faults);
    rate_limit::idle(config, &mut faults);
    for (i, host) in config.virtual_hosts.iter().enumerate() {
        for (j, route) in host.routes.iter().enumerate() {
            hosts::incomplete(route, &format!("virtual_hosts/{i}/routes/{j}"), &mut faults);
        }
    }
    faults.0
}
