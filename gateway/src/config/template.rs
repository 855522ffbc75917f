//! Templates for paths and URLs, into which parts of the request are inserted. `rewrite` and `redirect` have the same
//! syntax. Unknown names are found when a template is parsed, because an error while a request is served would come
//! too late.

use percent_encoding::percent_encode_byte;
use regex::Regex;

/// Template that has been parsed, so its names are known to be valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Parts of the template, in order.
    pub parts: Vec<TemplatePart>,
}

/// Part of a template: literal text, or a value that is inserted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplatePart {
    /// Literal text.
    Text(String),
    /// Value that is taken from the request.
    Value(Value),
}

/// Part of the request that a template can insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text that the group of `path_regex` with this number matched; group 0 is the whole match.
    Group(usize),
    /// Path of the request.
    Path,
    /// Query of the request, without the question mark.
    Query,
    /// Host of the request, without the port.
    Host,
    /// Scheme of the request: `http` or `https`.
    Scheme,
}

/// Values that a template can insert by name, each with the name.
const VARIABLES: [(&str, Value); 4] =
    [("path", Value::Path), ("query", Value::Query), ("host", Value::Host), ("scheme", Value::Scheme)];

impl Template {
    /// Parses a template with `$1`, `${1}`, `$name`, `${name}`, and `$$` for a dollar sign. A number without braces
    /// has one digit: `$1_old` is the first group and then `_old`. Groups are those of `pattern`. If `variables` is
    /// true, the names `$path`, `$query`, `$host` and `$scheme` are allowed, too.
    ///
    /// # Errors
    /// Returns the reason if a name is unknown or ambiguous.
    pub fn parse(text: &str, variables: bool, pattern: Option<&Regex>) -> Result<Self, String> {
        let names = Names { variables, pattern };
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some((before, after)) = rest.split_once('$') {
            literal.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                literal.push('$');
                rest = after;
                continue;
            }
            let (value, after) = names.read(after)?;
            if !literal.is_empty() {
                parts.push(TemplatePart::Text(std::mem::take(&mut literal)));
            }
            parts.push(TemplatePart::Value(value));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(TemplatePart::Text(literal));
        }
        Ok(Template { parts })
    }

    /// Returns the text of the template with `stand_in` in place of each value.
    pub(super) fn with(&self, stand_in: &str) -> String {
        let text = |part: &TemplatePart| match part {
            TemplatePart::Text(text) => text.clone(),
            TemplatePart::Value(_) => stand_in.to_owned(),
        };
        self.parts.iter().map(text).collect()
    }
}

/// Names that a template may contain.
struct Names<'p> {
    variables: bool,
    pattern: Option<&'p Regex>,
}

impl Names<'_> {
    /// Reads the name at the beginning of `text`, after a `$`. Returns the named value and the rest of `text`.
    fn read<'t>(&self, text: &'t str) -> Result<(Value, &'t str), String> {
        if let Some(braced) = text.strip_prefix('{') {
            let (name, after) =
                braced.split_once('}').ok_or_else(|| format!("`${{{braced}` has no closing `}}`"))?;
            return Ok((self.named(name, &format!("${{{name}}}"))?, after));
        }
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        let name = &text[..end];
        if name.is_empty() {
            return Err("there is no name after the `$`; write `$$` for the character itself".to_owned());
        }
        if !name.starts_with(|c: char| c.is_ascii_digit()) {
            return Ok((self.named(name, &format!("${name}"))?, &text[end..]));
        }
        let digits = name.find(|c: char| !c.is_ascii_digit()).unwrap_or(name.len());
        let (first, more) = (&text[..1], &text[1..digits]);
        if !more.is_empty() && self.group(&text[..digits]).is_ok() {
            let number = &text[..digits];
            return Err(format!("`${number}` is ambiguous; write `${{{number}}}` or `${{{first}}}{more}`"));
        }
        Ok((self.named(first, &format!("${first}"))?, &text[1..]))
    }

    fn named(&self, name: &str, written: &str) -> Result<Value, String> {
        let variable = VARIABLES.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        match (self.group(name), variable.filter(|_| self.variables)) {
            (Ok(_), Some(_)) => Err(format!(
                "`{written}` is ambiguous: a group of `path_regex` or a part of the request; rename the group"
            )),
            (Ok(group), None) => Ok(group),
            (Err(_), Some(value)) => Ok(value),
            (Err(_), None) if variable.is_some() => {
                Err(format!("`{written}` is not allowed here: only groups of `path_regex` can be used"))
            }
            (Err(reason), None) => Err(format!("there is no `{written}`: {reason}{}", self.hint(name))),
        }
    }

    fn group(&self, name: &str) -> Result<Value, String> {
        let Some(pattern) = self.pattern else {
            return Err("the route has no `path_regex`".to_owned());
        };
        let groups = pattern.captures_len();
        match name.parse::<usize>() {
            Ok(number) if number < groups => Ok(Value::Group(number)),
            Ok(_) => Err(match groups - 1 {
                0 => "`path_regex` has no group".to_owned(),
                1 => "`path_regex` has one group".to_owned(),
                groups => format!("`path_regex` has {groups} groups"),
            }),
            Err(_) => {
                let group = pattern.capture_names().position(|group| group == Some(name));
                group.map(Value::Group).ok_or_else(|| format!("no group of `path_regex` is called '{name}'"))
            }
        }
    }

    /// Returns a hint if `name` is a known name with further text after it, for which braces are missing.
    fn hint(&self, name: &str) -> String {
        let groups = self.pattern.into_iter().flat_map(|pattern| pattern.capture_names().flatten());
        let variables = VARIABLES.iter().filter(|_| self.variables).map(|(name, _)| *name);
        let known = groups.chain(variables).filter(|known| name.starts_with(known));
        let longest = known.max_by_key(|known| known.len());
        longest.map_or_else(String::new, |known| {
            format!(" (did you mean `${{{known}}}{}`?)", &name[known.len()..])
        })
    }
}

