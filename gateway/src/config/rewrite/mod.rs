//! Rewrites a TOML text as an operator would edit it. Only changed values are written; all other text stays the same,
//! including comments, order and layout.

mod arrays;

use serde_json::{Map, Value as Json};
use toml_edit::{ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, TomlError, Value};

use self::arrays::update_array;
use super::elements::matches;
use super::secrets::is_of_fields;

/// Maximum number of keys in an inline table; a larger object gets a table with a header.
const ONE_LINE: usize = 3;

/// Changes `text` so that its content becomes `new` instead of `old`. A key that is in `old` but not in `text` is a
/// default. Such a key is only written if its value in `new` differs.
///
/// # Errors
/// Returns an error if `text` is not TOML.
pub(super) fn rewrite(text: &str, old: &Json, new: &Json) -> Result<String, TomlError> {
    if old == new {
        return Ok(text.to_owned());
    }
    let mut document: DocumentMut = text.parse()?;
    if let (Json::Object(old), Json::Object(new)) = (old, new) {
        update_table(document.as_table_mut(), Place::Top, KeyComparison::Exact, old, new);
    }
    Ok(in_the_manner_of(text, document.to_string()))
}

/// Restores parts of the text that the parser loses: the byte order mark, the line ends, and a comment at the top. The
/// parser attaches that comment to the first table, so it would be removed with that table.
fn in_the_manner_of(before: &str, mut after: String) -> String {
    let (mark, body) = before.strip_prefix('\u{feff}').map_or(("", before), |body| ("\u{feff}", body));
    let unix = body.replace("\r\n", "\n");
    let header = unix.split_once("\n\n").map(|(header, _)| header);
    let is_comment = |line: &str| line.trim_start().starts_with('#');
    if let Some(header) = header.filter(|header| header.lines().all(is_comment) && !after.contains(header)) {
        after = format!("{header}\n\n{}", after.trim_start_matches('\n'));
    }
    if body.contains("\r\n") {
        after = after.replace("\r\n", "\n").replace('\n', "\r\n");
    }
    format!("{mark}{}", after.trim_start_matches('\u{feff}'))
}

/// Place of an item in the text; the place decides if the item can be a table with a header.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Top level of the text; objects become tables with headers.
    Top,
    /// Inside a table with a header; small objects become inline tables.
    Table,
    /// Inside a value; objects become inline tables, because a table header cannot be in a value.
    Line,
}

/// Rule for the comparison of keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyComparison {
    /// Comparison that respects case, for all keys except names of header fields.
    Exact,
    /// Comparison that ignores case, for names of header fields.
    Fields,
}

impl KeyComparison {
    /// Returns the rule for the keys inside `table`, whose own key is `key`.
    fn of(key: &str, table: &Json) -> Self {
        let is_of_fields = table.as_object().is_some_and(|table| is_of_fields(key, table));
        if is_of_fields || key == "header_match" { KeyComparison::Fields } else { KeyComparison::Exact }
    }

    fn are_equal(self, one: &str, other: &str) -> bool {
        one == other || (self == KeyComparison::Fields && one.eq_ignore_ascii_case(other))
    }

    fn get<'m>(self, map: &'m Map<String, Json>, key: &str) -> Option<&'m Json> {
        map.get(key)
            .or_else(|| map.iter().find(|(known, _)| self.are_equal(known, key)).map(|(_, value)| value))
    }
}

fn update_table(
    table: &mut dyn TableLike,
    place: Place,
    keys: KeyComparison,
    old: &Map<String, Json>,
    new: &Map<String, Json>,
) {
    let goes = |key: &str| keys.get(new, key).is_none_or(Json::is_null);
    let gone: Vec<String> = table.iter().map(|(key, _)| key.to_owned()).filter(|key| goes(key)).collect();
    for key in gone.iter().filter(|key| keys.get(old, key).is_some()) {
        table.remove(key);
    }
    for (key, new) in new.iter().filter(|(_, new)| !new.is_null()) {
        let old = keys.get(old, key);
        if old == Some(new) {
            continue;
        }
        let written = table.iter().find(|(written, _)| keys.are_equal(written, key));
        let written = written.map(|(written, _)| written.to_owned());
        match written.and_then(|written| table.get_mut(&written)) {
            Some(item) => update_item(item, place, KeyComparison::of(key, new), old, new),
            None => drop(table.insert(key, fresh_item(place, old, new))),
        }
    }
}

