//! Environment variables that configure the gateway: `PINGORA_*`, for setups without a file, and `RUST_LOG`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;

use super::address::Address;
use super::document::{closest, describe};
use super::schema::Config;
use super::upstream::Algorithm;
use super::values::{OneOrMany, Secs};

/// Prefix of the names of the gateway's environment variables.
const PREFIX: &str = "PINGORA_";

/// Environment variable that sets the log level of many Rust programs; ignored if `PINGORA_LOG_LEVEL` is set.
const RUST_LOG: &str = "RUST_LOG";

/// Names of the gateway's environment variables.
pub const VARIABLES: [&str; 18] = [
    "PINGORA_LISTEN_ADDR",
    "PINGORA_BACKEND_ADDR",
    "PINGORA_BACKEND_SERVERS",
    "PINGORA_MAX_CONNECTIONS",
    "PINGORA_TIMEOUT_SECONDS",
    "PINGORA_ENABLE_HEALTH_CHECK",
    "PINGORA_HEALTH_CHECK_INTERVAL_SECONDS",
    "PINGORA_HEALTH_CHECK_PATH",
    "PINGORA_LOG_LEVEL",
    "PINGORA_ENABLE_METRICS",
    "PINGORA_METRICS_ADDR",
    "PINGORA_LOAD_BALANCING_ALGORITHM",
    "PINGORA_ENABLE_MANAGEMENT",
    "PINGORA_MANAGEMENT_ADDR",
    ENABLE_TLS,
    TLS_ADDR,
    TLS_CERT_FILE,
    TLS_KEY_FILE,
];

const ENABLE_TLS: &str = "PINGORA_ENABLE_TLS";
const TLS_ADDR: &str = "PINGORA_TLS_ADDR";
const TLS_CERT_FILE: &str = "PINGORA_TLS_CERT_FILE";
const TLS_KEY_FILE: &str = "PINGORA_TLS_KEY_FILE";

/// Environment variables that set the addresses of backends.
pub(super) const BACKEND_VARIABLES: [&str; 2] = ["PINGORA_BACKEND_ADDR", "PINGORA_BACKEND_SERVERS"];

/// Returns the variables of `environment` that concern the gateway. An empty variable counts as not set, because
/// Compose files pass it in this form. Unknown names that begin with `PINGORA_` are kept, and are refused later.
pub fn set_variables(environment: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let set = environment.into_iter().map(|(name, value)| (name, value.trim().to_owned()));
    let is_ours = |name: &str| name.starts_with(PREFIX) || name == RUST_LOG;
    set.filter(|(name, value)| is_ours(name) && !value.is_empty() && !is_service_link(name, value)).collect()
}

/// Returns true if at least one variable begins with `PINGORA_`; `RUST_LOG` alone does not configure the gateway.
pub fn configure(variables: &BTreeMap<String, String>) -> bool {
    variables.keys().any(|name| name.starts_with(PREFIX))
}

/// Returns true if at least one variable sets the addresses of backends.
pub fn name_backends(variables: &BTreeMap<String, String>) -> bool {
    BACKEND_VARIABLES.iter().any(|name| variables.contains_key(*name))
}

/// Returns true if Kubernetes or Docker has set the variable. For a service named "pingora" or "pingora-…", they set
/// variables such as `PINGORA_SERVICE_HOST`, `PINGORA_SERVICE_PORT_HTTP`, `PINGORA_PORT=tcp://…` and
/// `PINGORA_PORT_80_TCP_ADDR`.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let of_port = ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| name.contains(protocol));
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT") && is_url
        || name.contains("_PORT_") && of_port
}

/// Address of the backend if neither a file, a variable nor an option sets one.
pub(super) const DEFAULT_BACKEND: &str = "127.0.0.1:3000";

/// Configuration text in place of a file if the operator has none. Variables override its values.
pub(super) const WITHOUT_FILE: &str = "\
[health_check]
kind = \"http\"
interval_secs = 30

