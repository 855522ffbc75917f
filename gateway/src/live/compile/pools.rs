//! Builds the pools of a configuration, and the parts that routes share. Most routes use the same tables, so
//! each compiled part is made once per table.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::config::{Config, HealthCheck, PathFault};
use crate::live::compile::fault::not_validated;
use crate::live::effective::EffectivePolicies;
use crate::live::snapshot::{Budgets, Instance, Snapshot};
use crate::upstream::{HealthPlan, Member, PeerSettings, Pool};

/// Address of a table in memory. The address identifies the table, so tables need not be compared by content.
type Table = usize;

fn which<T>(table: &T) -> Table {
    std::ptr::from_ref(table).addr()
}

/// Builder that makes each pool once, and collects the plan of health checks.
pub(in crate::live) struct Pools<'c> {
    /// Instances by tag.
    members: HashMap<&'c str, Vec<Instance>>,
    /// Pools by tag, `[balancing]` table and `[health_check]` table.
    made: HashMap<(&'c str, Table, Table), Arc<Pool>>,
    peers: HashMap<Table, Arc<PeerSettings>>,
    checks: HashMap<Table, Arc<HealthCheck>>,
    /// Combinations of tag, `[health_check]` table and `[upstream]` table that are already in the plan.
    probed: HashSet<(&'c str, Table, Table)>,
    health: HealthPlan,
    budgets: Budgets,
}

impl<'c> Pools<'c> {
    /// Creates a builder for these `backends`. A tag keeps its retry budget of the snapshot `before`.
    pub(in crate::live) fn new(
        config: &'c Config,
        backends: &[Vec<Instance>],
        before: Option<&Snapshot>,
    ) -> Self {
        let mut members: HashMap<&str, Vec<Instance>> = HashMap::new();
        for (backend, instances) in config.backends.iter().zip(backends) {
            for tag in &backend.tags {
                members.entry(tag).or_default().extend(instances.iter().cloned());
            }
        }
        for tag in &config.empty_tags {
            members.entry(tag).or_default();
        }
        let budget =
            |tag: &str| before.and_then(|before| before.budgets.get(tag).cloned()).unwrap_or_default();
        let budgets = members.keys().map(|tag| ((*tag).to_owned(), budget(tag))).collect();
        Pools {
            members,
            made: HashMap::new(),
            peers: HashMap::new(),
            checks: HashMap::new(),
            probed: HashSet::new(),
            health: HealthPlan::default(),
            budgets,
        }
    }

    /// Returns the pool of the backends with `tag` under these policies.
    pub(in crate::live) fn pool(
        &mut self,
        tag: &str,
        policies: &EffectivePolicies<'c>,
    ) -> Result<Arc<Pool>, Vec<PathFault>> {
        let (tag, members) = self.members(tag)?;
        let (balancing, health_check) = (policies.balancing.table, policies.health_check.table);
        let key = (tag, which(balancing), which(health_check));
        if let Some(made) = self.made.get(&key) {
            return Ok(made.clone());
        }
        let (backups, primaries): (Vec<&Instance>, Vec<&Instance>) =
            members.iter().partition(|instance| instance.backup);
        let member = |of: &Instance| Member { backend: of.state.clone(), weight: of.weight };
        let pool = Arc::new(Pool::new(
            primaries.into_iter().map(member).collect(),
            backups.into_iter().map(member).collect(),
            balancing.algorithm,
            health_check.panic_threshold_percent,
            self.budgets.get(tag).cloned().unwrap_or_default(),
        ));
        self.made.insert(key, pool.clone());
        Ok(pool)
    }

    fn members(&self, tag: &str) -> Result<(&'c str, &[Instance]), Vec<PathFault>> {
        let found = self.members.get_key_value(tag);
        found.map(|(tag, members)| (*tag, &members[..])).ok_or_else(|| not_validated("a tag has no backends"))
    }

    /// Returns the settings of connections to backends. `at` is the path of the policies in the configuration.
    pub(in crate::live) fn peers(
        &mut self,
        at: &str,
        policies: &EffectivePolicies<'c>,
    ) -> Result<Arc<PeerSettings>, Vec<PathFault>> {
        let table = policies.upstream.table;
        if let Some(made) = self.peers.get(&which(table)) {
            return Ok(made.clone());
        }
        let made = PeerSettings::new(table)
            .map_err(|bad| policies.upstream.fault(at, &format!("upstream/{}", bad.key), bad.detail))?;
        let made = Arc::new(made);
        self.peers.insert(which(table), made.clone());
        Ok(made)
    }

    /// Adds the backends with `tag` to the plan of health checks, under these policies.
    pub(in crate::live) fn probe(
        &mut self,
        at: &str,
        tag: &str,
        policies: &EffectivePolicies<'c>,
    ) -> Result<(), Vec<PathFault>> {
        let (tag, _) = self.members(tag)?;
        let key = (tag, which(policies.health_check.table), which(policies.upstream.table));
        if self.probed.insert(key) {
            let instances = self.members(tag)?.1.to_vec();
            self.add_checks(at, policies, &instances)?;
        }
        Ok(())
    }

    fn add_checks(
        &mut self,
        at: &str,
        policies: &EffectivePolicies<'c>,
        instances: &[Instance],
    ) -> Result<(), Vec<PathFault>> {
        let peers = self.peers(at, policies)?;
        let table = policies.health_check.table;
        let check = self.checks.entry(which(table)).or_insert_with(|| Arc::new(table.clone())).clone();
        for instance in instances {
            self.health.add(&instance.state, &check, &peers);
        }
        Ok(())
    }

    /// Returns the plan of health checks and the retry budgets. Backends that no route uses are checked with
    /// the settings at the `top` of the configuration.
    pub(in crate::live) fn finish(
        mut self,
        top: &EffectivePolicies<'c>,
        backends: &[Vec<Instance>],
    ) -> Result<(HealthPlan, Budgets), Vec<PathFault>> {
        let used: HashSet<usize> = self
            .probed
            .iter()
            .flat_map(|(tag, _, _)| &self.members[tag])
            .map(|instance| Arc::as_ptr(&instance.state).addr())
            .collect();
        let is_unused = |instance: &&Instance| !used.contains(&Arc::as_ptr(&instance.state).addr());
        let unused: Vec<Instance> = backends.iter().flatten().filter(is_unused).cloned().collect();
        self.add_checks("", top, &unused)?;
        Ok((self.health, self.budgets))
    }
}
