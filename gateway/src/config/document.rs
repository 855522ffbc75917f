//! TOML text as a tree that keeps the position of every value.
//!
//! A deserializer stops at the first error. To report every error at once, this module records the error, removes the
//! faulty key from the tree, and deserializes the rest again.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::error::{Fault, Position};
use super::not_yet;

/// Maximum number of faults that are reported. A file with more faults is most likely not a configuration at all, so a
/// complete list would not help.
const MAX_FAULTS: usize = 100;

/// TOML text with the tree of its parts that could be parsed.
pub(super) struct Document<'t> {
    name: &'t str,
    text: &'t str,
    tree: Spanned<DeTable<'t>>,
    /// Top-level tables from which faulty parts were removed.
    cut: BTreeSet<String>,
    given_up: bool,
}

impl<'t> Document<'t> {
    /// Parses as much of `text` as possible and returns every syntax error; faults call the text `name`.
    pub(super) fn parse(name: &'t str, text: &'t str) -> (Self, Vec<Fault>) {
        let (tree, errors) = DeTable::parse_recoverable(text);
        let cut = BTreeSet::new();
        let document = Document { name, text, tree, cut, given_up: false };
        let faults = errors.into_iter().take(MAX_FAULTS);
        let faults = faults.map(|error| document.fault(error.span(), error.message().to_owned())).collect();
        (document, faults)
    }

    /// Deserializes a `T`, and returns a fault for each part that was left out because it is invalid. Every field of
    /// `T` must have a default.
    pub(super) fn decode<T: DeserializeOwned + Default>(&mut self) -> (T, Vec<Fault>) {
        let mut faults = Vec::new();
        while faults.len() < MAX_FAULTS {
            let error = match T::deserialize(Deserializer::from(self.tree.clone())) {
                Ok(value) => return (value, faults),
                Err(error) => error,
            };
            let path = error.span().and_then(|span| cut(self.tree.get_mut(), &span)).unwrap_or_default();
            let keys: Vec<String> = path.iter().filter(|step| !is_index(step)).cloned().collect();
            let fault = self.fault(error.span(), describe(error.message(), &keys));
            faults.push(Fault { pointer: pointer(&path), ..fault });
            let Some(table) = path.into_iter().next() else { break };
            self.cut.insert(table);
        }
        self.given_up = true;
        (T::default(), faults)
    }

    /// Returns the name of the text in faults.
    pub(super) fn name(&self) -> &str {
        self.name
    }

    /// Returns true if decoding stopped early: at too many faults, or at a fault whose key was not found.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up
    }

    /// Returns true if every part of `table` could be read.
    pub(super) fn is_whole(&self, table: &str) -> bool {
        !self.cut.contains(table)
    }

    fn fault(&self, span: Option<Range<usize>>, detail: String) -> Fault {
        let position = span.map(|span| position(self.text, span.start));
        Fault { source: self.name.to_owned(), position, pointer: String::new(), detail }
    }

    /// Returns the position of the value at `path`, for example `["backends", "0", "address"]`. If there is no such
    /// value, the position is that of the innermost table around it.
    pub(super) fn locate(&self, path: &[&str]) -> Option<Position> {
        let mut place = None;
        let (first, rest) = path.split_first()?;
        let (_, mut value) = self.tree.get_ref().iter().find(|(key, _)| key.get_ref() == first)?;
        place.replace(value.span().start);
        for step in rest {
            let inner = match value.get_ref() {
                DeValue::Table(_) => inside(value.get_ref(), step),
                DeValue::Array(items) => match step.parse::<usize>() {
                    Ok(index) => items.get(index),
                    // An array with a single table, such as one rate-limit window, has no index in the path.
                    Err(_) if items.len() == 1 => items.first().and_then(|one| inside(one.get_ref(), step)),
                    Err(_) => None,
                },
                _ => None,
            };
            let Some(inner) = inner else { break };
            place.replace(inner.span().start);
            value = inner;
        }
        place.map(|offset| position(self.text, offset))
    }
}

