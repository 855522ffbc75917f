//! Policy tables: the tables that may stand at the top, in a virtual host and in a route.
//!
//! [`policy_tables`] is the only list of them. Other macros take the list and write what each table needs: its key at
//! each level ([`with_policy_tables`]), its validation, and the choice of the effective table. A new policy is a new
//! line in the list. Then the compiler asks for its validation and for its field in a route. A policy that can refuse
//! a request also gets a line in `live::checks::CHECKS`.

/// Calls the macro `$then` with the list of policy tables: key, type, and what the table is about.
macro_rules! policy_tables {
    ($then:ident $($arguments:tt)*) => {
        $then! { ($($arguments)*)
            // Default values apply if there is no such table.
            [
                limits: Limits, "Size limits of a request";
                health_check: HealthCheck, "Probes of backends";
                balancing: Balancing, "Choice of a backend";
                upstream: Upstream, "Connections to backends";
                retry: Retry, "Retries";
                circuit_breaker: CircuitBreaker,
                    "Circuit breaker, which sends no requests to a failing backend for a while";
                headers: Headers, "Changes to header fields";
                security_headers: SecurityHeaders, "Security fields for browsers";
            ]
            // The policy is off if there is no such table.
            [
                access: Access, "Networks from which clients may send requests";
                cors: Cors, "Pages of other origins that may use responses (CORS)";
                rate_limit: RateLimits, "Rate limits of a client";
                auth: Auth, "Authentication of requests";
                compression: Compression, "Compression of responses";
            ]
        }
    };
}

/// Defines a struct of the schema, with a field for each policy table in place of `..policy_tables`. `$level` ends the
/// description of each table.
macro_rules! with_policy_tables {
    (
        ($level:literal $(#[$meta:meta])* pub struct $name:ident {
            $($(#[$field_meta:meta])* pub $field:ident: $field_type:ty,)*
            ..policy_tables,
            $($after:tt)*
        })
        [$($key:ident: $table:ident, $about:literal;)*]
        [$($optional:ident: $optional_table:ident, $optional_about:literal;)*]
    ) => {
        $(#[$meta])*
        pub struct $name {
            $($(#[$field_meta])* pub $field: $field_type,)*
            $(
                #[doc = concat!($about, "; ", $level, ".")]
                #[serde(skip_serializing_if = "is_default")]
                pub $key: Option<$crate::config::$table>,
            )*
            $(
                #[doc = concat!($optional_about, "; ", $level, ". Without any such table, the policy is off.")]
                #[serde(skip_serializing_if = "is_default")]
                pub $optional: Option<$crate::config::$optional_table>,
            )*
            $($after)*
        }

        impl $name {
            /// Returns the policy tables that stand at this level.
            pub fn policy_tables(&self) -> $crate::config::PolicyTables<'_> {
                $crate::config::PolicyTables {
                    $($key: self.$key.as_ref(),)*
                    $($optional: self.$optional.as_ref(),)*
                }
            }
        }
    };
}

macro_rules! tables_of_a_level {
    (
        ()
        [$($key:ident: $table:ident, $about:literal;)*]
        [$($optional:ident: $optional_table:ident, $optional_about:literal;)*]
    ) => {
        /// Policy tables of one level: the top of the configuration, a virtual host or a route.
        #[derive(Clone, Copy, Debug, Default)]
        pub struct PolicyTables<'c> {
            $(
                #[doc = concat!($about, ".")]
                pub $key: Option<&'c $crate::config::$table>,
            )*
            $(
                #[doc = concat!($optional_about, ".")]
                pub $optional: Option<&'c $crate::config::$optional_table>,
            )*
        }
    };
}

policy_tables!(tables_of_a_level);

pub(crate) use policy_tables;
pub(crate) use with_policy_tables;
