//! Faults of a configuration, each with its position in the file.

use std::fmt::{self, Write as _};

/// Position in a text. Lines and columns are counted from 1; a column is a character, not a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line number, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
}

/// Fault of a configuration, such as an unknown key or an invalid value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Name of the file, variable or option in which the fault was found.
    pub source: String,
    /// Position in the file; `None` if the source is no file or the position is not known.
    pub position: Option<Position>,
    /// JSON pointer to the faulty key (RFC 6901); empty if the key is not known.
    pub pointer: String,
    /// Description of the fault, and of the correct value if that is known.
    pub detail: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(Position { line, column }) => write!(f, "{}:{line}:{column}: ", self.source)?,
            None => write!(f, "{}: ", self.source)?,
        }
        // A detail may quote a line break from the configuration. It is escaped, because the rest of the detail would
        // otherwise look like a separate line of the log.
        self.detail.chars().try_for_each(|c| match c.is_control() {
            true => write!(f, "{}", c.escape_default()),
            false => f.write_char(c),
        })
    }
}

/// Faults of a configuration, in the order of the file. The displayed text has a line for each fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// Faults; never empty.
    pub faults: Vec<Fault>,
}

impl ConfigError {
    /// Creates an error with `faults`, sorted by position; faults without a position come last.
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
    fn fault_with_line_break_is_displayed_in_one_line() {
        let position = Some(Position { line: 2, column: 3 });
        let detail = "unknown key `ä\n\u{1b}[2J`".to_owned();
        let fault = Fault { source: "file".to_owned(), position, pointer: String::new(), detail };
        assert_eq!(fault.to_string(), "file:2:3: unknown key `ä\\n\\u{1b}[2J`");
    }
}
