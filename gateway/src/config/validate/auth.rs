//! Validation of `[auth]`: a table has every key that its kind needs, and no key that only other kinds use.

use std::net::IpAddr;

use http::Uri;

use super::Faults;
use super::identity_fields::identity_fields;
use crate::config::auth::{Auth, AuthKind};

/// Maximum for `leeway_secs`, the tolerated clock difference (RFC 7519 4.1.4: "no more than a few minutes").
const MAX_LEEWAY_SECS: u16 = 300;
/// Maximum for `timeout_ms`, the time for the auth server's response.
const MAX_TIMEOUT_MS: u64 = 60_000;

/// Adds every fault of an `[auth]` table; `at` is the path of the level, such as "virtual_hosts/0/".
pub(super) fn auth(at: &str, auth: &Auth, faults: &mut Faults) {
    let at = format!("{at}auth");
    foreign_keys(&at, auth, faults);
    let mut add = |key: &str, detail: &str| {
        let path = if key.is_empty() { at.clone() } else { format!("{at}/{key}") };
        faults.add(path, detail);
    };
    if auth.realm.is_empty() || auth.realm.len() > 128 || !auth.realm.bytes().all(|b| matches!(b, 32..=126)) {
        add("realm", "not a valid realm; expected 1 to 128 printable ASCII characters");
    }
    match auth.kind {
        AuthKind::None => {}
        AuthKind::Basic if auth.users_file.is_empty() => {
            add("", "kind = \"basic\" needs `users_file`; create it with `htpasswd -cB FILE NAME`");
        }
        AuthKind::ApiKey if auth.keys_file.is_empty() => {
            add("", "kind = \"api_key\" needs `keys_file`, with lines `name:SHA-256 of the key`");
        }
        AuthKind::Basic | AuthKind::ApiKey => {}
        AuthKind::Jwt => jwt(auth, &mut add),
        AuthKind::Forward => forward(auth, &mut add),
    }
    identity_fields(auth, &mut add);
}

/// Adds a fault for each key that has no effect with this kind, because the operator most likely expects an effect.
fn foreign_keys(at: &str, auth: &Auth, faults: &mut Faults) {
    use AuthKind::{ApiKey, Basic, Forward, Jwt};
    let keys: [(&str, bool, &[AuthKind]); 20] = [
        ("realm", auth.realm != Auth::default().realm, &[Basic, Jwt, ApiKey]),
        ("pass_credentials", auth.pass_credentials, &[Basic, Jwt, ApiKey]),
        ("user_header", auth.user_header.is_some(), &[Basic, ApiKey]),
        ("users_file", !auth.users_file.is_empty(), &[Basic]),
        ("header", auth.header.is_some(), &[ApiKey]),
        ("keys_file", !auth.keys_file.is_empty(), &[ApiKey]),
        ("jwks_url", !auth.jwks_url.is_empty(), &[Jwt]),
        ("jwks_refresh_secs", auth.jwks_refresh_secs.is_some(), &[Jwt]),
        ("public_key_file", !auth.public_key_file.is_empty(), &[Jwt]),
        ("secret_env", !auth.secret_env.is_empty(), &[Jwt]),
        ("secret_file", !auth.secret_file.is_empty(), &[Jwt]),
        ("algorithms", !auth.algorithms.is_empty(), &[Jwt]),
        ("issuer", !auth.issuer.0.is_empty(), &[Jwt]),
        ("audience", !auth.audience.0.is_empty(), &[Jwt]),
        ("leeway_secs", auth.leeway_secs.is_some(), &[Jwt]),
        ("forward_claims", !auth.forward_claims.is_empty(), &[Jwt]),
        ("require", !auth.require.is_empty(), &[Jwt]),
        ("url", !auth.url.is_empty(), &[Forward]),
        ("response_headers", !auth.response_headers.is_empty(), &[Forward]),
        ("timeout_ms", auth.timeout_ms.is_some(), &[Forward]),
    ];
    for (key, is_there, kinds) in keys {
        if is_there && !kinds.contains(&auth.kind) {
            let detail = format!("it has no effect with kind = \"{}\"", auth.kind.name());
            faults.add(format!("{at}/{key}"), detail);
        }
    }
    let https = [&auth.jwks_url, &auth.url].iter().any(|url| url.to_ascii_lowercase().starts_with("https:"));
    if !auth.ca_file.is_empty() && !https {
        faults.add(format!("{at}/ca_file"), "it has no effect without an https URL");
    }
}

