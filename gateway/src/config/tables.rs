//! Policy tables: the tables that may be set at the top level, in a virtual host and in a route.
//!
//! [`policy_tables`] is the only list of these tables. Other macros use the list to write code for each table: its key
//! at each level ([`with_policy_tables`]), its validation, and its effective value. To add a policy, add a line to the
//! list. The compiler then reports that its validation and its field in a route are missing. A policy that can refuse a
//! request also gets a line in `live::checks::CHECKS`.

/// Calls the macro `$then` with the list of policy tables. An entry is a key, its type and a description.
macro_rules! policy_tables {
    ($then:ident $($arguments:tt)*) => {
        $then! { ($($arguments)*)
            // If no level has such a table, the policy applies with its default values.
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
            // If no level has such a table, the policy is off.
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

/// Defines a struct of the schema in which a field for each policy table replaces `..policy_tables`. The text `$level`
/// is appended to the description of each field.
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
            /// Returns the policy tables that are set at this level.
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
        /// Policy tables of one level (top, virtual host or route); `None`: the table is not set at this level.
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