/// Returns the value of `key` in `table`; `None` if the table has no such key.
fn inside<'t, 'a>(table: &'t DeValue<'a>, key: &str) -> Option<&'t Spanned<DeValue<'a>>> {
    table.as_table()?.iter().find(|(known, _)| known.get_ref() == key).map(|(_, value)| value)
}

fn is_index(step: &str) -> bool {
    step.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns a path as a JSON pointer (RFC 6901).
fn pointer(path: &[String]) -> String {
    path.iter().map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1"))).collect()
}

/// Removes the key or value at `span` from `table`, and returns its path: keys and array indices. Returns `None` if
/// `span` is not in the table.
fn cut(table: &mut DeTable<'_>, span: &Range<usize>) -> Option<Vec<String>> {
    let mut doomed = None;
    for (key, value) in table.iter_mut() {
        let name = key.get_ref().to_string();
        // If the span is that of a key, the key is unknown and is removed. Otherwise, search inside the value first,
        // so that only the faulty part is removed.
        if key.span() != *span {
            if let Some(mut path) = cut_inside(value, span) {
                path.insert(0, name);
                return Some(path);
            }
            if value.span() != *span {
                continue;
            }
        }
        doomed = Some(name);
        break;
    }
    let name = doomed?;
    table.remove(name.as_str());
    Some(vec![name])
}

fn cut_inside(value: &mut Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<Vec<String>> {
    match value.get_mut() {
        DeValue::Table(table) => cut(table, span),
        DeValue::Array(items) => {
            let inside = |(index, item)| Some((index, cut_inside(item, span)?));
            if let Some((index, mut path)) = items.iter_mut().enumerate().find_map(inside) {
                path.insert(0, index.to_string());
                return Some(path);
            }
            let index = items.iter().position(|item| item.span() == *span)?;
            let kept = items.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, item)| item.clone());
            *items = kept.collect();
            Some(vec![index.to_string()])
        }
        _ => None,
    }
}

/// Translates the deserializer's `message` about the key at `path` into words for operators.
pub(super) fn describe(message: &str, path: &[String]) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown field") {
        let found = quoted.next().unwrap_or_default();
        if not_yet::key(path) {
            return format!("`{found}` is not supported yet");
        }
        return format!("unknown key `{found}`{}", did_you_mean(found, quoted));
    }
    if message.starts_with("unknown variant") {
        let found = quoted.next().unwrap_or_default();
        let known: Vec<&str> = quoted.collect();
        let hint = did_you_mean(found, known.iter().copied());
        return format!("unknown value `{found}`{hint}; expected {}", listed(&known));
    }
    let message = WORDS.iter().fold(message.to_owned(), |message, (rust, ours)| message.replace(rust, ours));
    match path.last() {
        Some(key) => format!("`{key}`: {message}"),
        None => message,
    }
}

/// Rust terms in the deserializer's messages, each with its replacement for operators.
const WORDS: &[(&str, &str)] = &[
    ("a nonzero usize", "a whole number from 1"),
    ("a nonzero u32", "a whole number from 1"),
    ("expected usize", "expected a whole number from 0"),
    ("expected u64", "expected a whole number from 0"),
    ("expected u16", "expected a whole number from 0"),
    ("expected f64", "expected a number"),
    ("expected i64", "expected a whole number"),
    ("a sequence", "an array"),
    ("a map", "a table"),
    ("struct ", "the table "),
    ("invalid socket address syntax", "expected IP:PORT, as in 127.0.0.1:8080"),
];

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")
}

/// Returns " (did you mean `…`?)" if a name in `known` is similar to `found`, otherwise an empty string. At most a
/// third of a similar name's letters are wrong, swapped, missing or extra.
pub fn did_you_mean<'a>(found: &str, known: impl Iterator<Item = &'a str>) -> String {
    closest(found, known).map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"))
}

