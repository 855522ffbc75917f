//! Validation of `[headers]`, `[cors]` and `[compression]`, at every level. Keys without an effect are refused,
//! because the operator most likely expects an effect.

use http::{HeaderName, Method, header};

use super::Faults;
use crate::config::auth::Auth;
use crate::config::fields::{FieldName, Fields};
use crate::config::normalized_name;
use crate::config::origin::AllowedOrigin;
use crate::config::policies::Headers;
use crate::config::responses::{Compression, Cors, FieldOrAny};
use crate::config::schema::Config;
use crate::config::tables::PolicyTables;

/// Adds every fault that is found in a `[headers]` table alone.
pub(super) fn headers(at: &str, headers: &Headers, faults: &mut Faults) {
    let mut add = |key: &str, detail: &str| faults.add(format!("{at}headers/{key}"), detail);
    if headers.request_add.0.iter().any(|(name, _)| name.0 == header::HOST) {
        add("request_add", "a request has one Host, so it cannot be added; use request_set");
    }
    let defaults = Headers::default().response_remove;
    for (key, removed, set, by_default) in [
        ("request_remove", &headers.request_remove, &headers.request_set, &[][..]),
        ("response_remove", &headers.response_remove, &headers.response_set, &defaults[..]),
    ] {
        let is_set = |name: &&FieldName| set.0.iter().any(|(set, _)| set == *name);
        let both = removed.iter().filter(is_set).find(|name| !by_default.contains(name));
        if let Some(FieldName(name)) = both {
            add(key, &format!("{name} is both set and removed; remove one of the two rules"));
        }
    }
}

/// Adds a fault for each `[headers]` rule that changes a field which the `auth` or `cors` table of the same level
/// sets.
pub(super) fn beside(at: &str, tables: &PolicyTables<'_>, faults: &mut Faults) {
    let Some(headers) = tables.headers else { return };
    let mut add = |key: &str, detail: &str| faults.add(format!("{at}headers/{key}"), detail);
    who_asks(headers, tables.auth, &mut add);
    let said = [("response_set", &headers.response_set), ("response_add", &headers.response_add)];
    for (key, fields) in said {
        let is_of_cors = |name: &HeaderName| name.as_str().starts_with("access-control-");
        if tables.cors.is_some() && fields.0.iter().any(|(name, _)| is_of_cors(&name.0)) {
            add(key, "beside a `cors` table, no rule can set Access-Control-… fields; remove one of the two");
        }
    }
}

/// Adds a fault for each rule that changes a field in which `auth` tells the backend about the user.
fn who_asks<'c>(headers: &'c Headers, auth: Option<&Auth>, add: &mut impl FnMut(&str, &str)) {
    let told: Vec<_> = auth.iter().flat_map(|auth| auth.identity_headers()).collect();
    let names = |fields: &'c Fields| fields.0.iter().map(|(name, _)| &name.0).collect::<Vec<_>>();
    for (key, names) in [
        ("request_set", names(&headers.request_set)),
        ("request_add", names(&headers.request_add)),
        ("request_remove", headers.request_remove.iter().map(|name| &name.0).collect()),
    ] {
        let is_told = |name: &HeaderName| {
            told.iter().any(|told| normalized_name(told.as_str()) == normalized_name(name.as_str()))
        };
        if let Some(name) = names.into_iter().find(|name| is_told(name)) {
            add(
                key,
                &format!(
                    "{name} is set by the `auth` table, to tell the backend who the user is; remove this rule"
                ),
            );
        }
    }
}