fn jwt(auth: &Auth, add: &mut impl FnMut(&str, &str)) {
    let sources = [&auth.jwks_url, &auth.public_key_file, &auth.secret_env, &auth.secret_file];
    if sources.iter().filter(|source| !source.is_empty()).count() != 1 {
        add(
            "",
            "kind = \"jwt\" needs exactly one source of keys: `jwks_url`, `public_key_file`, `secret_env` \
             or `secret_file`",
        );
    }
    if !auth.jwks_url.is_empty() {
        match url(&auth.jwks_url) {
            Err(detail) => add("jwks_url", &detail),
            // Without TLS, an attacker could replace the keys in transit and then sign any token.
            Ok(url) if url.scheme_str() == Some("http") && !is_this_machine(&url) => {
                add("jwks_url", "keys must be fetched over https; http is allowed for this machine only");
            }
            Ok(_) => {}
        }
    } else if auth.jwks_refresh_secs.is_some() {
        add("jwks_refresh_secs", "it has no effect without `jwks_url`");
    }
    let is_secret = !auth.secret_env.is_empty() || !auth.secret_file.is_empty();
    for (i, algorithm) in auth.algorithms.iter().enumerate() {
        if algorithm.is_symmetric() && !is_secret {
            // Every attacker knows the public key, so it must not be used as a secret (RFC 8725 2.1).
            add(
                &format!("algorithms/{i}"),
                &format!("{algorithm:?} needs a secret, but the configured keys are public"),
            );
        } else if !algorithm.is_symmetric() && is_secret {
            add(
                &format!("algorithms/{i}"),
                &format!("{algorithm:?} needs public keys, but a secret is configured"),
            );
        }
    }
    if auth.leeway_secs.is_some_and(|secs| secs > MAX_LEEWAY_SECS) {
        add("leeway_secs", &format!("at most {MAX_LEEWAY_SECS} seconds"));
    }
    for (key, names) in [("issuer", &auth.issuer), ("audience", &auth.audience)] {
        if names.0.iter().any(String::is_empty) {
            add(key, "an empty name matches no token; remove it");
        }
    }
    for (claim, values) in &auth.require {
        if claim.is_empty() || values.0.is_empty() || values.0.iter().any(String::is_empty) {
            add(
                &format!("require/{claim}"),
                "expected a value, or an array of values of which one is enough",
            );
        } else if claim == "scope" && values.0.iter().any(|value| value.contains(char::is_whitespace)) {
            // The claim `scope` is a list of words (RFC 6749 3.3). Each word is compared separately, so a value with a
            // space never matches.
            let detail =
                "a scope is one word without white space; to accept any of several scopes, write an array";
            add(&format!("require/{claim}"), detail);
        }
    }
}

fn forward(auth: &Auth, add: &mut impl FnMut(&str, &str)) {
    if auth.url.is_empty() {
        add("", "kind = \"forward\" needs `url`, the URL of the auth server");
    } else if let Err(detail) = url(&auth.url) {
        add("url", &detail);
    }
    if auth.timeout_ms.is_some_and(|time| time.duration().as_millis() > u128::from(MAX_TIMEOUT_MS)) {
        add("timeout_ms", &format!("at most {MAX_TIMEOUT_MS} milliseconds"));
    }
}

/// Parses a URL with scheme http or https, a host, and no credentials.
fn url(text: &str) -> Result<Uri, String> {
    let wrong = |what: &str| format!("{what}; expected something like \"https://login.example.com/keys\"");
    // The error does not quote the URL, because the URL may contain a secret.
    let url: Uri = text.parse().map_err(|_| wrong("it is not a valid URL"))?;
    let authority = url.authority().ok_or_else(|| wrong("there is no host"))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(wrong("it is neither https nor http"));
    }
    if authority.as_str().contains('@') {
        // The error does not quote the credentials, because they are secret.
        return Err(wrong("it contains credentials, which are not allowed in a URL"));
    }
    Ok(url)
}