fn update_item(item: &mut Item, place: Place, keys: KeyComparison, old: Option<&Json>, new: &Json) {
    let inside = if item.is_value() { Place::Line } else { Place::Table };
    match (old, new) {
        (Some(Json::Object(old)), Json::Object(new)) => {
            if let Some(table) = item.as_table_like_mut() {
                return update_table(table, inside, keys, old, new);
            }
        }
        (Some(Json::Array(old)), Json::Array(new)) => match item {
            Item::ArrayOfTables(tables) if new.iter().all(Json::is_object) => {
                return update_tables(tables, old, new);
            }
            Item::Value(Value::Array(array)) => return update_array(array, old, new, edit_element, value),
            _ => {}
        },
        _ => {}
    }
    let place = if item.is_value() { Place::Line } else { place };
    let mut fresh = fresh_item(place, None, new);
    if let (Some(before), Some(after)) = (item.as_value(), fresh.as_value_mut()) {
        // Keep the comment after the old value, because it also describes the new value.
        *after.decor_mut() = before.decor().clone();
    }
    *item = fresh;
}

fn edit_element(item: &mut Item, old: &Json, new: &Json) {
    update_item(item, Place::Line, KeyComparison::Exact, Some(old), new);
}

/// Updates an array of tables. A table whose element still exists keeps its text, even if it moves.
fn update_tables(tables: &mut ArrayOfTables, old: &[Json], new: &[Json]) {
    let mut before: Vec<Option<Table>> = tables.iter().cloned().map(Some).collect();
    let matches = matches(old, new);
    let in_order = matches.iter().flatten().is_sorted();
    tables.clear();
    for (new, was) in new.iter().zip(matches) {
        let empty = Map::new();
        let table = was.and_then(|was| before.get_mut(was)?.take());
        let old = was.filter(|_| table.is_some()).and_then(|was| old.get(was)?.as_object()).unwrap_or(&empty);
        let mut table = table.unwrap_or_default();
        update_table(&mut table, Place::Table, KeyComparison::Exact, old, new.as_object().unwrap_or(&empty));
        if !in_order {
            forget_position(&mut table);
        }
        tables.push(table);
    }
}

/// Returns an item for the value `new`. If `new` is a table, only keys whose value differs from the default in `old`
/// are written.
fn fresh_item(place: Place, old: Option<&Json>, new: &Json) -> Item {
    let fits = |object: &Map<String, Json>| {
        let is_flat = !object.values().any(|value| value.is_object() || value.is_array());
        place == Place::Table && object.len() <= ONE_LINE && is_flat
    };
    match new {
        Json::Object(new) if place != Place::Line => {
            let empty = Map::new();
            let old = old.and_then(Json::as_object).unwrap_or(&empty);
            let new: Map<String, Json> = new
                .iter()
                .filter(|(key, value)| old.get(*key) != Some(value))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            if fits(&new) {
                return Item::Value(Value::InlineTable(inline_table(&new)));
            }
            let mut table = Table::new();
            update_table(&mut table, Place::Table, KeyComparison::Exact, &empty, &new);
            Item::Table(table)
        }
        Json::Array(items)
            if place != Place::Line
                && items.iter().any(|item| item.as_object().is_some_and(|o| !fits(o))) =>
        {
            let mut tables = ArrayOfTables::new();
            update_tables(&mut tables, &[], items);
            Item::ArrayOfTables(tables)
        }
        _ => value(new).map_or(Item::None, Item::Value),
    }
}

fn inline_table(object: &Map<String, Json>) -> InlineTable {
    object.iter().filter_map(|(key, json)| Some((key.as_str(), value(json)?))).collect()
}

