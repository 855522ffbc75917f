//! Secrets in a configuration. A secret is shown as `***`; `***` in a change means that the existing secret is kept.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::elements::matches;

/// Text that is shown in place of a secret.
const HIDDEN: &str = "***";

/// Returns true if the table at `key` consists of header fields, whose values may be credentials.
///
/// Returns false for `header_match`: its values are part of the route's name, so they must not be secrets anyway.
pub(super) fn is_of_fields(key: &str, table: &Map<String, Value>) -> bool {
    match key {
        "request_set" | "request_add" | "response_set" | "response_add" => true,
        // In a test, `headers` consists of header fields. Elsewhere, it is the policy that contains these tables.
        "headers" => table.values().all(Value::is_string),
        _ => false,
    }
}

/// Keys with a URL whose query may contain a secret.
const URLS: [&str; 2] = ["url", "jwks_url"];

/// Returns `url` with `***` in place of its possible secrets: the query, and the user information before the host.
pub fn shown_url(url: &str) -> Cow<'_, str> {
    let shown = match url.split_once('?') {
        Some((url, _)) => Cow::Owned(format!("{url}?{HIDDEN}")),
        None => Cow::Borrowed(url),
    };
    let (scheme, rest) = shown.split_once("://").unwrap_or(("", &shown));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((user, _)) => Cow::Owned(format!("{scheme}://{HIDDEN}{}", &rest[user.len()..])),
        None => shown,
    }
}

fn is_url(key: &str) -> bool {
    URLS.contains(&key)
}

/// Returns true if the header field with this name may contain a credential.
pub fn is_secret(field: &str) -> bool {
    const WORDS: [&str; 11] =
        ["auth", "bearer", "cookie", "credential", "key", "pass", "pwd", "secret", "session", "sig", "token"];
    let field = field.to_ascii_lowercase();
    WORDS.iter().any(|word| field.contains(word))
}

/// Replaces every secret in `json` with `***`.
pub fn hide_secrets(json: &mut Value) {
    walk(json, &mut |value| *value = Value::from(HIDDEN));
}

/// Replaces every `***` in `new` with the existing secret from `old`.
pub fn reveal_secrets(new: &mut Value, old: &Value) {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            for (key, new) in new {
                let found = old.iter().find(|(known, _)| known.eq_ignore_ascii_case(key));
                match found {
                    Some((_, old)) if new == HIDDEN => new.clone_from(old),
                    Some((_, Value::String(old))) if is_url(key) && *new == *shown_url(old) => {
                        *new = Value::from(old.as_str());
                    }
                    Some((_, old)) => reveal_secrets(new, old),
                    None => {}
                }
            }
        }
        (Value::Array(new), Value::Array(old)) => {
            let was = matches(old, new);
            for (new, was) in new.iter_mut().zip(was) {
                if let Some(old) = was.and_then(|was| old.get(was)) {
                    reveal_secrets(new, old);
                }
            }
        }
        _ => {}
    }
}

/// Returns the JSON pointer of a `***` for which there was no existing secret; `None` if there is no such `***`.
pub(super) fn unrevealed(json: &Value, at: &str) -> Option<String> {
    let inside = |at: String, value: &Value| unrevealed(value, &at);
    match json {
        Value::Object(table) => table.iter().find_map(|(key, value)| match value {
            Value::Object(fields) if is_of_fields(key, fields) => {
                let hidden = fields.iter().find(|(name, value)| is_secret(name) && *value == HIDDEN);
                hidden.map(|(name, _)| format!("{at}/{key}/{name}"))
            }
            Value::String(url) if is_url(key) && url.contains(HIDDEN) => Some(format!("{at}/{key}")),
            value => inside(format!("{at}/{key}"), value),
        }),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(i, value)| inside(format!("{at}/{i}"), value))
        }
        _ => None,
    }
}

