//! Virtual hosts by their host name. The cost of a lookup does not depend on the number of virtual hosts: one hash for
//! an exact name, and one hash for each label of the requested host for wildcards.

use std::collections::HashMap;

use crate::config::{Domain, InvalidHost, normalise_host};

/// Table of virtual hosts, by the host names that they serve.
pub struct HostTable<T> {
    exact: HashMap<String, T>,
    /// Virtual hosts whose domain is a wildcard. The key of `*.example.com` is `example.com`.
    wildcard: HashMap<String, T>,
    catch_all: Option<T>,
}

impl<T> Default for HostTable<T> {
    fn default() -> Self {
        HostTable { exact: HashMap::new(), wildcard: HashMap::new(), catch_all: None }
    }
}

impl<T> HostTable<T> {
    /// Adds a virtual host for a name. Replaces the previous virtual host of that name.
    pub fn insert(&mut self, domain: Domain, value: T) {
        match domain {
            Domain::Exact(host) => drop(self.exact.insert(host, value)),
            Domain::Wildcard(parent) => drop(self.wildcard.insert(parent, value)),
            Domain::CatchAll => self.catch_all = Some(value),
        }
    }

    /// Returns the virtual host for `authority`, as the client wrote it. An exact name is preferred, then the longest
    /// wildcard, then the catch-all. If `authority` is `None` (HTTP/1.0 without a host), only the catch-all matches.
    ///
    /// # Errors
    /// Returns [`InvalidHost`] if `authority` is not a valid host name.
    pub fn find(&self, authority: Option<&str>) -> Result<Option<&T>, InvalidHost> {
        let Some(authority) = authority else { return Ok(self.catch_all.as_ref()) };
        let host = normalise_host(authority)?;
        let found = self.exact.get(&*host).or_else(|| self.by_wildcard(&host));
        Ok(found.or(self.catch_all.as_ref()))
    }

    /// Returns the virtual host with the longest wildcard that matches. `*.example.com` matches `a.example.com` and
    /// `a.b.example.com`, but not `example.com` itself.
    fn by_wildcard(&self, host: &str) -> Option<&T> {
        if self.wildcard.is_empty() {
            return None;
        }
        host.match_indices('.').find_map(|(dot, _)| self.wildcard.get(&host[dot + 1..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(domains: &[&'static str]) -> HostTable<&'static str> {
        let mut table = HostTable::default();
        for domain in domains {
            table.insert(domain.parse().unwrap(), *domain);
        }
        table
    }

    #[test]
    fn exact_before_the_longest_wildcard_before_the_catch_all() {
        let table = table(&["*", "*.example.com", "*.eu.example.com", "www.example.com"]);
        for (host, found) in [
            ("www.example.com", "www.example.com"),
            ("WWW.Example.com.:80", "www.example.com"),
            ("api.example.com", "*.example.com"),
            ("a.b.example.com", "*.example.com"),
            ("a.eu.example.com", "*.eu.example.com"),
            ("eu.example.com", "*.example.com"),
            ("example.com", "*"),
            ("badexample.com", "*"),
            ("[::1]", "*"),
        ] {
            assert_eq!(table.find(Some(host)), Ok(Some(&found)), "{host}");
        }
        assert_eq!(table.find(None), Ok(Some(&"*")));
    }

    #[test]
    fn unknown_host_without_catch_all_finds_none() {
        let table = table(&["*.example.com", "[0::1]"]);
        assert_eq!(table.find(Some("[::1]:80")), Ok(Some(&"[0::1]")));
        assert_eq!(table.find(Some("other.example")), Ok(None));
        assert_eq!(table.find(None), Ok(None));
        assert_eq!(table.find(Some("a b")), Err(InvalidHost));
    }
}
