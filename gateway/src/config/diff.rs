//! Difference between two configurations, as lines of text for operators.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::elements::{identity, matches};
use super::schema::Config;
use super::secrets::{hide_secrets, is_of_fields, is_secret};

/// Returns a line for each item that `new` adds (`+`), removes (`-`) or changes (`~`) in comparison with `old`.
pub fn difference(old: &Config, new: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    if let (Value::Object(old), Value::Object(new)) = (old.to_json(), new.to_json()) {
        tables("", &old, &new, &mut lines);
    }
    lines
}

fn tables(at: &str, old: &Map<String, Value>, new: &Map<String, Value>, lines: &mut Vec<String>) {
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    let of_fields = is_of_fields(at.rsplit(' ').next().unwrap_or_default(), new);
    let shown = |key: &str, value: &Value| shown(of_fields, key, value);
    for key in new.keys().chain(gone) {
        let name = join(at, key);
        match (old.get(key), new.get(key)) {
            (old, new) if old == new => {}
            (Some(Value::Object(old)), Some(Value::Object(new))) => tables(&name, old, new, lines),
            (old, new) if is_list(old) || is_list(new) => lists(&join(at, one(key)), old, new, lines),
            (None, Some(new)) => lines.push(format!("+ {name} = {}", shown(key, new))),
            (Some(_), None) => lines.push(format!("- {name}")),
            (Some(old), Some(new)) => {
                lines.push(format!("~ {name}: {} -> {}", shown(key, old), shown(key, new)));
            }
            (None, None) => {}
        }
    }
}

/// Returns the value of `key` as text, with `***` in place of its secrets.
fn shown(of_fields: bool, key: &str, value: &Value) -> String {
    if of_fields && is_secret(key) {
        return "***".to_owned();
    }
    let mut table = Map::from_iter([(key.to_owned(), value.clone())]);
    table = hidden(Value::Object(table)).as_object().cloned().unwrap_or_default();
    table.get(key).map(Value::to_string).unwrap_or_default()
}

fn hidden(mut value: Value) -> Value {
    hide_secrets(&mut value);
    value
}

/// Returns true if `value` is an array with at least one table.
fn is_list(value: Option<&Value>) -> bool {
    value.and_then(Value::as_array).is_some_and(|items| items.iter().any(Value::is_object))
}

fn lists(kind: &str, old: Option<&Value>, new: Option<&Value>, lines: &mut Vec<String>) {
    let items = |value: Option<&Value>| match value {
        Some(Value::Array(items)) => items.clone(),
        // Some keys allow a single table in place of an array of tables.
        Some(one @ Value::Object(_)) => vec![one.clone()],
        _ => Vec::new(),
    };
    let (old, new) = (items(old), items(new));
    let named = |item: &Value| format!("{kind} {}", name(item));
    let was = matches(&old, &new);
    for (item, was) in new.iter().zip(&was) {
        match (was.and_then(|was| old.get(was)), item) {
            (Some(Value::Object(old)), Value::Object(new)) => tables(&named(item), old, new, lines),
            _ => lines.push(format!("+ {} {}", named(item), hidden(item.clone()))),
        }
    }
    let kept: HashSet<usize> = was.into_iter().flatten().collect();
    for (_, item) in old.iter().enumerate().filter(|(index, _)| !kept.contains(index)) {
        lines.push(format!("- {}", named(item)));
    }
}

fn name(item: &Value) -> String {
    let route = ["path", "path_prefix", "path_regex"].iter().find_map(|key| item.get(key)?.as_str());
    let method = |method: &Value| method.as_str().map(str::to_owned);
    let methods = item.get("methods").and_then(Value::as_array);
    let methods = methods.map(|methods| methods.iter().filter_map(method).collect::<Vec<_>>().join(","));
    match (route, methods) {
        (Some(route), Some(methods)) => format!("{route} {methods}"),
        (Some(route), None) => route.to_owned(),
        (None, _) => identity(item),
    }
}

/// Returns the name of a single item of the array `key`: "virtual host" for `virtual_hosts`.
fn one(key: &str) -> &str {
    match key {
        "virtual_hosts" => "virtual host",
        "split" => "split",
        several => several.strip_suffix('s').unwrap_or(several),
    }
}