fn walk(json: &mut Value, hide: &mut impl FnMut(&mut Value)) {
    match json {
        Value::Object(table) => {
            for (key, value) in table {
                match value {
                    Value::Object(fields) if is_of_fields(key, fields) => {
                        fields
                            .iter_mut()
                            .filter(|(name, _)| is_secret(name))
                            .for_each(|(_, value)| hide(value));
                    }
                    Value::String(url) if is_url(key) => *url = shown_url(url).into_owned(),
                    other => walk(other, hide),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| walk(item, hide)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reordered_routes_keep_their_own_secrets() {
        let route = |kind: &str, token: &str| json!({ kind: "/x", "headers": { "request_set": { "x-token": token } } });
        let old = json!({ "routes": [route("path", "one"), route("path_prefix", "two")] });
        let mut shown = old.clone();
        hide_secrets(&mut shown);
        shown["routes"].as_array_mut().unwrap().reverse();
        reveal_secrets(&mut shown, &old);
        assert_eq!(shown, json!({ "routes": [route("path_prefix", "two"), route("path", "one")] }));
    }

    #[test]
    fn url_queries_are_hidden_and_restored() {
        for (url, shown) in [
            ("https://a.example/keys", "https://a.example/keys"),
            ("https://a.example/keys?code=s3cret&x=?", "https://a.example/keys?***"),
            ("https://a.example?s3cret", "https://a.example?***"),
            ("https://u:s3cret@a.example/x@y", "https://***@a.example/x@y"),
            ("https://u:s3cret@a.example?s3cret@x", "https://***@a.example?***"),
            ("s3cret@a", "://***@a"),
        ] {
            assert_eq!(shown_url(url), shown);
        }
        let url = "https://a.example/check?code=s3cret";
        let old = json!({ "auth": { "url": url, "jwks_url": url, "users_file": "users?x" } });
        let mut shown = old.clone();
        hide_secrets(&mut shown);
        assert!(!shown.to_string().contains("s3cret") && shown.to_string().contains("users?x"), "{shown}");
        assert_eq!(unrevealed(&shown, "").as_deref(), Some("/auth/url"));
        let mut back = shown.clone();
        reveal_secrets(&mut back, &old);
        assert_eq!(back, old);
        assert_eq!(unrevealed(&back, ""), None);
        // Another server has no existing secret.
        shown["auth"]["url"] = json!("https://b.example/check?***");
        reveal_secrets(&mut shown, &old);
        assert_eq!(unrevealed(&shown, "").as_deref(), Some("/auth/url"));
    }

    #[test]
    fn credentials_are_hidden_and_restored() {
        let old = json!({
            "headers": { "request_set": { "authorization": "Bearer x", "x-proxy": "gateway" } },
            "tests": [{ "request": "GET http://a/", "headers": { "cookie": "session=x", "x-a": "b" } }],
            "virtual_hosts": [
                { "domain": "a", "headers": { "response_set": { "x-api-key": "1" } } },
                { "domain": "b", "headers": { "response_set": { "x-api-key": "2" } } },
            ],
        });
        let mut shown = old.clone();
        hide_secrets(&mut shown);
        assert_eq!(shown["headers"]["request_set"], json!({ "authorization": "***", "x-proxy": "gateway" }));
        assert_eq!(shown["virtual_hosts"][1]["headers"]["response_set"]["x-api-key"], "***");
        assert_eq!(shown["tests"][0]["headers"], json!({ "cookie": "***", "x-a": "b" }));
        shown["virtual_hosts"].as_array_mut().unwrap().remove(0);
        reveal_secrets(&mut shown, &old);
        assert_eq!((&shown["headers"], &shown["tests"]), (&old["headers"], &old["tests"]));
        assert_eq!(shown["virtual_hosts"][0], old["virtual_hosts"][1]);
        assert_eq!(unrevealed(&shown, ""), None);

        shown["virtual_hosts"][0]["domain"] = json!("c");
        hide_secrets(&mut shown);
        reveal_secrets(&mut shown, &old);
        let at = "/virtual_hosts/0/headers/response_set/x-api-key";
        assert_eq!(unrevealed(&shown, "").as_deref(), Some(at), "the old value is unknown");
    }
}
