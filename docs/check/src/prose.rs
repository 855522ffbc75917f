//! Doc comments and test names that a stranger can read once: the first sentence of a comment names what it documents,
//! and a test's name is no sentence of ten words.
//!
//! This looks at the beginning of each comment, not at its meaning. Few exceptions are allowed in each directory, since
//! some texts are read elsewhere (`--help` is made of doc comments).

use crate::Fault;

/// Words with which a comment begins that does not name the thing.
const OPENERS: [&str; 32] = [
    "What",
    "How",
    "Whether",
    "Who",
    "Whom",
    "Whose",
    "Where",
    "When",
    "Why",
    "Which",
    "It",
    "Its",
    "One",
    "Ones",
    "They",
    "Their",
    "That",
    "Those",
    "Nobody",
    "Somebody",
    "So",
    "And",
    "But",
    "Here",
    "There",
    "Once",
    "Until",
    "Something",
    "Everything",
    "Anything",
    "All",
    "Nothing",
];

/// Maximum length of a test's name, in characters.
const NAME: usize = 60;

/// Maximum share of comments that begin with such a word, in percent of all comments of a directory.
const SHARE: usize = 1;

/// Checks the Rust files of a directory, each with its text.
pub fn check(directory: &str, files: &[(String, String)]) -> Vec<Fault> {
    let (mut count, mut faults) = (0, Vec::new());
    for (file, text) in files {
        for (line, comment) in comments(text) {
            count += 1;
            if let Some(word) = opener(comment) {
                let what = format!(
                    "the comment begins with `{word}`: let its first sentence name the thing\n  {comment}"
                );
                faults.push(Fault::new(file, line, what));
            }
        }
    }
    if faults.len() * 100 <= count * SHARE {
        faults.clear();
    }
    faults.extend(files.iter().flat_map(|(file, text)| {
        long_names(text).map(move |(line, name)| {
            Fault::new(
                file,
                line,
                format!("`{name}` has {} characters; at most {NAME} are allowed", name.len()),
            )
        })
    }));
    if count == 0 {
        faults.push(Fault::new(directory, 0, "there is no Rust file with a comment"));
    }
    faults
}

/// Returns the first line of each doc comment and block of comments, with its number.
fn comments(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_within = false;
    (1..).zip(text.lines()).filter_map(move |(number, line)| {
        let line = line.trim();
        let comment = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        let begins = comment.is_some() && !std::mem::replace(&mut is_within, comment.is_some());
        is_within = comment.is_some();
        comment.filter(|comment| begins && !comment.trim().is_empty()).map(|comment| (number, comment.trim()))
    })
}

fn opener(comment: &str) -> Option<&'static str> {
    let first = comment.split(|letter: char| !letter.is_alphanumeric()).next()?;
    OPENERS.into_iter().find(|opener| *opener == first)
}

/// Returns the names of tests that are too long, with the numbers of their lines.
fn long_names(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_test = false;
    (1..).zip(text.lines()).filter_map(move |(number, line)| {
        let line = line.trim();
        if line.starts_with("#[test") || line.starts_with("#[tokio::test") {
            is_test = true;
            return None;
        }
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
        let name = function.split('(').next()?;
        (std::mem::take(&mut is_test) && name.len() > NAME).then_some((number, name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        check("src", &[("a.rs".to_owned(), text.to_owned())]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn comment_that_names_nothing_is_found() {
        let text = "//! A file.\n\n/// Whether it is so.\n/// What follows counts not.\nfn f() {}\n\n/// Name of it.\n";
        let found = faults(text);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("a.rs:3: the comment begins with `Whether`"), "{found:?}");
        assert_eq!(faults("/// Name of it.\n"), Vec::<String>::new());
    }

    #[test]
    fn few_such_comments_among_many_are_allowed() {
        let many = "/// Name of it.\nfn f() {}\n".repeat(200);
        assert_eq!(faults(&format!("{many}/// What it is.\n")), Vec::<String>::new());
    }

    #[test]
    fn long_name_of_a_test_is_found_and_of_no_other_function() {
        let name = "n".repeat(61);
        let found = faults(&format!("/// A.\nfn {name}() {{}}\n#[tokio::test]\nasync fn {name}() {{}}\n"));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("a.rs:4: "), "{found:?}");
    }
}
