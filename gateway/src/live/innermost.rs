//! Of a policy's tables, the one that holds: the innermost, whole.

use super::snapshot::Level;
use crate::config::{
    self, Balancing, CircuitBreaker, Config, Headers, HealthCheck, Limits, RateLimit, Retry, SecurityHeaders,
    Upstream, VirtualHost,
};

/// The table that holds, and where it was written.
pub(super) struct Found<'c, T> {
    pub(super) table: &'c T,
    pub(super) level: Level,
}

impl<T> Clone for Found<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Found<'_, T> {}

/// What holds where no virtual host or route says anything: the tables at the top, or else the defaults. Only
/// a rate limit has none.
pub(super) struct Defaults {
    health_check: (HealthCheck, Level),
    balancing: (Balancing, Level),
    upstream: (Upstream, Level),
    retry: (Retry, Level),
    circuit_breaker: (CircuitBreaker, Level),
    limits: (Limits, Level),
    headers: (Headers, Level),
    security_headers: (SecurityHeaders, Level),
    rate_limit: Option<RateLimit>,
}

impl Defaults {
    pub(super) fn new(config: &Config) -> Self {
        Defaults {
            // These two are always there; one that says nothing is as good as none.
            health_check: or_default(said(&config.health_check)),
            balancing: or_default(said(&config.balancing)),
            upstream: or_default(config.upstream.as_ref()),
            retry: or_default(config.retry.as_ref()),
            circuit_breaker: or_default(config.circuit_breaker.as_ref()),
            limits: or_default(config.limits.as_ref()),
            headers: or_default(config.headers.as_ref()),
            security_headers: or_default(config.security_headers.as_ref()),
            rate_limit: config.rate_limit.clone(),
        }
    }
}

fn said<T: Default + PartialEq>(table: &T) -> Option<&T> {
    (*table != T::default()).then_some(table)
}

fn or_default<T: Clone + Default>(at_top: Option<&T>) -> (T, Level) {
    at_top.map_or_else(|| (T::default(), Level::Default), |table| (table.clone(), Level::Top))
}

/// The tables that hold for a route.
pub(super) struct Policies<'c> {
    pub(super) health_check: Found<'c, HealthCheck>,
    pub(super) balancing: Found<'c, Balancing>,
    pub(super) upstream: Found<'c, Upstream>,
    pub(super) retry: Found<'c, Retry>,
    pub(super) circuit_breaker: Found<'c, CircuitBreaker>,
    pub(super) limits: Found<'c, Limits>,
    pub(super) headers: Found<'c, Headers>,
    pub(super) security_headers: Found<'c, SecurityHeaders>,
    /// `None`: any number of requests.
    pub(super) rate_limit: Option<Found<'c, RateLimit>>,
}

impl<'c> Policies<'c> {
    /// Those at the top.
    pub(super) fn of_top(defaults: &'c Defaults) -> Self {
        let rate_limit = defaults.rate_limit.as_ref();
        Policies {
            health_check: at_top(&defaults.health_check),
            balancing: at_top(&defaults.balancing),
            upstream: at_top(&defaults.upstream),
            retry: at_top(&defaults.retry),
            circuit_breaker: at_top(&defaults.circuit_breaker),
            limits: at_top(&defaults.limits),
            headers: at_top(&defaults.headers),
            security_headers: at_top(&defaults.security_headers),
            rate_limit: rate_limit.map(|table| Found { table, level: Level::Top }),
        }
    }

    /// Those that hold for `route`, or for the requests of `host` that no route takes.
    pub(super) fn of(
        defaults: &'c Defaults,
        host: &'c VirtualHost,
        route: Option<&'c config::Route>,
    ) -> Self {
        let top = Policies::of_top(defaults);
        macro_rules! innermost {
            ($table:ident) => {
                inner(route.and_then(|route| route.$table.as_ref()), host.$table.as_ref())
            };
        }
        Policies {
            health_check: innermost!(health_check).unwrap_or(top.health_check),
            balancing: innermost!(balancing).unwrap_or(top.balancing),
            upstream: innermost!(upstream).unwrap_or(top.upstream),
            retry: innermost!(retry).unwrap_or(top.retry),
            circuit_breaker: innermost!(circuit_breaker).unwrap_or(top.circuit_breaker),
            limits: innermost!(limits).unwrap_or(top.limits),
            headers: innermost!(headers).unwrap_or(top.headers),
            security_headers: innermost!(security_headers).unwrap_or(top.security_headers),
            rate_limit: innermost!(rate_limit).or(top.rate_limit),
        }
    }

    /// Where each of them was written.
    pub(super) fn levels(&self) -> [(&'static str, Level); 9] {
        [
            ("health_check", self.health_check.level),
            ("balancing", self.balancing.level),
            ("upstream", self.upstream.level),
            ("retry", self.retry.level),
            ("circuit_breaker", self.circuit_breaker.level),
            ("rate_limit", self.rate_limit.map_or(Level::Default, |found| found.level)),
            ("limits", self.limits.level),
            ("headers", self.headers.level),
            ("security_headers", self.security_headers.level),
        ]
    }
}

fn at_top<T>((table, level): &(T, Level)) -> Found<'_, T> {
    Found { table, level: *level }
}

fn inner<'c, T>(route: Option<&'c T>, host: Option<&'c T>) -> Option<Found<'c, T>> {
    let route = route.map(|table| Found { table, level: Level::Route });
    route.or_else(|| host.map(|table| Found { table, level: Level::VirtualHost }))
}
