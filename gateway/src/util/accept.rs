//! Content negotiation: parser for the lists of `Accept` and `Accept-Encoding`, in which each entry may have
//! a weight (RFC 9110 12.4.2).

use http::{HeaderMap, HeaderName, header};

use crate::util::field_list;

/// Weight of an entry that names no weight, in thousandths.
const WHOLE: u16 = 1000;

/// Returns the entries of the field `name` in order, with weights in thousandths; `None` for a malformed entry.
pub fn entries(request: &HeaderMap, name: HeaderName) -> impl Iterator<Item = Option<(&str, u16)>> {
    let lines = request.get_all(name).into_iter().map(|line| line.to_str().unwrap_or(";"));
    let members = lines.flat_map(|line| field_list::members_of(line.as_bytes()));
    members.map(|member| std::str::from_utf8(member).ok().and_then(entry))
}

/// Parses an entry. Returns its value without parameters, and its weight.
fn entry(text: &str) -> Option<(&str, u16)> {
    let mut parts = text.split(';').map(str::trim);
    let what = parts.next().filter(|what| !what.is_empty())?;
    let mut weight = WHOLE;
    for parameter in parts {
        let (name, value) = parameter.split_once('=')?;
        if name.eq_ignore_ascii_case("q") {
            weight = qvalue(value)?;
        }
    }
    Some((what, weight))
}

/// Parses a weight: a number from 0 to 1 with at most three decimals. Returns thousandths.
fn qvalue(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths = format!("{decimals:0<3}").parse().ok()?;
    match (whole, thousandths) {
        ("0", thousandths) => Some(thousandths),
        ("1", 0) => Some(WHOLE),
        _ => None,
    }
}

/// Returns true if the client prefers HTML to JSON, as browsers do. Returns false, so that the client gets JSON, if
/// `Accept` is absent, is malformed, or prefers neither format: such a client is probably a program.
pub fn prefers_html(request: &HeaderMap) -> bool {
    let (mut html, mut json, mut other) = (0, 0, 0);
    for entry in entries(request, header::ACCEPT) {
        let Some((kind, weight)) = entry.filter(|(kind, _)| is_media_range(kind)) else { return false };
        let of_kind = match kind.to_ascii_lowercase().as_str() {
            "text/html" => &mut html,
            "application/json" | "application/problem+json" | "application/*" => &mut json,
            "*/*" => &mut other,
            _ => continue,
        };
        *of_kind = weight.max(*of_kind);
    }
    html > json && html >= other
}

fn is_media_range(kind: &str) -> bool {
    kind.split('/').filter(|part| !part.is_empty()).count() == 2 && kind.matches('/').count() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: HeaderName, lines: &[&str]) -> HeaderMap {
        let mut request = HeaderMap::new();
        for line in lines {
            request.append(&name, line.parse().unwrap());
        }
        request
    }

    #[test]
    fn entries_have_weights_and_malformed_ones_are_none() {
        let lines =
            ["gzip;q=0.5, br , ,zstd; Q=0", "*;q=1.000, identity;q=0.25;x=1", "a;q=2, b;q=, ;q=1, c;d"];
        let request = request(header::ACCEPT_ENCODING, &lines);
        let found: Vec<_> = entries(&request, header::ACCEPT_ENCODING).collect();
        let good = [("gzip", 500), ("br", 1000), ("zstd", 0), ("*", 1000), ("identity", 250)].map(Some);
        assert_eq!(found[..5], good);
        assert_eq!(found[5..], [None; 4]);
    }

    #[test]
    fn browsers_prefer_html_and_programs_json() {
        for (lines, html) in [
            (&["text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"][..], true),
            (&["text/html"], true),
            (&["TEXT/HTML;level=1;q=0.5, application/json;q=0.4"], true),
            (&["application/json;q=0.1", "text/html;q=0.2"], true),
            (&["text/html, */*"], true),
            (&["text/html, application/json"], false),
            (&["text/html;q=0.5, application/problem+json"], false),
            (&["text/html;q=0.5, */*"], false),
            (&["text/html;q=0"], false),
            (&["text/*"], false),
            (&["*/*"], false),
            (&[""], false),
            (&[], false),
            (&["text/html;q=2"], false),
            (&["text/html;q=0.1234"], false),
            (&["text/html;q"], false),
            (&["text/html, nonsense"], false),
            (&["text/html, a/b/c"], false),
            (&["text/html, é"], false),
        ] {
            assert_eq!(prefers_html(&request(header::ACCEPT, lines)), html, "{lines:?}");
        }
    }
}