fn is_this_machine(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(toml: &str) -> Vec<String> {
        let table: Auth = toml::from_str(toml).unwrap();
        let mut faults = Faults::default();
        auth("", &table, &mut faults);
        faults.0.into_iter().map(|fault| format!("{}: {}", fault.path, fault.detail)).collect()
    }

    #[test]
    fn auth_kind_needs_its_own_keys_and_refuses_others() {
        for good in [
            "kind = \"none\"",
            "users_file = \"u\"",
            "kind = \"api_key\"\nkeys_file = \"k\"\nheader = \"X-Key\"\nuser_header = \"X-User\"",
            "kind = \"jwt\"\njwks_url = \"https://a.example/keys\"\nalgorithms = [\"RS256\", \"EdDSA\"]",
            "kind = \"jwt\"\njwks_url = \"http://127.0.0.1:9/keys\"",
            "kind = \"jwt\"\njwks_url = \"http://[::1]:9/keys\"",
            "kind = \"jwt\"\nsecret_env = \"S\"\nalgorithms = [\"HS256\"]",
            "kind = \"forward\"\nurl = \"http://auth.internal/check\"\nresponse_headers = [\"X-Forwarded-User\"]",
        ] {
            assert_eq!(faults(good), Vec::<String>::new(), "{good}");
        }
        for (bad, said) in [
            ("", "auth: kind = \"basic\" needs `users_file`"),
            ("kind = \"api_key\"", "needs `keys_file`"),
            ("users_file = \"u\"\nissuer = \"i\"", "auth/issuer: it has no effect with kind = \"basic\""),
            ("kind = \"none\"\nusers_file = \"u\"", "auth/users_file: it has no effect with kind = \"none\""),
            ("users_file = \"u\"\nrealm = \"a\\nb\"", "auth/realm: not a valid realm"),
            ("kind = \"jwt\"", "auth: kind = \"jwt\" needs exactly one source of keys"),
            (
                "kind = \"jwt\"\nsecret_env = \"S\"\npublic_key_file = \"p\"",
                "needs exactly one source of keys",
            ),
            (
                "kind = \"jwt\"\njwks_url = \"http://a.example/keys\"",
                "auth/jwks_url: keys must be fetched over https",
            ),
            ("kind = \"jwt\"\njwks_url = \"http://127.0.0.1.a.example/\"", "keys must be fetched over https"),
            (
                "kind = \"jwt\"\njwks_url = \"https://u:p@a.example/\"",
                "auth/jwks_url: it contains credentials",
            ),
            ("kind = \"jwt\"\njwks_url = \"/keys\"", "auth/jwks_url: there is no host"),
            (
                "kind = \"jwt\"\npublic_key_file = \"p\"\nalgorithms = [\"HS256\"]",
                "auth/algorithms/0: HS256 needs a secret",
            ),
            (
                "kind = \"jwt\"\nsecret_env = \"S\"\nalgorithms = [\"HS256\", \"RS256\"]",
                "auth/algorithms/1: RS256",
            ),
            ("kind = \"jwt\"\nsecret_env = \"S\"\nleeway_secs = 301", "auth/leeway_secs: at most 300"),
            (
                "kind = \"jwt\"\nsecret_env = \"S\"\nrequire = { role = [] }",
                "auth/require/role: expected a value",
            ),
            (
                "kind = \"jwt\"\nsecret_env = \"S\"\nforward_claims = { sub = \"Host\" }",
                "the field host has another meaning",
            ),
            (
                "kind = \"jwt\"\nsecret_env = \"S\"\nforward_claims = { sub = \"X-A\", iss = \"x-a\" }",
                "the field x-a is used twice",
            ),
            (
                "kind = \"jwt\"\nsecret_env = \"S\"\nforward_claims = { sub = \"X-A\", iss = \"x_a\" }",
                "the field x-a is used twice",
            ),
            (
                "kind = \"jwt\"\nsecret_env = \"S\"\nrequire = { scope = \"read write\" }",
                "auth/require/scope: a scope is one word",
            ),
            (
                "kind = \"api_key\"\nkeys_file = \"k\"\nheader = \"Content-Type\"",
                "auth/header: this field has",
            ),
            (
                "kind = \"forward\"\nurl = \"https://a b/?k=s3cret\"",
                "auth/url: it is not a valid URL; expected",
            ),
            (
                "kind = \"api_key\"\nkeys_file = \"k\"\nuser_header = \"X-Api-Key\"",
                "auth/user_header: clients send their keys in x-api-key",
            ),
            (
                "users_file = \"u\"\nuser_header = \"Content-Type\"",
                "the field content-type has another meaning",
            ),
            (
                "kind = \"forward\"\nurl = \"http://a/\"\nresponse_headers = [\"Set-Cookie\"]",
                "auth/response_headers: cookies of the auth server go to the client",
            ),
            ("kind = \"none\"\nrealm = \"r\"", "auth/realm: it has no effect with kind = \"none\""),
            ("kind = \"forward\"", "auth: kind = \"forward\" needs `url`"),
            ("kind = \"forward\"\nurl = \"ftp://a/\"", "auth/url: it is neither https nor http"),
            ("kind = \"forward\"\nurl = \"http://a/\"\nca_file = \"c\"", "auth/ca_file: it has no effect"),
        ] {
            let found = faults(bad);
            assert!(!found.concat().contains("s3cret"), "{found:?}");
            assert!(found.len() == 1 && found[0].contains(said), "{bad}\n-- says {found:?}\n-- not {said}");
        }
        for words in ["[\"read\", \"write\"]", "\"read\""] {
            let table = format!(
                "kind = \"jwt\"\nsecret_env = \"S\"\nrequire = {{ scope = {words}, role = \"a b\" }}"
            );
            assert_eq!(faults(&table), Vec::<String>::new());
        }
        assert!(toml::from_str::<Auth>("kind = \"jwt\"\nalgorithms = [\"none\"]").is_err());
    }
}
