//! Selects the effective table of each policy: the innermost table applies as a whole, and tables are never
//! merged.

use http::HeaderName;

use super::snapshot::Level;
use crate::config::{
    self, Access, Auth, Balancing, CircuitBreaker, Compression, Config, Cors, Headers, HealthCheck, Limits,
    RateLimits, Retry, SecurityHeaders, Upstream, VirtualHost,
};

/// The effective table of a policy, and the level that it comes from.
pub(super) struct Effective<'c, T> {
    pub(super) table: &'c T,
    pub(super) level: Level,
}

impl<T> Clone for Effective<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Effective<'_, T> {}

/// Tables for virtual hosts and routes that have none: the tables at the top, or else the defaults. An optional
/// policy without a table is off.
pub(super) struct Defaults {
    health_check: (HealthCheck, Level),
    balancing: (Balancing, Level),
    upstream: (Upstream, Level),
    retry: (Retry, Level),
    circuit_breaker: (CircuitBreaker, Level),
    limits: (Limits, Level),
    headers: (Headers, Level),
    security_headers: (SecurityHeaders, Level),
    rate_limit: Option<RateLimits>,
    access: Option<Access>,
    auth: Option<Auth>,
    cors: Option<Cors>,
    compression: Option<Compression>,
}

impl Defaults {
    pub(super) fn new(config: &Config) -> Self {
        Defaults {
            // These two tables always exist in the configuration. A table with default values only counts as
            // absent.
            health_check: or_default(said(&config.health_check)),
            balancing: or_default(said(&config.balancing)),
            upstream: or_default(config.upstream.as_ref()),
            retry: or_default(config.retry.as_ref()),
            circuit_breaker: or_default(config.circuit_breaker.as_ref()),
            limits: or_default(config.limits.as_ref()),
            headers: or_default(config.headers.as_ref()),
            security_headers: or_default(config.security_headers.as_ref()),
            rate_limit: config.rate_limit.clone(),
            access: config.access.clone(),
            auth: config.auth.clone(),
            cors: config.cors.clone(),
            compression: config.compression.clone(),
        }
    }
}

fn said<T: Default + PartialEq>(table: &T) -> Option<&T> {
    (*table != T::default()).then_some(table)
}

fn or_default<T: Clone + Default>(at_top: Option<&T>) -> (T, Level) {
    at_top.map_or_else(|| (T::default(), Level::Default), |table| (table.clone(), Level::Top))
}

/// Effective tables of a route.
pub(super) struct EffectivePolicies<'c> {
    pub(super) health_check: Effective<'c, HealthCheck>,
    pub(super) balancing: Effective<'c, Balancing>,
    pub(super) upstream: Effective<'c, Upstream>,
    pub(super) retry: Effective<'c, Retry>,
    pub(super) circuit_breaker: Effective<'c, CircuitBreaker>,
    pub(super) limits: Effective<'c, Limits>,
    pub(super) headers: Effective<'c, Headers>,
    pub(super) security_headers: Effective<'c, SecurityHeaders>,
    /// `None` sets no limit.
    pub(super) rate_limit: Option<Effective<'c, RateLimits>>,
    /// `None` admits every address.
    pub(super) access: Option<Effective<'c, Access>>,
    /// `None` requires no authentication.
    pub(super) auth: Option<Effective<'c, Auth>>,
    /// `None` leaves CORS to the backend.
    pub(super) cors: Option<Effective<'c, Cors>>,
    /// `None` compresses nothing.
    pub(super) compression: Option<Effective<'c, Compression>>,
}

impl<'c> EffectivePolicies<'c> {
    /// Returns the tables at the top of the configuration.
    pub(super) fn of_top(defaults: &'c Defaults) -> Self {
        EffectivePolicies {
            health_check: at_top(&defaults.health_check),
            balancing: at_top(&defaults.balancing),
            upstream: at_top(&defaults.upstream),
            retry: at_top(&defaults.retry),
            circuit_breaker: at_top(&defaults.circuit_breaker),
            limits: at_top(&defaults.limits),
            headers: at_top(&defaults.headers),
            security_headers: at_top(&defaults.security_headers),
            rate_limit: optional(&defaults.rate_limit),
            access: optional(&defaults.access),
            auth: optional(&defaults.auth),
            cors: optional(&defaults.cors),
            compression: optional(&defaults.compression),
        }
    }