/// Adds every fault of a `[cors]` table.
pub(super) fn cors(at: &str, cors: &Cors, faults: &mut Faults) {
    for (i, method) in cors.allow_methods.iter().enumerate() {
        // Browsers never send these methods for a page (fetch, 2.2.1), and the gateway refuses them.
        if [Method::CONNECT, Method::TRACE].contains(&method.0) || method.0.as_str() == "TRACK" {
            let detail = format!("no browser sends {} for a page; remove it", method.0);
            faults.add(format!("{at}cors/allow_methods/{i}"), detail);
        }
    }
    for (i, origin) in cors.allow_origins.iter().enumerate() {
        if cors.allow_origins[..i].contains(origin) {
            faults.add(format!("{at}cors/allow_origins/{i}"), "this origin is listed twice");
        }
    }
    let mut add = |key: &str, detail: &str| faults.add(format!("{at}cors/{key}"), detail);
    let is_cookie =
        |field: &FieldOrAny| matches!(field, FieldOrAny::Field(name) if name == header::SET_COOKIE);
    if cors.expose_headers.iter().any(is_cookie) {
        add("expose_headers", "no browser shows Set-Cookie to a script (fetch, 2.2.2); remove it");
    }
    stars(cors, &mut add);
}

/// Adds a fault if "*" is combined with credentials, or with other values, which then have no effect.
fn stars(cors: &Cors, add: &mut impl FnMut(&str, &str)) {
    // Browsers do not include `Authorization` in "*" (fetch, 3.2.4).
    let is_else = |field: &&FieldOrAny| {
        !matches!(field, FieldOrAny::Any) && **field != FieldOrAny::Field(header::AUTHORIZATION)
    };
    let others = |fields: &[FieldOrAny]| fields.iter().filter(is_else).count();
    let any = FieldOrAny::Any;
    for (key, has_any, others) in [
        (
            "allow_origins",
            cors.allow_origins.contains(&AllowedOrigin::Any),
            cors.allow_origins.len().saturating_sub(1),
        ),
        (
            "allow_methods",
            cors.allow_methods.iter().any(|method| method.0.as_str() == "*"),
            cors.allow_methods.len().saturating_sub(1),
        ),
        ("allow_headers", cors.allow_headers.contains(&any), others(&cors.allow_headers)),
        ("expose_headers", cors.expose_headers.contains(&any), others(&cors.expose_headers)),
    ] {
        if has_any && cors.allow_credentials {
            // With credentials, browsers read "*" as a literal value (fetch, 3.2.4). If they read it as "every
            // origin", every site could act for the user.
            add(key, "\"*\" cannot be combined with `allow_credentials`; list the allowed values");
        } else if has_any && others > 0 {
            add(key, "\"*\" includes all the others; remove either \"*\" or the others");
        }
    }
}

/// Adds every fault of a `[compression]` table.
pub(super) fn compression(at: &str, compression: &Compression, faults: &mut Faults) {
    let twice = |i: usize| compression.algorithms[..i].contains(&compression.algorithms[i]);
    if (0..compression.algorithms.len()).any(twice) {
        faults.add(format!("{at}compression/algorithms"), "an algorithm is listed twice");
    }
    for (i, types) in compression.types.iter().enumerate() {
        if types.is_one() && ["text/event-stream", "application/grpc"].iter().any(|kind| types.contains(kind))
        {
            let detail =
                "it is never compressed, because each message must reach the client at once; remove it";
            faults.add(format!("{at}compression/types/{i}"), detail);
        }
    }
}

/// Adds a fault for each missing value in `[cors]` and `[compression]`. This is only checked if all tables could be
/// read, because an unreadable value is not missing.
pub(super) fn incomplete(config: &Config, faults: &mut Faults) {
    for (at, tables) in config.levels() {
        let mut add = |key: &str, detail: &str| faults.add(format!("{at}{key}"), detail);
        if tables.cors.is_some_and(|cors| cors.allow_origins.is_empty()) {
            let detail = "it needs an origin, as in \"https://app.example.com\"; or remove the table";
            add("cors/allow_origins", detail);
        }
        if tables.compression.is_some_and(|compression| compression.algorithms.is_empty()) {
            add("compression/algorithms", "it needs at least one algorithm; or remove the table");
        }
        if tables.compression.is_some_and(|compression| compression.types.is_empty()) {
            add(
                "compression/types",
                "without types, nothing is compressed; remove either this key or the table",
            );
        }
    }
}
