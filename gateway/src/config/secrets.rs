//! What is secret in a configuration: shown as `***`, and `***` in a change stands for what is there.

use serde_json::Value;

use super::rewrite::identity;

/// What is shown in place of a secret.
const HIDDEN: &str = "***";

/// Tables of header fields, whose values may be credentials.
const FIELD_TABLES: [&str; 5] =
    ["request_set", "request_add", "response_set", "response_add", "header_match"];

/// Whether the field of this name may hold a credential.
fn is_secret(field: &str) -> bool {
    const WORDS: [&str; 6] = ["auth", "cookie", "key", "token", "secret", "password"];
    let field = field.to_ascii_lowercase();
    WORDS.iter().any(|word| field.contains(word))
}

/// Puts `***` in the place of every secret.
pub fn hide_secrets(json: &mut Value) {
    walk(json, &mut |value| *value = Value::from(HIDDEN));
}

/// Puts what `old` holds in the place of every `***`.
pub fn reveal_secrets(new: &mut Value, old: &Value) {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            for (key, new) in new {
                let found = old.iter().find(|(known, _)| known.eq_ignore_ascii_case(key));
                match found {
                    Some((_, old)) if new == HIDDEN => new.clone_from(old),
                    Some((_, old)) => reveal_secrets(new, old),
                    None => {}
                }
            }
        }
        (Value::Array(new), Value::Array(old)) => {
            for new in new {
                let name = identity(new);
                if let Some(old) = old.iter().find(|old| identity(old) == name) {
                    reveal_secrets(new, old);
                }
            }
        }
        _ => {}
    }
}

fn walk(json: &mut Value, hide: &mut impl FnMut(&mut Value)) {
    match json {
        Value::Object(table) => {
            for (key, value) in table {
                match value {
                    Value::Object(fields) if FIELD_TABLES.contains(&key.as_str()) => {
                        fields
                            .iter_mut()
                            .filter(|(name, _)| is_secret(name))
                            .for_each(|(_, value)| hide(value));
                    }
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
    fn credentials_are_hidden_and_come_back() {
        let old = json!({
            "headers": { "request_set": { "authorization": "Bearer x", "x-proxy": "gateway" } },
            "virtual_hosts": [
                { "domain": "a", "headers": { "response_set": { "x-api-key": "1" } } },
                { "domain": "b", "headers": { "response_set": { "x-api-key": "2" } } },
            ],
        });
        let mut shown = old.clone();
        hide_secrets(&mut shown);
        assert_eq!(shown["headers"]["request_set"], json!({ "authorization": "***", "x-proxy": "gateway" }));
        assert_eq!(shown["virtual_hosts"][1]["headers"]["response_set"]["x-api-key"], "***");
        shown["virtual_hosts"].as_array_mut().unwrap().remove(0);
        reveal_secrets(&mut shown, &old);
        assert_eq!(shown["headers"], old["headers"]);
        assert_eq!(shown["virtual_hosts"][0], old["virtual_hosts"][1]);
    }
}
