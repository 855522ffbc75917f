//! A Markdown file as the checks see it: fenced blocks, the marks (HTML comments such as
//! `<!-- source: path -->`) that stand right above them, links, and what a link can lead to.

use std::collections::BTreeSet;
use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::{Fix, Pattern, pattern};

/// A parsed page.
pub struct Document {
    /// Its path, from the repository's root.
    pub path: String,
    /// What it says.
    pub text: String,
    /// Its fenced blocks, in order.
    pub blocks: Vec<Block>,
    /// Its marks, in order.
    pub marks: Vec<Mark>,
    /// Its links and images.
    pub links: Vec<Link>,
    /// What `#fragment`s may name in it.
    pub anchors: BTreeSet<String>,
}

/// A fenced block.
pub struct Block {
    /// What stands behind the opening fence.
    pub info: String,
    /// The line of the opening fence.
    pub line: usize,
    /// What is in it, without the block's own indentation.
    pub text: String,
    body: Range<usize>,
    indentation: String,
}

/// A comment `<!-- key: value -->` on a line of its own.
pub struct Mark {
    /// What it asks for.
    pub key: String,
    /// Of what; may be empty.
    pub value: String,
    /// Where it stands.
    pub line: usize,
    /// Its bytes, with the end of its line.
    pub range: Range<usize>,
    /// Which of the page's blocks stands right below.
    pub block: Option<usize>,
}

/// A link or an image.
pub struct Link {
    /// Where it leads.
    pub target: String,
    /// Where it stands.
    pub line: usize,
}

impl Document {
    /// Parses a page.
    pub fn parse(path: &str, text: &str) -> Self {
        let mut document = Document {
            path: path.to_owned(),
            text: text.to_owned(),
            blocks: Vec::new(),
            marks: Vec::new(),
            links: Vec::new(),
            anchors: BTreeSet::new(),
        };
        let mut heading = None;
        // The first of the marks that only other marks stand below.
        let mut open = 0;
        let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_FOOTNOTES;
        for (event, range) in Parser::new_ext(text, options).into_offset_iter() {
            match event {
                Event::Start(Tag::HtmlBlock) | Event::End(TagEnd::HtmlBlock) => continue,
                Event::Html(html) if html.trim_start().starts_with("<!--") => {
                    document.comment(&html, range);
                    continue;
                }
                Event::Html(html) | Event::InlineHtml(html) => document.html(&html, range),
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                    let block = document.blocks.len();
                    document.marks[open..].iter_mut().for_each(|mark| mark.block = Some(block));
                    document.blocks.push(Block::new(text, info.into_string(), range));
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    document.link(&dest_url, range);
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => document.anchor(&heading.take().unwrap_or_default()),
                Event::Text(part) | Event::Code(part) => {
                    heading.iter_mut().for_each(|heading| heading.push_str(&part));
                }
                _ => {}
            }
            open = document.marks.len();
        }
        document
    }

    /// The blocks below marks with this key, with the marks.
    pub fn marked(&self, key: &str) -> impl Iterator<Item = (&Mark, &Block)> {
        let marks = self.marks.iter().filter(move |mark| mark.key == key);
        marks.filter_map(|mark| Some((mark, &self.blocks[mark.block?])))
    }

    /// Keeps a comment if it is a mark. `<!-- a remark: like this -->` is none.
    fn comment(&mut self, html: &str, range: Range<usize>) {
        static MARK: Pattern = Pattern::new(|| pattern(r"^\s*<!--\s*(/?[a-z]+)(?::\s*(.*?))?\s*-->\s*$"));
        let Some(found) = MARK.captures(html) else { return };
        let value = found.get(2).map_or("", |value| value.as_str()).to_owned();
        let line = line_at(&self.text, range.start);
        self.marks.push(Mark { key: found[1].to_owned(), value, line, range, block: None });
    }