    /// Returns the effective tables of `route`, or of the requests of `host` that no route takes.
    pub(super) fn of(
        defaults: &'c Defaults,
        host: &'c VirtualHost,
        route: Option<&'c config::Route>,
    ) -> Self {
        let top = EffectivePolicies::of_top(defaults);
        macro_rules! effective {
            ($table:ident) => {
                inner(route.and_then(|route| route.$table.as_ref()), host.$table.as_ref())
            };
        }
        EffectivePolicies {
            health_check: effective!(health_check).unwrap_or(top.health_check),
            balancing: effective!(balancing).unwrap_or(top.balancing),
            upstream: effective!(upstream).unwrap_or(top.upstream),
            retry: effective!(retry).unwrap_or(top.retry),
            circuit_breaker: effective!(circuit_breaker).unwrap_or(top.circuit_breaker),
            limits: effective!(limits).unwrap_or(top.limits),
            headers: effective!(headers).unwrap_or(top.headers),
            security_headers: effective!(security_headers).unwrap_or(top.security_headers),
            rate_limit: effective!(rate_limit).or(top.rate_limit),
            access: effective!(access).or(top.access),
            auth: effective!(auth).or(top.auth),
            cors: effective!(cors).or(top.cors),
            compression: effective!(compression).or(top.compression),
        }
    }

    /// Returns the header fields that carry credentials for outer `[auth]` tables, which the effective `[auth]`
    /// table of this part replaces. Clients send these credentials to every part of the host or of the gateway,
    /// and no backend of this part may get them. Fields of sibling parts are not included: here, such a field
    /// may belong to the backend. The result is empty if there is no effective table, or if that table passes
    /// credentials on.
    pub(super) fn foreign_proofs(&self, defaults: &Defaults, host: &VirtualHost) -> Box<[HeaderName]> {
        let Some(Effective { table: own, level }) = self.auth.filter(|found| !found.table.pass_credentials)
        else {
            return Box::default();
        };
        let of_host = host.auth.as_ref().filter(|_| level == Level::Route);
        let of_top = defaults.auth.as_ref().filter(|_| level != Level::Top);
        let own = own.proof();
        let mut proofs: Vec<_> = of_host.into_iter().chain(of_top).filter_map(Auth::proof).collect();
        proofs.retain(|proof| own.as_ref() != Some(proof));
        proofs.dedup();
        proofs.into()
    }

    /// Returns the level of each table, in the order in which a request meets the policies.
    pub(super) fn levels(&self) -> [(&'static str, Level); 13] {
        fn of<T>(found: Option<Effective<'_, T>>) -> Level {
            found.map_or(Level::Default, |found| found.level)
        }
        [
            ("limits", self.limits.level),
            ("access", of(self.access)),
            ("cors", of(self.cors)),
            ("rate_limit", of(self.rate_limit)),
            ("auth", of(self.auth)),
            ("health_check", self.health_check.level),
            ("balancing", self.balancing.level),
            ("upstream", self.upstream.level),
            ("retry", self.retry.level),
            ("circuit_breaker", self.circuit_breaker.level),
            ("headers", self.headers.level),
            ("security_headers", self.security_headers.level),
            ("compression", of(self.compression)),
        ]
    }
}

fn at_top<T>((table, level): &(T, Level)) -> Effective<'_, T> {
    Effective { table, level: *level }
}

fn optional<T>(at_top: &Option<T>) -> Option<Effective<'_, T>> {
    at_top.as_ref().map(|table| Effective { table, level: Level::Top })
}

fn inner<'c, T>(route: Option<&'c T>, host: Option<&'c T>) -> Option<Effective<'c, T>> {
    let route = route.map(|table| Effective { table, level: Level::Route });
    route.or_else(|| host.map(|table| Effective { table, level: Level::VirtualHost }))
}
