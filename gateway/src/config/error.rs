//! Faults of a configuration, and their positions.

use std::fmt::{self, Write as _};

/// Position in a text; line and column count from 1, and columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Character in the line.
    pub column: usize,
}

/// Single fault of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Name of the file, variable or option that holds the fault.
    pub source: String,
    /// Position in the file, if the source is a file and the position is known.
    pub position: Option<Position>,
    /// JSON pointer to the key (RFC 6901); empty if it is not known.
    pub pointer: String,
    /// Description of the fault and, if known, the correct value.
    pub detail: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(Position { line, column }) => write!(f, "{}:{line}:{column}: ", self.source)?,
            None => write!(f, "{}: ", self.source)?,
        }
        // A detail may quote a line break from the configuration. Escaping keeps such text from forging a line of the
        // log.
        self.detail.chars().try_for_each(|c| match c.is_control() {
            true => write!(f, "{}", c.escape_default()),
            false => f.write_char(c),
        })
    }
}

/// Every fault of a configuration, in the order of the file; displayed with one line per fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// Faults; never empty.
    pub faults: Vec<Fault>,
}

impl ConfigError {
    /// Creates an error with its faults sorted by position; faults without a position come last.
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
