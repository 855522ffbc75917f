//! Text form of an explanation, for people at a terminal: a line for each fact, in the order in which the
//! gateway processes a request.

use std::fmt::{self, Formatter};

use super::explanation::{BackendCondition, Condition, Explanation, Taken};
use crate::live::snapshot::Level;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let host = self.host.as_deref().unwrap_or("(no host)");
        writeln!(f, "{} {host} {}", self.method, self.path)?;
        match &self.virtual_host {
            Some(virtual_host) => writeln!(f, "  virtual host  {virtual_host}")?,
            None if self.refused.is_none() => {
                let status = self.answered.unwrap_or_default();
                return writeln!(f, "  virtual host  none: answered with {status}");
            }
            None => {}
        }
        for rule in &self.rules {
            let taken = if rule.taken { "yes" } else { "no " };
            writeln!(f, "  route         {taken} {}: {}", rule.name, rule.why)?;
        }
        let Some(route) = &self.route else { return self.end(f) };
        if !self.rules.iter().any(|rule| rule.taken) {
            writeln!(f, "  route         none: the virtual host itself")?;
        }
        policies(route, f)?;
        route.depends_on.iter().try_for_each(|condition| depends_on(condition, f))?;
        if self.answered.is_some() {
            return self.end(f);
        }
        if route.auth_cookies {
            writeln!(f, "  auth cookies  those of the auth server go to the client, and not to the backend")?;
        }
        way(route, f)
    }
}

impl Explanation {
    /// Writes the last line: the local reply with which the gateway ends the request.
    fn end(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let status = self.answered.unwrap_or_default();
        if let Some(method) = &self.preflight {
            writeln!(f, "  preflight     a page asks permission to send {method}: [cors] answers")?;
        }
        let redirect = self.route.as_ref().and_then(|route| route.redirect.as_ref());
        match (redirect, &self.refused) {
            (Some(target), _) => writeln!(f, "  redirect      {status} to {target}"),
            (None, Some(refused)) => writeln!(f, "  refused       {refused}: answered with {status}"),
            (None, None) => writeln!(f, "  answered      with {status}"),
        }
    }
}

fn policies(route: &Taken, f: &mut Formatter<'_>) -> fmt::Result {
    let policies = route.policies.iter().map(|policy| match policy.from {
        Level::Route => format!("{} (route)", policy.name),
        Level::VirtualHost => format!("{} (virtual host)", policy.name),
        Level::Top => format!("{} (top)", policy.name),
        Level::Default => format!("{} (default)", policy.name),
    });
    writeln!(f, "  policies      {}", policies.collect::<Vec<_>>().join(", "))
}

fn depends_on(condition: &Condition, f: &mut Formatter<'_>) -> fmt::Result {
    write!(f, "  {:<13} depends on {}", condition.check.replace('_', " "), condition.on)?;
    match condition.refused_with {
        Some(status) => writeln!(f, "; otherwise {status}"),
        None => writeln!(f),
    }
}

/// Writes the lines about the way to the backend: fault injection, path, pools, mirror, algorithm, and the next
/// backend.
fn way(route: &Taken, f: &mut Formatter<'_>) -> fmt::Result {
    if let Some(fault) = &route.fault {
        writeln!(f, "  fault         {fault}")?;
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
    if let Some(tag) = &route.mirror {
        writeln!(f, "  mirror        {tag}")?;
    }
    let algorithm = serde_json::to_value(route.algorithm).unwrap_or_default();
    writeln!(f, "  algorithm     {}", algorithm.as_str().unwrap_or_default())?;
    writeln!(f, "  next          {}", route.next.as_deref().unwrap_or("no backend: answered with 503"))
}
