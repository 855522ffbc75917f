//! Parser for a Markdown file: fenced blocks, the marks (HTML comments such as `<!-- source: path -->`)
//! directly above them, links, and the anchors that links can lead to.

use std::collections::BTreeSet;
use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::{Fix, Pattern, pattern};

/// Parsed page.
pub struct Document {
    /// Path of the page, from the repository's root.
    pub path: String,
    /// Text of the page.
    pub text: String,
    /// Fenced blocks of the page, in order.
    pub blocks: Vec<Block>,
    /// Marks of the page, in order.
    pub marks: Vec<Mark>,
    /// Links and images of the page.
    pub links: Vec<Link>,
    /// Anchors that a `#fragment` can name.
    pub anchors: BTreeSet<String>,
}

/// Fenced block.
pub struct Block {
    /// Text after the opening fence.
    pub info: String,
    /// Line of the opening fence.
    pub line: usize,
    /// Text of the block, without the block's own indentation.
    pub text: String,
    body: Range<usize>,
    indentation: String,
}

/// Comment `<!-- key: value -->` on a separate line.
pub struct Mark {
    /// Key of the mark, which names the check.
    pub key: String,
    /// Value of the mark; may be empty.
    pub value: String,
    /// Line of the mark.
    pub line: usize,
    /// Bytes of the mark, including the end of its line.
    pub range: Range<usize>,
    /// Index of the page's block directly below the mark.
    pub block: Option<usize>,
}

/// Link or image.
pub struct Link {
    /// Target of the link.
    pub target: String,
    /// Line of the link.
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
        // Index of the first mark that is followed only by other marks so far.
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

    /// Returns the blocks below marks with this key, with the marks.
    pub fn marked(&self, key: &str) -> impl Iterator<Item = (&Mark, &Block)> {
        let marks = self.marks.iter().filter(move |mark| mark.key == key);
        marks.filter_map(|mark| Some((mark, &self.blocks[mark.block?])))
    }

    /// Keeps a comment if it is a mark. `<!-- a remark: like this -->` is not a mark.
    fn comment(&mut self, html: &str, range: Range<usize>) {
        static MARK: Pattern = Pattern::new(|| pattern(r"^\s*<!--\s*(/?[a-z]+)(?::\s*(.*?))?\s*-->\s*$"));
        let Some(found) = MARK.captures(html) else { return };
        let value = found.get(2).map_or("", |value| value.as_str()).to_owned();
        let line = line_at(&self.text, range.start);
        self.marks.push(Mark { key: found[1].to_owned(), value, line, range, block: None });
    }

    /// Keeps the links and anchors in a piece of HTML.
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

    /// Keeps a heading's anchor in GitHub's form. If the anchor already exists, it gets a number.
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
        // In a list, a bullet may precede the fence, and the block is indented by its width.
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

    /// Returns the fix that replaces the text of the block with `text`.
    pub fn rewrite(&self, text: &str) -> Fix {
        let line = |line: &str| match line {
            "" => "\n".to_owned(),
            line => format!("{}{line}\n", self.indentation),
        };
        Fix { range: self.body.clone(), text: text.lines().map(line).collect() }
    }
}

/// Returns the line of a byte, from 1.
pub fn line_at(text: &str, byte: usize) -> usize {
    text[..byte].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_belong_to_the_block_directly_below() {
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
    fn block_is_rewritten_in_place() {
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
    fn links_and_anchors_match_github() {
        let text = "# Say `what?` & why\n## Twice\n## Twice\n<a id=\"here\"></a>\n\n| [a](b.md) | x |\n|---|---|\n\
                    | y | ![p](p.png) |\n\n[r]: c.md#d\n\nsee [r] and <img src=\"i.svg\">\n";
        let document = Document::parse("a.md", text);
        let anchors: Vec<_> = document.anchors.iter().map(String::as_str).collect();
        assert_eq!(anchors, ["here", "say-what--why", "twice", "twice-1"]);
        let links: Vec<_> = document.links.iter().map(|link| (&link.target[..], link.line)).collect();
        assert_eq!(links, [("b.md", 6), ("p.png", 8), ("c.md#d", 12), ("i.svg", 12)]);
    }
}