    /// Keeps what links and anchors stand in a piece of HTML.
    fn html(&mut self, html: &str, range: Range<usize>) {
        static ATTRIBUTE: Pattern = Pattern::new(|| pattern(r#"\b(href|src|id|name)="([^"]*)""#));
        for found in ATTRIBUTE.captures_iter(html) {
            match &found[1] {
                "href" | "src" => self.link(&found[2], range.clone()),
                _ => drop(self.anchors.insert(found[2].to_owned())),
            }
        }
    }

    fn link(&mut self, target: &str, range: Range<usize>) {
        let line = line_at(&self.text, range.start);
        self.links.push(Link { target: target.to_owned(), line });
    }

    /// Keeps a heading's anchor as GitHub makes it; one that is there already gets a number.
    fn anchor(&mut self, heading: &str) {
        let kept = heading.trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let slug: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let numbered = (1..).map(|number| format!("{slug}-{number}"));
        let free = [slug.clone()].into_iter().chain(numbered).find(|slug| !self.anchors.contains(slug));
        self.anchors.extend(free);
    }
}

impl Block {
    fn new(page: &str, info: String, range: Range<usize>) -> Self {
        let start = page[..range.start].rfind('\n').map_or(0, |end| end + 1);
        let before = &page[start..range.start];
        // In a list there may be a bullet before the fence: what follows is indented as far.
        let indentation = " ".repeat(before.chars().count());
        let whole = page[range.clone()].trim_end();
        let body = match (whole.find('\n'), whole.rfind('\n')) {
            (Some(first), Some(last)) => range.start + first + 1..range.start + last + 1,
            _ => range.end..range.end,
        };
        let lines = page[body.clone()].lines();
        let lines = lines.map(|line| line.strip_prefix(&indentation).unwrap_or(line.trim_start()));
        let text = lines.map(|line| format!("{line}\n")).collect();
        Block { info, line: line_at(page, range.start), text, body, indentation }
    }

    /// The change after which the block says `text`.
    pub fn rewrite(&self, text: &str) -> Fix {
        let line = |line: &str| match line {
            "" => "\n".to_owned(),
            line => format!("{}{line}\n", self.indentation),
        };
        Fix { range: self.body.clone(), text: text.lines().map(line).collect() }
    }
}

/// The line, from 1, of a byte.
pub fn line_at(text: &str, byte: usize) -> usize {
    text[..byte].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_belong_to_the_block_right_below() {
        let text = "# T\n\n<!-- file: a.toml -->\n<!-- ANCHOR: x -->\n<!-- source: b.toml#part -->\n```toml\nx = 1\n\n  y = 2\n```\n\n\
                    <!-- transcript: run -->\nSome text\n\n```sh\n```\n<!-- a remark: none of ours -->\n";
        let document = Document::parse("a.md", text);
        let marks: Vec<_> =
            document.marks.iter().map(|m| (&m.key[..], &m.value[..], m.line, m.block)).collect();
        assert_eq!(
            marks,
            [
                ("file", "a.toml", 3, Some(0)),
                ("source", "b.toml#part", 5, Some(0)),
                ("transcript", "run", 12, None)
            ]
        );
        assert_eq!((&document.blocks[0].text[..], document.blocks[0].line), ("x = 1\n\n  y = 2\n", 6));
        assert_eq!((&document.blocks[1].text[..], &document.blocks[1].info[..]), ("", "sh"));
        assert_eq!(document.marked("source").count(), 1);
    }

    #[test]
    fn a_block_is_rewritten_where_it_stands() {
        for (page, then) in [
            ("a\n\n```sh\nold\n```\nb\n", "a\n\n```sh\nnew\n\nline\n```\nb\n"),
            ("1. a\n   ```sh\n   old\n   ```\n", "1. a\n   ```sh\n   new\n\n   line\n   ```\n"),
            ("- ```sh\n  ```\n", "- ```sh\n  new\n\n  line\n  ```\n"),
        ] {
            let document = Document::parse("a.md", page);
            let fix = document.blocks[0].rewrite("new\n\nline\n");
            let mut text = page.to_owned();
            text.replace_range(fix.range, &fix.text);
            assert_eq!(text, then);
            assert_eq!(Document::parse("a.md", &text).blocks[0].text, "new\n\nline\n");
        }
    }

    #[test]
    fn links_and_anchors_are_those_of_github() {
        let text = "# Say `what?` & why\n## Twice\n## Twice\n<a id=\"here\"></a>\n\n| [a](b.md) | x |\n|---|---|\n\
                    | y | ![p](p.png) |\n\n[r]: c.md#d\n\nsee [r] and <img src=\"i.svg\">\n";
        let document = Document::parse("a.md", text);
        let anchors: Vec<_> = document.anchors.iter().map(String::as_str).collect();
        assert_eq!(anchors, ["here", "say-what--why", "twice", "twice-1"]);
        let links: Vec<_> = document.links.iter().map(|link| (&link.target[..], link.line)).collect();
        assert_eq!(links, [("b.md", 6), ("p.png", 8), ("c.md#d", 12), ("i.svg", 12)]);
    }
}