/// Converts a JSON value to TOML. Returns `None` for null, which TOML does not have, so that it is left out.
fn value(json: &Json) -> Option<Value> {
    Some(match json {
        Json::Null => return None,
        Json::Bool(bool) => Value::from(*bool),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Value::from(integer),
            None => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text),
        Json::Array(items) => Value::Array(items.iter().filter_map(value).collect()),
        Json::Object(object) => Value::InlineTable(inline_table(object)),
    })
}

/// Clears the positions of a table and its inner tables. The tables are then written in the order of their array, not
/// in the order of the old text.
fn forget_position(table: &mut Table) {
    table.set_position(None);
    for (_, item) in table.iter_mut() {
        match item {
            Item::Table(table) => forget_position(table),
            Item::ArrayOfTables(tables) => tables.iter_mut().for_each(forget_position),
            Item::Value(_) | Item::None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Config;

    const TEXT: &str = r#"# Ours.
[proxy]
threads = 2 # two is enough

# The shop.
[[virtual_hosts]]
domain = "shop.example"   # with a comment
enabled_backends_tag = "a"
  # Its API.
  [[virtual_hosts.routes]]
  path_prefix = "/api"
  [virtual_hosts.routes.headers]
  request_set = { "X-Proxy" = "shop" } # who we are

# The blog.
[[virtual_hosts]]
domain = "blog.example"
enabled_backends_tag = "a"

[[backends]]
id = "one" # the first
address = "127.0.0.1:3001"
tags = [
    "a", # blue
]
"#;

    /// Applies `change` to the content of `text`, checks the content of the new text, and returns the new text.
    fn changed(text: &str, change: impl FnOnce(&mut Json)) -> String {
        let content = |text: &str| serde_json::to_value(Config::parse("file", text).unwrap()).unwrap();
        let old = content(text);
        let mut new = old.clone();
        change(&mut new);
        let rewritten = rewrite(text, &old, &new).unwrap();
        let wanted: Config = serde_json::from_value(new).unwrap();
        assert_eq!(content(&rewritten), serde_json::to_value(wanted).unwrap(), "{rewritten}");
        rewritten
    }

    /// Returns the lines that are only in `after`, and then the lines that are only in `before`.
    fn difference<'t>(before: &'t str, after: &'t str) -> (Vec<&'t str>, Vec<&'t str>) {
        let only = |a: &'t str, b: &'t str| a.lines().filter(|line| !b.lines().any(|l| l == *line)).collect();
        (only(after, before), only(before, after))
    }

    #[test]
    fn equal_content_leaves_the_text_unchanged() {
        assert_eq!(changed(TEXT, |_| {}), TEXT);
    }

    #[test]
    fn changed_value_keeps_its_comment() {
        let text = changed(TEXT, |json| json["virtual_hosts"][0]["http_to_https"] = json!(false));
        assert_eq!(text, TEXT, "a default is not written");
        let text = changed(TEXT, |json| json["proxy"]["threads"] = json!(3));
        assert_eq!(difference(TEXT, &text).0, ["threads = 3 # two is enough"]);
        let text = changed(TEXT, |json| {
            json["virtual_hosts"][0]["routes"][0]["headers"]["request_set"] = json!({"X-PROXY": "new"});
        });
        assert_eq!(difference(TEXT, &text).0, ["  request_set = { \"X-Proxy\" = \"new\" } # who we are"]);
    }

    #[test]
    fn new_values_are_written_in_their_tables() {
        let text = changed(TEXT, |json| {
            json["empty_tags"] = json!(["c"]);
            json["health_check"]["interval_secs"] = json!(3);
            json["rate_limit"] = json!({"requests": 5});
            json["virtual_hosts"][0]["split"] = json!([{"tag": "c", "percent": 10}]);
            json["virtual_hosts"][1]["rollout"] = json!({"to": "c", "steps": [100], "step": 0});
            let host =
                json!({"domain": "new.example", "enabled_backends_tag": "a", "routes": [{"path": "/x"}]});
            json["virtual_hosts"].as_array_mut().unwrap().push(host);
            json["backends"][0]["tags"] = json!(["a", "b"]);
        });
        let (added, removed) = difference(TEXT, &text);
        assert!(removed.is_empty(), "{text}");
        assert_eq!(added[0], "empty_tags = [\"c\"]");
        assert!(text.find("new.example") > text.find("blog.example"), "{text}");
        assert!(text.find("new.example") < text.find("[[backends]]"), "{text}");
        assert!(text.contains("    \"a\", # blue\n    \"b\",\n]"), "{text}");
    }

    #[test]
    fn removed_item_loses_its_comment() {
        let text = changed(TEXT, |json| drop(json["virtual_hosts"].as_array_mut().unwrap().remove(0)));
        assert!(!text.contains("shop") && text.contains("# The blog."), "{text}");
        let text = changed(TEXT, |json| {
            json["virtual_hosts"][0].as_object_mut().unwrap().remove("routes");
            json["proxy"].as_object_mut().unwrap().remove("threads");
        });
        assert!(!text.contains("/api") && !text.contains("threads"), "{text}");
    }

    #[test]
    fn moved_table_keeps_its_text() {
        let text = changed(TEXT, |json| json["virtual_hosts"].as_array_mut().unwrap().reverse());
        assert!(text.find("# The blog.") < text.find("# The shop."), "{text}");
        assert!(text.find("# Its API.") > text.find("# The shop."), "{text}");
        assert!(text.contains("# who we are"), "{text}");
    }

    #[test]
    fn array_comments_move_with_their_elements() {
        let tags = |lines: &str| TEXT.replace("    \"a\", # blue\n", lines);
        let text = tags("    \"a\", # blue\n    \"b\", # green\n    # for a few\n    \"c\", # canary\n");
        let set = |tags: Json| changed(&text, |json| json["backends"][0]["tags"] = tags);
        assert_eq!(set(json!(["a", "c"])), tags("    \"a\", # blue\n    # for a few\n    \"c\", # canary\n"));
        assert_eq!(set(json!(["a", "b"])), tags("    \"a\", # blue\n    \"b\", # green\n"));
        assert_eq!(
            set(json!(["a", "b", "c", "d"])),
            text.replace("# canary\n", "# canary\n    \"d\",\n"),
            "what is new has no comment"
        );
        assert_eq!(
            set(json!(["c", "b", "a"])),
            tags("    # for a few\n    \"c\", # canary\n    \"b\", # green\n    \"a\", # blue\n")
        );
    }

    #[test]
    fn byte_order_mark_line_ends_and_header_are_kept() {
        let unix = format!("# About this file.\n\n{TEXT}");
        let text = changed(&unix, |json| drop(json["virtual_hosts"].as_array_mut().unwrap().remove(0)));
        assert!(text.starts_with("# About this file.\n\n# Ours.\n[proxy]"), "{text}");
        let dos = format!("\u{feff}{}", TEXT.replace('\n', "\r\n"));
        let text = changed(&dos, |json| json["proxy"]["threads"] = json!(3));
        assert_eq!(text, dos.replace("threads = 2", "threads = 3"));
        let shop = changed(TEXT, |json| json["virtual_hosts"][0]["domain"] = json!("Shop.Example"));
        assert!(
            shop.contains("# The shop.\n[[virtual_hosts]]\ndomain = \"Shop.Example\"   # with a comment"),
            "{shop}"
        );
    }

    #[test]
    fn one_line_arrays_stay_in_one_line() {
        let text = "virtual_hosts = [{ domain = \"*\", enabled_backends_tag = \"a\" }]\n\
                    backends = [\n  { id = \"x\", address = \"127.0.0.1:1\", tags = [\"a\"] }, # first\n]\n";
        let new = changed(text, |json| {
            json["virtual_hosts"][0]["rate_limit"] = json!({"requests": 9, "window_secs": 1});
            let backend = json!({"id": "y", "address": "127.0.0.1:2", "tags": ["a"], "drained": true});
            json["backends"].as_array_mut().unwrap().push(backend);
        });
        assert!(new.lines().count() <= 6, "{new}");
        assert!(new.contains("# first"), "{new}");
    }
}
