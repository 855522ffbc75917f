//! Helpers for handlers that edit the JSON of the configuration. They change the arrays of virtual hosts and of
//! backends.

use serde_json::{Map, Value};

use crate::config::reveal_secrets;

/// Result of an edit.
#[derive(Default)]
pub(super) struct Edited {
    /// JSON pointer to the place where the request's body is in the configuration. With it, a fault in the
    /// configuration is reported by its place in the body.
    pub(super) at: String,
    /// True if the edit added a new element; false if it changed or removed one.
    pub(super) created: bool,
    /// Message that a PUT found no element of this name and would add one; `None` for other requests. The response
    /// includes the message only if the body is invalid, because the name in the path may be the mistake.
    pub(super) not_found: Option<String>,
}

/// Adds an element to an array.
pub(super) fn push(json: &mut Value, array: &str, element: Map<String, Value>) -> Edited {
    let items = json.get_mut(array).and_then(Value::as_array_mut);
    let index = items.map_or(0, |items| {
        items.push(Value::Object(element));
        items.len() - 1
    });
    Edited { at: format!("/{array}/{index}"), created: true, not_found: None }
}

/// Sets keys of the element at `index` in an array. A key whose new value is null is removed.
pub(super) fn merge(json: &mut Value, array: &str, index: usize, body: Map<String, Value>) -> Edited {
    let at = format!("/{array}/{index}");
    if let Some(element) = json.pointer_mut(&at).and_then(Value::as_object_mut) {
        for (key, value) in body {
            set(element, key, value);
        }
    }
    Edited { at, ..Edited::default() }
}

fn set(element: &mut Map<String, Value>, key: String, mut value: Value) {
    if value.is_null() {
        element.shift_remove(&key);
        return;
    }
    if let Some(old) = element.get(&key) {
        reveal_secrets(&mut value, old);
    }
    element.insert(key, value);
}

/// Removes an element from an array.
pub(super) fn take_out(json: &mut Value, array: &str, index: usize) -> Edited {
    if let Some(items) = json.get_mut(array).and_then(Value::as_array_mut) {
        items.remove(index);
    }
    Edited::default()
}

/// Returns an object with one key.
pub(super) fn only(key: &str, value: Value) -> Map<String, Value> {
    Map::from_iter([(key.to_owned(), value)])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn elements_are_added_changed_and_removed() {
        let mut json = json!({ "backends": [{ "id": "a", "drained": true }] });
        let new = push(&mut json, "backends", only("id", json!("b")));
        assert_eq!((new.at.as_str(), new.created), ("/backends/1", true));
        let body = json!({ "drained": null, "tags": ["x"] }).as_object().cloned().unwrap();
        let changed = merge(&mut json, "backends", 0, body);
        assert_eq!((changed.at.as_str(), changed.created), ("/backends/0", false));
        assert_eq!(json, json!({ "backends": [{ "id": "a", "tags": ["x"] }, { "id": "b" }] }));
        take_out(&mut json, "backends", 0);
        assert_eq!(json, json!({ "backends": [{ "id": "b" }] }));
    }

    #[test]
    fn masked_secret_keeps_its_value() {
        let mut json =
            json!({ "virtual_hosts": [{ "headers": { "request_set": { "authorization": "s3cret" } } }] });
        let shown = json!({ "request_set": { "Authorization": "***", "X-A": "1" } });
        merge(&mut json, "virtual_hosts", 0, only("headers", shown));
        let set = json!({ "Authorization": "s3cret", "X-A": "1" });
        assert_eq!(json["virtual_hosts"][0]["headers"]["request_set"], set);
    }
}