/// Returns the name in `known` that is most similar to the misspelt name `found`; `None` if none is similar.
pub(super) fn closest<'a>(found: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (strsim::damerau_levenshtein(found, name), name))
        .filter(|(wrong, name)| *wrong <= found.len().max(name.len()) / 3)
        .min()
        .map(|(_, name)| name)
}

fn position(text: &str, offset: usize) -> Position {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Position {
        line: before.matches('\n').count() + 1,
        column: before.get(line_start..).map_or(0, |line| line.chars().count()) + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn faults(text: &str) -> Vec<String> {
        let (mut document, mut faults) = Document::parse("file", text);
        faults.extend(document.decode::<Config>().1);
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_fault_is_reported_with_its_position() {
        let text = r#"
[proxy]
listen_adr_http = "127.0.0.1:80"
threads = "four"
max_connections = 0

[[backends]]
id = "a"
address = "nonsense"
tags = ["a", 7]

[balancing]
algorithm = "rownd_robin"
"#;
        let faults = faults(text);
        let expected = [
            "file:3:1: unknown key `listen_adr_http` (did you mean `listen_addr_http`?)",
            "file:4:11: `threads`: invalid type: string \"four\", expected a whole number from 0",
            "file:5:19: `max_connections`: invalid value: integer `0`, expected a whole number from 1",
            "file:9:11: `address`: 'nonsense' is not a valid address: there is no port; expected host:port, \
             as in 127.0.0.1:3001",
            "file:10:14: `tags`: invalid type: integer `7`, expected a string",
            "file:13:13: unknown value `rownd_robin` (did you mean `round_robin`?); expected `round_robin` or `weighted` or `least_connections` or `random_two_choices` or `consistent_hash`",
        ];
        for line in expected {
            assert!(faults.iter().any(|fault| fault == line), "{line}\nnot in\n{}", faults.join("\n"));
        }
        assert_eq!(faults.len(), expected.len(), "{}", faults.join("\n"));
    }

    #[test]
    fn several_syntax_errors_are_all_reported() {
        let faults = faults("[proxy]\nthreads = = 1\n[logging]\nlevel = \"info\nformat = 1.2.3\n");
        assert!(faults.len() >= 2, "{}", faults.join("\n"));
    }

    #[test]
    fn syntax_error_hides_faults_that_may_follow_from_it() {
        for text in ["[proxy\nthreads = 1\n[[virtual_hosts]]\n", "[proxy]\nthreads = \nx = 1\n"] {
            let source = crate::config::Source::built_in("file", text.to_owned());
            let faults = source.read().err().unwrap().to_string();
            assert_eq!(faults.lines().count(), 1, "{faults}");
            assert!(faults.contains("expected"), "{faults}");
        }
    }

    #[test]
    fn duplicate_key_is_refused() {
        let faults = faults("[proxy]\nthreads = 1\nthreads = 2\n");
        assert!(
            faults.iter().any(|fault| fault.starts_with("file:3:1: duplicate key")),
            "{}",
            faults.join("\n")
        );
    }

    #[test]
    fn did_you_mean_proposes_only_close_names() {
        let propose = |found| did_you_mean(found, ["web", "rate_limit", "retry", "a", "b"].into_iter());
        assert_eq!(propose("wbe"), " (did you mean `web`?)");
        assert_eq!(propose("ratelimits"), " (did you mean `rate_limit`?)");
        assert_eq!((propose("c"), propose("routes"), propose("")), Default::default());
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(position("a = 1\nbä = 2", "a = 1\nbä".len()), Position { line: 2, column: 3 });
    }

    #[test]
    fn wrong_value_for_a_table_is_removed_whole() {
        assert_eq!(faults("proxy = 3\nbackends = \"x\"\n").len(), 2);
        assert_eq!(faults("[[proxy]]\nthreads = 1\n").len(), 1);
        assert_eq!(faults("[[backends]]\n[[backends]]\naddress = []\n").len(), 1);
    }
}
