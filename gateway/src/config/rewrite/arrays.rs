//! Updates of arrays inside values, in one or several lines. An element keeps its comments when it moves.

use serde_json::Value as Json;
use toml_edit::{Array, Item, Value};

use crate::config::elements::matches;

/// Changes `array` so that its content becomes `new` instead of `old`. Elements that still exist keep their comments.
/// `edit` changes such an element from its old to its new content, and `value` creates a new element.
pub(super) fn update_array(
    array: &mut Array,
    old: &[Json],
    new: &[Json],
    edit: fn(&mut Item, &Json, &Json),
    value: fn(&Json) -> Option<Value>,
) {
    let (mut pieces, end) = taken_apart(array);
    let layout = pieces.last().map_or_else(String::new, indentation);
    let mut written = Vec::new();
    for (new, was) in new.iter().zip(matches(old, new)) {
        let piece = was.and_then(|was| Some((pieces.get_mut(was)?.take()?, old.get(was)?)));
        let piece = match piece {
            Some((piece, old)) if old == new => piece,
            Some((piece, old)) => {
                let mut item = Item::Value(piece.value);
                edit(&mut item, old, new);
                Piece { value: item.into_value().unwrap_or_else(|_| Value::from("")), ..piece }
            }
            None => match value(new) {
                Some(value) => Piece { lead: layout.clone(), value, tail: String::new() },
                None => continue,
            },
        };
        written.push(piece);
    }
    put_together(array, written, &end);
}

/// Array element, with the text before and after it.
struct Piece {
    /// Text before the element: its indentation, and comment lines above it.
    lead: String,
    value: Value,
    /// Comment in the same line after the element and its comma; empty: none.
    tail: String,
}

/// Returns the elements of an array, and the text before its closing bracket. The parser attaches a comment after a
/// comma to the next element; this function moves it back to the element before the comma.
fn taken_apart(array: &Array) -> (Vec<Option<Piece>>, String) {
    let text = |raw: Option<&str>| raw.unwrap_or_default().to_owned();
    let mut leads: Vec<String> =
        array.iter().map(|value| text(value.decor().prefix().and_then(|prefix| prefix.as_str()))).collect();
    leads.push(text(array.trailing().as_str()));
    let mut tails = Vec::new();
    for lead in leads.iter_mut().skip(1) {
        let line = lead.find('\n').unwrap_or(lead.len());
        let is_comment = lead[..line].trim_start().starts_with('#');
        tails.push(if is_comment { lead.drain(..line).collect() } else { String::new() });
    }
    let end = leads.pop().unwrap_or_default();
    let pieces = leads.into_iter().zip(tails).zip(array.iter());
    let piece =
        |((lead, tail), value): ((String, String), &Value)| Piece { lead, value: value.clone(), tail };
    (pieces.map(|piece_parts| Some(piece(piece_parts))).collect(), end)
}

fn put_together(array: &mut Array, pieces: Vec<Piece>, end: &str) {
    array.clear();
    let mut tail = String::new();
    // The text after a comment must begin in a new line, because a comment ends with its line.
    let after = |tail: &str, lead: &str| match tail.is_empty() || lead.starts_with('\n') {
        true => format!("{tail}{lead}"),
        false => format!("{tail}\n{lead}"),
    };
    for Piece { lead, mut value, tail: next } in pieces {
        let lead = if array.is_empty() || !lead.is_empty() { lead } else { " ".to_owned() };
        value.decor_mut().set_prefix(after(&tail, &lead));
        array.push_formatted(value);
        tail = next;
    }
    if !tail.is_empty() {
        // A comment can only follow the last element if a comma is between them.
        array.set_trailing_comma(true);
    }
    array.set_trailing(after(&tail, end));
}

/// Returns the line break and the indentation before an element; a space if there is no line break.
fn indentation(lead: &Option<Piece>) -> String {
    let lead = lead.as_ref().map(|piece| piece.lead.as_str()).unwrap_or_default();
    match lead.rfind('\n') {
        Some(newline) => lead[newline..].to_owned(),
        None => " ".to_owned(),
    }
}