[headers]
response_set = { \"X-Forwarded-By\" = \"rust-pingora\", \"X-Proxy\" = \"gateway\", \"X-Load-Balancer\" = \"pingora\" }
";

/// Environment variables, which override the values of a configuration.
pub(super) struct Variables<'a> {
    values: &'a BTreeMap<String, String>,
    /// Path of each value that a variable has set, with the name of the variable.
    pub(super) set_by: Vec<(String, &'static str)>,
    /// Faults, each with the name of the variable and a description.
    pub(super) faults: Vec<(String, String)>,
}

impl<'a> Variables<'a> {
    pub(super) fn new(values: &'a BTreeMap<String, String>) -> Self {
        Variables { values, set_by: Vec::new(), faults: Vec::new() }
    }

    /// Writes the values of the variables to `config`. Returns the backends; `None` if no variable sets backends.
    pub(super) fn apply(&mut self, config: &mut Config) -> Option<Vec<Address>> {
        self.refuse_unknown();
        let proxy = &mut config.proxy;
        let mut health = config.health_check.clone().unwrap_or_default();
        let mut balancing = config.balancing.clone().unwrap_or_default();
        self.set("PINGORA_LISTEN_ADDR", "proxy/listen_addr_http", &mut proxy.listen_addr_http, |text| {
            addresses(text, "an address to listen on, as in 127.0.0.1:8080")
        });
        self.set("PINGORA_ENABLE_MANAGEMENT", "proxy/management_api", &mut proxy.management_api, switch);
        self.set(
            "PINGORA_MANAGEMENT_ADDR",
            "proxy/management_api_addr",
            &mut proxy.management_api_addr,
            |text| parse(text, "an address to listen on, as in 127.0.0.1:8081"),
        );
        self.set("PINGORA_MAX_CONNECTIONS", "proxy/max_connections", &mut proxy.max_connections, |text| {
            parse::<NonZeroUsize>(text, "a whole number from 1")
        });
        self.set(
            "PINGORA_TIMEOUT_SECONDS",
            "proxy/request_timeout_secs",
            &mut proxy.request_timeout_secs,
            secs,
        );
        self.set("PINGORA_ENABLE_HEALTH_CHECK", "health_check/enabled", &mut health.enabled, switch);
        self.set(
            "PINGORA_HEALTH_CHECK_INTERVAL_SECONDS",
            "health_check/interval_secs",
            &mut health.interval_secs,
            secs,
        );
        self.set("PINGORA_HEALTH_CHECK_PATH", "health_check/path", &mut health.path, |text| {
            Ok(Some(text.to_owned()))
        });
        self.set(RUST_LOG, "logging/level", &mut config.logging.level, |text| Ok(text.to_owned()));
        self.set("PINGORA_LOG_LEVEL", "logging/level", &mut config.logging.level, |text| Ok(text.to_owned()));
        self.set("PINGORA_ENABLE_METRICS", "metrics/enabled", &mut config.metrics.enabled, switch);
        self.set("PINGORA_METRICS_ADDR", "metrics/listen_addr", &mut config.metrics.listen_addr, |text| {
            parse(text, "an address to listen on, as in 127.0.0.1:9090")
        });
        self.set(
            "PINGORA_LOAD_BALANCING_ALGORITHM",
            "balancing/algorithm",
            &mut balancing.algorithm,
            algorithm,
        );
        write(&mut config.health_check, health);
        write(&mut config.balancing, balancing);
        self.https(&mut config.proxy.listen_addr);

        let mut backends = None;
        self.set("PINGORA_BACKEND_ADDR", "backends", &mut backends, |text| Ok(Some(vec![text.parse()?])));
        self.set("PINGORA_BACKEND_SERVERS", "backends", &mut backends, |text| {
            text.split(',').map(|server| server.trim().parse()).collect::<Result<_, _>>().map(Some)
        });
        backends
    }

    /// Adds a fault for each unknown variable. Otherwise, a misspelt variable would have no effect and no error.
    fn refuse_unknown(&mut self) {
        let known = |name: &&String| VARIABLES.contains(&name.as_str()) || *name == RUST_LOG;
        for name in self.values.keys().filter(|name| !known(name)) {
            let short = |name: &'a str| name.strip_prefix(PREFIX).unwrap_or(name);
            let hint = closest(short(name), VARIABLES.into_iter().map(short));
            let hint = hint.map_or_else(String::new, |hint| format!(" (did you mean `{PREFIX}{hint}`?)"));
            self.faults.push((name.clone(), format!("there is no such variable{hint}")));
        }
    }

    /// Sets the HTTPS listeners from `PINGORA_ENABLE_TLS` and `PINGORA_TLS_ADDR`.
    fn https(&mut self, listen_addr: &mut OneOrMany<SocketAddr>) {
        let mut enabled = None;
        self.set(ENABLE_TLS, "proxy/listen_addr", &mut enabled, |text| switch(text).map(Some));
        let mut wanted = listen_addr.clone();
        if wanted.0.is_empty() {
            wanted.0.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 8443)));
        }
        self.set(TLS_ADDR, "proxy/listen_addr", &mut wanted, |text| {
            addresses(text, "an address to listen on, as in 127.0.0.1:8443")
        });
        match enabled {
            Some(true) => *listen_addr = wanted,
            Some(false) => listen_addr.0.clear(),
            None if !listen_addr.0.is_empty() => *listen_addr = wanted,
            None if self.values.contains_key(ENABLE_TLS) => {}
            None => {
                let idle = [TLS_ADDR, TLS_CERT_FILE, TLS_KEY_FILE].into_iter();
                for name in idle.filter(|name| self.values.contains_key(*name)) {
                    let detail = format!("it has no effect without HTTPS; set {ENABLE_TLS}=true, too");
                    self.faults.push((name.to_owned(), detail));
                }
            }
        }
    }

    /// Sets the certificate files from the variables, for every virtual host without its own certificate.
    pub(super) fn certify(&mut self, config: &mut Config) {
        let (certificate, key) = match (self.values.get(TLS_CERT_FILE), self.values.get(TLS_KEY_FILE)) {
            (Some(certificate), Some(key)) => (certificate, key),
            (None, None) => return,
            (Some(_), None) => return self.incomplete(TLS_CERT_FILE, TLS_KEY_FILE),
            (None, Some(_)) => return self.incomplete(TLS_KEY_FILE, TLS_CERT_FILE),
        };
        if config.proxy.listen_addr.0.is_empty() {
            return;
        }
        let hosts = config.virtual_hosts.iter_mut().enumerate();
        let mut bare = hosts.filter(|(_, host)| !host.acme && host.cert_file.0.is_empty()).peekable();
        if bare.peek().is_none() {
            let detail = "every virtual host has its own certificate; remove the variable".to_owned();
            self.faults.push((TLS_CERT_FILE.to_owned(), detail));
        }
        for (i, host) in bare {
            host.cert_file = OneOrMany(vec![certificate.clone()]);
            host.key_file = OneOrMany(vec![key.clone()]);
            self.set_by.push((format!("virtual_hosts/{i}/cert_file"), TLS_CERT_FILE));
            self.set_by.push((format!("virtual_hosts/{i}/key_file"), TLS_KEY_FILE));
        }
    }

    fn incomplete(&mut self, name: &str, missing: &str) {
        self.faults.push((
            name.to_owned(),
            format!("a certificate needs its key, and the key its certificate: set {missing}, too"),
        ));
    }

    /// Sets `target` to the value of `variable`, or adds a fault if the value is invalid.
    fn set<T>(
        &mut self,
        variable: &'static str,
        path: &'static str,
        target: &mut T,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) {
        let Some(text) = self.values.get(variable) else { return };
        match read(text) {
            Ok(value) => {
                *target = value;
                self.set_by.push((path.to_owned(), variable));
            }
            Err(detail) => self.faults.push((variable.to_owned(), detail)),
        }
    }
}

/// Writes back a table after variables may have changed it. An absent table stays absent if all values are defaults.
fn write<T: Default + PartialEq>(table: &mut Option<T>, value: T) {
    if table.is_some() || value != T::default() {
        *table = Some(value);
    }
}

fn parse<T: FromStr>(text: &str, expected: &str) -> Result<T, String> {
    let text = text.trim();
    text.parse().map_err(|_| format!("'{text}' is not {expected}"))
}

fn addresses(text: &str, expected: &str) -> Result<OneOrMany<SocketAddr>, String> {
    text.split(',').map(|address| parse(address, expected)).collect::<Result<_, _>>().map(OneOrMany)
}

fn secs(text: &str) -> Result<Secs, String> {
    parse::<i64>(text, "a whole number of seconds")?.try_into()
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("'{text}' is neither true nor false")),
    }
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    let path = ["balancing", "algorithm"].map(str::to_owned).to_vec();
    Algorithm::deserialize(text.into_deserializer())
        .map_err(|error: ValueError| describe(&error.to_string(), &path))
}