fn join(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at} {key}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::COMPLETE;

    #[test]
    fn difference_hides_secrets() {
        let text = |token: &str| {
            format!("[headers]\nrequest_set = {{ \"Authorization\" = \"{token}\" }}\n{COMPLETE}")
        };
        let config = |text: &str| Config::parse("file", text).unwrap();
        let changed = difference(&config(&text("one")), &config(&text("two")));
        assert_eq!(changed, ["~ headers request_set authorization: *** -> ***"]);
        let added = difference(&config(COMPLETE), &config(&text("two")));
        assert!(added[0].contains("\"authorization\":\"***\""), "{added:?}");
        let tested = |cookie: &str| {
            format!(
                "{COMPLETE}[[tests]]\nrequest = \"GET http://a/\"\nheaders = {{ Cookie = \"{cookie}\" }}\nexpect = {{ tag = \"a\" }}\n"
            )
        };
        let changed = difference(&config(&tested("one")), &config(&tested("two")));
        assert_eq!(changed, ["~ test get http://a/ headers cookie: *** -> ***"]);
    }

    #[test]
    fn difference_lists_hosts_routes_backends_and_policies() {
        let old = format!(
            "[rate_limit]\nrequests = 5\n[[virtual_hosts]]\ndomain = \"a.example\"\n\
             enabled_backends_tag = \"a\"\n[[virtual_hosts.routes]]\npath_prefix = \"/old\"\n\
             [[virtual_hosts.routes]]\npath_prefix = \"/api\"\n{COMPLETE}"
        );
        let new = old
            .replace("requests = 5", "requests = 9")
            .replace("\"/old\"", "\"/new\"")
            .replace("\"/api\"", "\"/api\"\nstrip_prefix = true")
            .replace("tags = [\"a\"]", "tags = [\"a\", \"b\"]")
            .replace("domain = \"*\"", "domain = \"b.example\"")
            + "[retry]\nattempts = 2\n[[backends]]\nid = \"two\"\naddress = \"127.0.0.1:2\"\ntags = [\"a\"]\n";
        let config = |text: &str| Config::parse("file", text).unwrap();
        assert_eq!(
            difference(&config(&old), &config(&new)),
            [
                "+ retry = {\"attempts\":2,\"on_status\":[],\"backoff_base_ms\":25,\"backoff_max_ms\":1000,\"budget_percent\":20}",
                "~ rate_limit requests: 5 -> 9",
                "+ virtual host a.example route /new {\"path_prefix\":\"/new\"}",
                "+ virtual host a.example route /api strip_prefix = true",
                "- virtual host a.example route /old",
                "+ virtual host b.example {\"domain\":\"b.example\",\"enabled_backends_tag\":\"a\",\"http_to_https\":false}",
                "- virtual host *",
                "~ backend one tags: [\"a\"] -> [\"a\",\"b\"]",
                "+ backend two {\"id\":\"two\",\"address\":\"127.0.0.1:2\",\"tags\":[\"a\"],\"weight\":1}",
            ]
        );
        assert!(difference(&config(&old), &config(&old)).is_empty());
    }

    #[test]
    fn difference_handles_one_table_becoming_several() {
        let old = format!("[rate_limit]\nname = \"burst\"\nrequests = 5\n{COMPLETE}");
        let new = format!(
            "[[rate_limit]]\nname = \"day\"\nwindow_secs = 86400\n[[rate_limit]]\nname = \"burst\"\n{COMPLETE}"
        );
        let config = |text: &str| Config::parse("file", text).unwrap();
        let day = "+ rate_limit day {\"name\":\"day\",\"requests\":100,\"window_secs\":86400,\"key\":\"client_ip\",\"scope\":\"route\"}";
        let lines = difference(&config(&old), &config(&new));
        assert_eq!(lines, [day, "~ rate_limit burst requests: 5 -> 100"]);
        let lines = difference(&config(&new), &config(&old));
        assert_eq!(lines, ["~ rate_limit burst requests: 100 -> 5", "- rate_limit day"]);
    }
}
