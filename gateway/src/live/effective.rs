//! Selects the effective table of each policy: the innermost table applies as a whole, and tables are never
//! merged.

use http::HeaderName;

use super::snapshot::Level;
use crate::config::{self, Auth, PathFault, PolicyTables, policy_tables};

/// The effective table of a policy, and the level that it comes from.
#[derive(Clone, Copy)]
pub(super) struct Effective<T> {
    pub(super) table: T,
    pub(super) level: Level,
}

impl<T> Effective<T> {
    /// Returns a fault of the table. `key` begins with the name of the table, as in `upstream/ca_file`. `at` is
    /// the path of the route in the configuration, as in `virtual_hosts/0/routes/1/`.
    pub(super) fn fault(&self, at: &str, key: &str, detail: String) -> Vec<PathFault> {
        let at = match self.level {
            Level::Route => at,
            Level::VirtualHost => at.split("routes/").next().unwrap_or_default(),
            Level::Top | Level::Default => "",
        };
        vec![PathFault { path: format!("{at}{key}"), detail }]
    }
}

/// Policy tables of each level that applies to a route, from the innermost level outwards.
pub(super) type Levels<'c> = [(Level, PolicyTables<'c>)];

/// Returns the table that `select` selects at the innermost level at which there is one.
fn innermost<'c, T>(
    levels: &Levels<'c>,
    select: impl Fn(&PolicyTables<'c>) -> Option<&'c T>,
) -> Option<Effective<&'c T>> {
    levels.iter().find_map(|(level, tables)| Some(Effective { table: select(tables)?, level: *level }))
}

macro_rules! effective_policies {
    (
        ()
        [$($key:ident: $table:ident, $about:literal;)*]
        [$($optional:ident: $optional_table:ident, $optional_about:literal;)*]
    ) => {
        /// Tables with default values, for policies that no level configures.
        #[derive(Default)]
        pub(super) struct DefaultTables {
            $($key: config::$table,)*
        }

        /// Effective tables of a route. A policy whose table is `None` is off.
        pub(super) struct EffectivePolicies<'c> {
            $(pub(super) $key: Effective<&'c config::$table>,)*
            $(pub(super) $optional: Option<Effective<&'c config::$optional_table>>,)*
        }

        impl<'c> EffectivePolicies<'c> {
            /// Selects the effective tables from these levels.
            pub(super) fn new(levels: &Levels<'c>, defaults: &'c DefaultTables) -> Self {
                EffectivePolicies {
                    $(
                        $key: innermost(levels, |tables| tables.$key)
                            .unwrap_or(Effective { table: &defaults.$key, level: Level::Default }),
                    )*
                    $($optional: innermost(levels, |tables| tables.$optional),)*
                }
            }

            /// Returns the level of each table, by the name of the table.
            pub(super) fn levels(&self) -> Vec<(&'static str, Level)> {
                let of_optional = [
                    $((stringify!($optional), self.$optional.map_or(Level::Default, |found| found.level)),)*
                ];
                let mut levels = vec![$((stringify!($key), self.$key.level),)*];
                levels.extend(of_optional);
                levels
            }
        }
    };
}

policy_tables!(effective_policies);

impl EffectivePolicies<'_> {
    /// Returns the header fields with credentials for outer `[auth]` tables, which the effective `[auth]` table
    /// of this route replaces. Clients may send these credentials with every request, and no backend of this
    /// route may get them. Fields for sibling routes are not included, because a backend of this route may use
    /// such a field itself. The result is empty if no `[auth]` table is effective, or if the effective table
    /// passes credentials on. `levels` are the levels from which the policies were selected.
    pub(super) fn foreign_proofs(&self, levels: &Levels<'_>) -> Box<[HeaderName]> {
        let Some(own) = self.auth.filter(|found| !found.table.pass_credentials) else {
            return Box::default();
        };
        let outer = levels.iter().skip_while(|(level, _)| *level != own.level).skip(1);
        let proof = own.table.proof();
        let mut proofs: Vec<_> = outer.filter_map(|(_, tables)| tables.auth.and_then(Auth::proof)).collect();
        proofs.retain(|other| proof.as_ref() != Some(other));
        proofs.dedup();
        proofs.into()
    }
}
