//! Checks of paths as clients write them. Each path has one normal form, by which routes and their policies are
//! found.

use std::fmt::Write as _;

use gateway::config::{BadPath, ReadPath, read_path};

/// Checks that every accepted path has one normal form without dot segments, that all spellings of a path have
/// the same form, and that the path sent to the backend has it, too.
pub fn check(input: &[u8]) {
    let Ok(written) = std::str::from_utf8(input) else { return };
    let Ok(read) = read_path(written) else { return };
    let form = &*read.compared;
    for reading in read.others.iter().map(String::as_str).chain([form]) {
        assert!(reading.starts_with('/'), "{reading:?}, a reading of {written:?}, is no path");
        assert!(!reading.contains("//"), "{reading:?}, a reading of {written:?}, has an empty segment");
        let leads_elsewhere = reading.split('/').any(|segment| matches!(segment, "." | ".."));
        assert!(!leads_elsewhere, "{reading:?}, a reading of {written:?}, leads elsewhere");
    }
    if !written.starts_with('/') {
        return;
    }
    assert_eq!(compared(&read_path(form)), Ok(form), "the form of {written:?} has another form");
    let sent = &*read.sent;
    assert_eq!(compared(&read_path(sent)), Ok(form), "{sent:?}, sent for {written:?}, is another path");
    for way in [format!("/{written}"), format!("/.{written}"), format!("/x/%2e.{written}"), all_encoded(form)]
    {
        assert_eq!(compared(&read_path(&way)), Ok(form), "{way:?} is another way to write {written:?}");
    }
}

fn compared<'r>(read: &'r Result<ReadPath<'_>, BadPath>) -> Result<&'r str, BadPath> {
    read.as_ref().map(|read| &*read.compared).map_err(|bad| *bad)
}

/// Percent-encodes every character of the path that has the same meaning when it is encoded.
fn all_encoded(path: &str) -> String {
    let mut encoded = String::new();
    let mut left = 0;
    for c in path.chars() {
        // The two hexadecimal digits after a percent sign are part of the encoding.
        match (c, left) {
            ('%', _) => left = 2,
            (_, 1..) => left -= 1,
            (c, 0) if c.is_ascii_alphanumeric() || "-._~".contains(c) => {
                let _ = write!(encoded, "%{:02x}", u32::from(c));
                continue;
            }
            _ => {}
        }
        encoded.push(c);
    }
    encoded
}
