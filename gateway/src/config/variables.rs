//! The `PINGORA_*` environment, for setups that want no file.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;

use super::address::Address;
use super::document::describe;
use super::schema::Config;
use super::upstream::Algorithm;
use super::values::{OneOrMany, Secs};

/// Every variable that is read.
pub const VARIABLES: [&str; 14] = [
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
];

/// Those that say who is served.
pub(super) const BACKEND_VARIABLES: [&str; 2] = ["PINGORA_BACKEND_ADDR", "PINGORA_BACKEND_SERVERS"];

/// The variables that are set, as `get` finds them. One that is empty counts as not set: Compose files leave
/// them so.
pub fn set_variables(get: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let set = VARIABLES.into_iter().filter_map(|name| Some((name.to_owned(), get(name)?.trim().to_owned())));
    set.filter(|(_, value)| !value.is_empty()).collect()
}

/// The backend where none is given.
pub(super) const DEFAULT_BACKEND: &str = "127.0.0.1:3000";

/// What holds without a file, before the variables are looked at.
pub(super) const WITHOUT_FILE: &str = "[health_check]\npath = \"/health\"\ninterval_secs = 30\n";

/// The environment, as it is applied to a configuration.
pub(super) struct Variables<'a> {
    values: &'a BTreeMap<String, String>,
    /// Which path of the configuration was set by which variable.
    pub(super) set_by: Vec<(&'static str, &'static str)>,
    /// What is wrong: variable and detail.
    pub(super) faults: Vec<(&'static str, String)>,
}

impl<'a> Variables<'a> {
    pub(super) fn new(values: &'a BTreeMap<String, String>) -> Self {
        Variables { values, set_by: Vec::new(), faults: Vec::new() }
    }

    /// Sets what is set, and returns the backends where any are given.
    pub(super) fn apply(&mut self, config: &mut Config) -> Option<Vec<Address>> {
        let proxy = &mut config.proxy;
        let health = &mut config.health_check;
        self.set("PINGORA_LISTEN_ADDR", "proxy/listen_addr_http", &mut proxy.listen_addr_http, |text| {
            text.split(',')
                .map(|address| parse(address, "an address to listen on, as in 127.0.0.1:8080"))
                .collect::<Result<_, _>>()
                .map(OneOrMany)
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
        self.set("PINGORA_LOG_LEVEL", "logging/level", &mut config.logging.level, |text| Ok(text.to_owned()));
        self.set("PINGORA_ENABLE_METRICS", "metrics/enabled", &mut config.metrics.enabled, switch);
        self.set("PINGORA_METRICS_ADDR", "metrics/listen_addr", &mut config.metrics.listen_addr, |text| {
            parse(text, "an address to listen on, as in 127.0.0.1:9090")
        });
        self.set(
            "PINGORA_LOAD_BALANCING_ALGORITHM",
            "balancing/algorithm",
            &mut config.balancing.algorithm,
            algorithm,
        );

        let mut backends = None;
        self.set("PINGORA_BACKEND_ADDR", "backends", &mut backends, |text| Ok(Some(vec![text.parse()?])));
        self.set("PINGORA_BACKEND_SERVERS", "backends", &mut backends, |text| {
            text.split(',').map(|server| server.trim().parse()).collect::<Result<_, _>>().map(Some)
        });
        backends
    }

    /// One variable.
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
                self.set_by.push((path, variable));
            }
            Err(detail) => self.faults.push((variable, detail)),
        }
    }
}

fn parse<T: FromStr>(text: &str, expected: &str) -> Result<T, String> {
    let text = text.trim();
    text.parse().map_err(|_| format!("'{text}' is not {expected}"))
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
