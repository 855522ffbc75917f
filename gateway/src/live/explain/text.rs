//! An explanation as a person reads it at a terminal: a line for each thing, in the order in which it happens.

use std::fmt;

use super::{BackendCondition, Explanation, RateLimit};
use crate::live::snapshot::Level;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.as_deref().unwrap_or("(no host)");
        writeln!(f, "{} {host} {}", self.method, self.path)?;
        let Some(virtual_host) = &self.virtual_host else {
            let status = self.answered.unwrap_or_default();
            return writeln!(f, "  virtual host  none: answered with {status}");
        };
        writeln!(f, "  virtual host  {virtual_host}")?;
        if let Some(refused) = &self.refused {
            return writeln!(f, "  refused       {refused}: answered with 400");
        }
        for rule in &self.rules {
            let taken = if rule.taken { "yes" } else { "no " };
            writeln!(f, "  route         {taken} {}: {}", rule.name, rule.why)?;
        }
        let Some(route) = &self.route else { return Ok(()) };
        if !self.rules.iter().any(|rule| rule.taken) {
            writeln!(f, "  route         none of its own: the virtual host itself")?;
        }
        let policies = route.policies.iter().map(|policy| match policy.from {
            Level::Route => format!("{} (route)", policy.name),
            Level::VirtualHost => format!("{} (virtual host)", policy.name),
            Level::Top => format!("{} (top)", policy.name),
            Level::Default => format!("{} (default)", policy.name),
        });
        writeln!(f, "  policies      {}", policies.collect::<Vec<_>>().join(", "))?;
        if let Some(auth) = route.auth {
            writeln!(f, "  auth          {auth}: 401 to whoever does not prove who asks")?;
        }
        if let Some(target) = &route.redirect {
            return writeln!(f, "  redirect      308 to {target}");
        }
        writeln!(f, "  path          {}", route.upstream_path)?;
        for pool in &route.pools {
            let share = if route.pools.len() > 1 { format!(" {}%", pool.percent) } else { String::new() };
            writeln!(f, "  pool          {}{share}", pool.tag)?;
            for backend in &pool.backends {
                let state = match backend.state {
                    BackendCondition::Usable => "usable",
                    BackendCondition::Unhealthy => "unhealthy",
                    BackendCondition::CircuitOpen => "circuit open",
                    BackendCondition::Drained => "drained",
                };
                let weight =
                    if backend.weight > 1 { format!(" weight {}", backend.weight) } else { String::new() };
                let backup = if backend.backup { " backup" } else { "" };
                writeln!(f, "  backend       {} {} {state}{weight}{backup}", backend.id, backend.address)?;
            }
        }
        for limit in &route.rate_limits {
            let RateLimit { name, requests, window_secs, key, store } = limit;
            let store = if store == "local" { String::new() } else { format!(" in {store}") };
            writeln!(f, "  rate limit    {name}: {requests} in {window_secs} s by {key}{store}")?;
        }
        if let Some(tag) = &route.mirror {
            writeln!(f, "  mirror        {tag}")?;
        }
        if let Some(fault) = &route.fault {
            writeln!(f, "  fault         {fault}")?;
        }
        let algorithm = serde_json::to_value(route.algorithm).unwrap_or_default();
        writeln!(f, "  algorithm     {}", algorithm.as_str().unwrap_or_default())?;
        writeln!(f, "  next          {}", route.next.as_deref().unwrap_or("nobody: answered with 503"))
    }
}