/// Appends `value` to the URL `into`. Bytes that a URL must not contain (RFC 3986 3.3) are percent-encoded; existing
/// percent-encoding is kept. If `in_query` is true, bytes that would end a parameter are encoded, too.
pub fn push_encoded(into: &mut String, value: &[u8], in_query: bool) {
    for byte in value {
        let is_plain = match byte {
            b'&' | b'=' | b'+' | b';' => !in_query,
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'\'' | b'(' | b')' | b'*' | b',' | b':' | b'@'
            | b'/' | b'%' => true,
            byte => byte.is_ascii_alphanumeric(),
        };
        if is_plain {
            into.push(char::from(*byte));
        } else {
            into.push_str(percent_encode_byte(*byte));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, pattern: &str) -> Result<Vec<TemplatePart>, String> {
        let pattern = Some(pattern).filter(|pattern| !pattern.is_empty()).map(|it| Regex::new(it).unwrap());
        Template::parse(text, true, pattern.as_ref()).map(|template| template.parts)
    }

    fn text(text: &str) -> TemplatePart {
        TemplatePart::Text(text.to_owned())
    }

    fn group(number: usize) -> TemplatePart {
        TemplatePart::Value(Value::Group(number))
    }

    #[test]
    fn every_template_form_is_parsed() {
        let two = "^/(?<year>[0-9]+)/(.*)$";
        for (template, parts) in [
            ("", vec![]),
            ("/plain", vec![text("/plain")]),
            ("/$1", vec![text("/"), group(1)]),
            ("/$1_old/$2", vec![text("/"), group(1), text("_old/"), group(2)]),
            ("/p$1x", vec![text("/p"), group(1), text("x")]),
            ("$10", vec![group(1), text("0")]),
            ("${1}0${2}", vec![group(1), text("0"), group(2)]),
            ("$0", vec![group(0)]),
            ("$year/$2", vec![group(1), text("/"), group(2)]),
            ("${year}_old", vec![group(1), text("_old")]),
            ("a$$b$$$1$$", vec![text("a$b$"), group(1), text("$")]),
            ("$$1", vec![text("$1")]),
            (
                "$path?$query",
                vec![TemplatePart::Value(Value::Path), text("?"), TemplatePart::Value(Value::Query)],
            ),
            (
                "$scheme://$host",
                vec![TemplatePart::Value(Value::Scheme), text("://"), TemplatePart::Value(Value::Host)],
            ),
        ] {
            assert_eq!(parse(template, two), Ok(parts), "{template}");
        }
        let ten = "(a)".repeat(10);
        assert_eq!(parse("${10}", &ten), Ok(vec![group(10)]));
    }

    #[test]
    fn unknown_template_name_is_refused_with_the_reason() {
        let two = "^/(?<year>[0-9]+)/(.*)$";
        let ten = "(a)".repeat(10);
        for (template, pattern, reason) in [
            ("/$3", two, "there is no `$3`: `path_regex` has 2 groups"),
            ("/$1", "^/a$", "there is no `$1`: `path_regex` has no group"),
            ("/${7}", "(a)", "there is no `${7}`: `path_regex` has one group"),
            ("/$1", "", "there is no `$1`: the route has no `path_regex`"),
            ("/$name", two, "no group of `path_regex` is called 'name'"),
            ("/$year_old", two, "is called 'year_old' (did you mean `${year}_old`?)"),
            ("/$path_old", two, "(did you mean `${path}_old`?)"),
            ("/$", two, "write `$$` for the character itself"),
            ("/$/a", two, "write `$$` for the character itself"),
            ("/$\u{e9}", two, "write `$$` for the character itself"),
            ("/${1", two, "`${1` has no closing `}`"),
            ("/${}", two, "there is no `${}`"),
            ("/${99999999999999999999}", two, "there is no `${99999999999999999999}`"),
            ("/$10", ten.as_str(), "`$10` is ambiguous; write `${10}` or `${1}0`"),
            ("/$path", "(?<path>a)", "`$path` is ambiguous"),
        ] {
            let error = parse(template, pattern).unwrap_err();
            assert!(error.contains(reason), "{template}: {error}");
        }
        let error = Template::parse("/$query", false, Some(&Regex::new("a").unwrap())).unwrap_err();
        assert!(error.contains("`$query` is not allowed here"), "{error}");
    }

    #[test]
    fn push_encoded_encodes_bytes_with_a_meaning_in_urls() {
        let encoded = |value: &[u8], in_query| {
            let mut text = String::new();
            push_encoded(&mut text, value, in_query);
            text
        };
        assert_eq!(encoded(b"a/b%20c&d=e+f;g", false), "a/b%20c&d=e+f;g");
        assert_eq!(encoded(b"a/b%20c&d=e+f;g", true), "a/b%20c%26d%3De%2Bf%3Bg");
        assert_eq!(encoded(b"\r\nX: 1", false), "%0D%0AX:%201");
        assert_eq!(encoded(b"?#\\\"<>\x7f\xff", false), "%3F%23%5C%22%3C%3E%7F%FF");
    }
}
