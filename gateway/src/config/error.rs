//! What is wrong with a configuration, and where.

use std::fmt::{self, Write as _};

/// A place in a text: both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where it was written: a file's name, or a variable's or option's.
    pub source: String,
    /// Where in the file, if it is one and the place is known.
    pub position: Option<Position>,
    /// Where in the configuration, as a JSON pointer (RFC 6901); empty where that is not known.
    pub pointer: String,
    /// What is wrong and, where that is clear, what to write instead.
    pub detail: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(Position { line, column }) => write!(f, "{}:{line}:{column}: ", self.source)?,
            None => write!(f, "{}: ", self.source)?,
        }
        // A detail quotes what was written, and whoever wrote a line break wrote no second line of the log.
        self.detail.chars().try_for_each(|c| match c.is_control() {
            true => write!(f, "{}", c.escape_default()),
            false => f.write_char(c),
        })
    }
}

/// Everything that is wrong with a configuration, in the order in which it was written; a line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// Never empty.
    pub faults: Vec<Fault>,
}

impl ConfigError {
    /// What has no place in the file comes after what has.
    pub(super) fn in_order(mut faults: Vec<Fault>) -> Self {
        faults.sort_by_key(|fault| (fault.position.is_none(), fault.position));
        ConfigError { faults }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}{fault}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_has_one_line_whatever_it_quotes() {
        let position = Some(Position { line: 2, column: 3 });
        let detail = "unknown key `ä\n\u{1b}[2J`".to_owned();
        let fault = Fault { source: "file".to_owned(), position, pointer: String::new(), detail };
        assert_eq!(fault.to_string(), "file:2:3: unknown key `ä\\n\\u{1b}[2J`");
    }
}
