//! Checks of host names as clients write them. Each host has one normal form, by which its virtual host is found.

use gateway::config::{Domain, normalise_host};
use gateway::route::HostTable;

/// Checks that every valid host has one normal form, that the normal form of the normal form is the same, and
/// that both spellings find the virtual host of that name.
pub fn check(input: &[u8]) {
    let Ok(written) = std::str::from_utf8(input) else { return };
    let Ok(form) = normalise_host(written) else {
        return assert!(written.parse::<Domain>().map_or(true, |domain| !matches!(domain, Domain::Exact(_))));
    };
    assert!(is_plain(&form), "{form:?}, the form of {written:?}, is none");
    assert_eq!(normalise_host(&form).as_deref(), Ok(&*form), "the form of {written:?} has another form");
    let domain = form.parse();
    assert_eq!(domain, Ok(Domain::Exact(form.clone().into_owned())), "no virtual host can be {form:?}");

    let mut hosts = HostTable::default();
    hosts.insert(Domain::Exact(form.clone().into_owned()), ());
    for way in [written.to_owned(), written.to_ascii_uppercase(), format!("{form}:"), format!("{form}:65535")]
    {
        assert_eq!(hosts.find(Some(&way)), Ok(Some(&())), "{way:?} is not found by {form:?}");
    }
}

/// Returns true if `form` is in lower case, has no port and no dot at its end, and no character with a meaning
/// in a URL, a log or a path.
fn is_plain(form: &str) -> bool {
    let name =
        |name: &str| name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'));
    let literal =
        |text: &str| text.bytes().all(|byte| matches!(byte, b'a'..=b'f' | b'0'..=b'9' | b':' | b'.'));
    match form.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => literal(address),
        None => !form.is_empty() && !form.starts_with('.') && !form.ends_with('.') && name(form),
    }
}
