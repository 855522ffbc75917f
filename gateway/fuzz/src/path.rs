//! Paths, as clients write them: each has one form, by which routes and their policies are found.

use std::fmt::Write as _;

use gateway::config::normalise_path;

/// Every path has one form, which leads nowhere else; and however it is written, it is the same.
pub fn check(input: &[u8]) {
    let Ok(written) = std::str::from_utf8(input) else { return };
    let form = normalise_path(written);
    assert!(form.starts_with('/'), "{form:?}, the form of {written:?}, is no path");
    assert_eq!(normalise_path(&form), form, "the form of {written:?} has another form");
    for segment in form.split('/') {
        assert!(!matches!(segment, "." | ".."), "{form:?}, the form of {written:?}, leads elsewhere");
    }
    assert!(!form.contains("//"), "{form:?}, the form of {written:?}, has an empty segment");
    if !written.starts_with('/') {
        return;
    }
    for way in [format!("/{written}"), format!("/.{written}"), format!("/x/%2e.{written}")] {
        assert_eq!(normalise_path(&way), form, "{way:?} is another way to write {written:?}");
    }
    if !has_stray_percent(written) {
        let way = all_encoded(&form);
        assert_eq!(normalise_path(&way), form, "{way:?} is another way to write {form:?}");
    }
}

/// Whether a percent sign begins nothing that is encoded.
fn has_stray_percent(path: &str) -> bool {
    let hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let bytes = path.as_bytes();
    bytes
        .iter()
        .enumerate()
        .any(|(i, byte)| *byte == b'%' && !(hex(bytes.get(i + 1)) && hex(bytes.get(i + 2))))
}

/// The path with everything encoded that can be without another meaning.
fn all_encoded(path: &str) -> String {
    let mut encoded = String::new();
    let mut left = 0;
    for c in path.chars() {
        // The two digits behind a percent sign are no characters of their own.
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
