//! Identity of array elements when a configuration is edited. An element of the new array is the same as an old one if
//! both have the same name, even at another index.

use std::collections::HashMap;

use serde_json::Value as Json;

/// Returns, for each element of `new`, the index of the same element in `old`; `None` if the element is new.
pub(super) fn matches(old: &[Json], new: &[Json]) -> Vec<Option<usize>> {
    let mut known: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, value) in old.iter().enumerate().rev() {
        known.entry(identity(value)).or_default().push(index);
    }
    new.iter().map(|value| known.get_mut(&identity(value))?.pop()).collect()
}

/// Returns the identity of an array element: its name, the conditions of a route, or else its whole content.
pub(super) fn identity(value: &Json) -> String {
    const NAMES: [&str; 5] = ["id", "domain", "tag", "request", "name"];
    const ROUTE: [&str; 5] = ["path", "path_prefix", "path_regex", "methods", "header_match"];
    let name = NAMES.iter().find_map(|name| value.get(name)?.as_str());
    let route = || {
        let conditions: Vec<_> = ROUTE.iter().filter_map(|key| Some((key, value.get(key)?))).collect();
        (!conditions.is_empty()).then(|| format!("{conditions:?}"))
    };
    name.map(str::to_ascii_lowercase).or_else(route).unwrap_or_else(|| value.to_string())
}
