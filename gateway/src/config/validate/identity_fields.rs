//! Validation of the request fields in which backends are told about the user, and of the field with an API key. Such
//! a field must not already have another meaning.

use std::collections::HashSet;

use http::{HeaderName, header};

use crate::config::auth::{Auth, AuthKind};
use crate::config::normalized_name;

/// Adds every fault of the request fields that `auth` names. `add` is called with a key of `[auth]` and the fault.
pub(super) fn identity_fields(auth: &Auth, add: &mut impl FnMut(&str, &str)) {
    let mut seen = HashSet::new();
    for name in auth.identity_headers() {
        if *name == header::SET_COOKIE && auth.kind == AuthKind::Forward {
            let detail = "cookies of the auth server go to the client anyway; remove Set-Cookie, because \
                          these fields go to the backend";
            add("response_headers", detail);
        } else if is_taken(name) {
            add(
                "",
                &format!(
                    "the field {name} has another meaning and cannot carry the user; use another one, \
                          such as X-User"
                ),
            );
        } else if !seen.insert(normalized_name(name.as_str())) {
            add("", &format!("the field {name} is used twice"));
        }
    }
    let key_header = auth.key_header();
    if auth.kind == AuthKind::ApiKey && auth.identity_headers().any(|told| *told == key_header) {
        add(
            "user_header",
            &format!("clients send their keys in {key_header}; use another field for the user"),
        );
    }
    if auth.header.as_ref().is_some_and(|name| is_taken(&name.0)) {
        add("header", "this field has another meaning; use another one, such as X-Api-Key");
    }
}

/// Returns true if a field already has a meaning for HTTP, for the gateway or for many backends. Such a field
/// describes the request (its method, path or body), the wanted response, the browser, or proxies that forwarded the
/// request.
fn is_taken(name: &HeaderName) -> bool {
    const BEGINNINGS: [&str; 13] = [
        "accept-",
        "client-cert",
        "x-client-cert",
        "access-control-",
        "content-",
        "grpc-",
        "if-",
        "proxy-",
        "sec-",
        "x-accel-",
        "x-http-",
        "x-original-",
        "x-sendfile",
    ];
    let name = normalized_name(name.as_str());
    match &*name {
        "host" | "expect" | "via" | "max-forwards" | "date" | "forwarded" | "early-data" | "priority" => true,
        "accept" | "range" | "cache-control" | "pragma" | "prefer" | "last-event-id" => true,
        "authorization" | "cookie" | "set-cookie" | "origin" | "referer" | "user-agent" => true,
        "connection" | "upgrade" | "te" | "trailer" | "transfer-encoding" | "keep-alive" => true,
        "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-port" | "x-forwarded-prefix" => true,
        "x-forwarded-proto" | "x-forwarded-scheme" | "x-forwarded-uri" | "x-forwarded-method" => true,
        "x-real-ip" | "x-request-id" | "x-method-override" | "x-rewrite-url" | "traceparent"
        | "tracestate" => true,
        name => BEGINNINGS.iter().any(|beginning| name.starts_with(beginning)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(name: &str) -> Vec<String> {
        let auth = toml::from_str(&format!("users_file = \"u\"\nuser_header = \"{name}\"")).unwrap();
        let mut faults = Vec::new();
        identity_fields(&auth, &mut |_, detail| faults.push(detail.to_owned()));
        faults
    }

    #[test]
    fn identity_field_with_another_meaning_is_refused() {
        for name in [
            "Host",
            "Content-Type",
            "content_encoding",
            "Expect",
            "Range",
            "If-None-Match",
            "Via",
            "Origin",
            "Accept",
            "Accept-Encoding",
            "Cookie",
            "Authorization",
            "Proxy-Authorization",
            "Cache-Control",
            "Sec-Fetch-Site",
            "X-HTTP-Method-Override",
            "X_Original_URL",
            "X-Forwarded-For",
            "X-Forwarded-Uri",
            "Traceparent",
            "Client-Cert",
            "Grpc-Timeout",
        ] {
            let found = faults(name);
            assert!(found.len() == 1 && found[0].contains("has another meaning"), "{name}: {found:?}");
        }
        for name in ["X-User", "X_User", "X-Forwarded-User", "Remote-User", "From", "X-Accept", "Contents"] {
            assert_eq!(faults(name), Vec::<String>::new());
        }
    }
}
