//! Server-sent events (HTML, 9.2). They pass like any response; but they may be silent for long.

use http::{HeaderMap, header};

/// Whether the client asks for events: `text/event-stream` is among what it accepts, as it is for every browser's
/// `EventSource`. Known from the request because the timeouts of a connection to a backend are settled before
/// there is a response.
pub fn is_asked_for(request: &HeaderMap) -> bool {
    let is_events = |kind: &[u8]| {
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    };
    let accepted = request.get_all(header::ACCEPT).into_iter();
    accepted.flat_map(|kinds| kinds.as_bytes().split(|byte| *byte == b',')).any(is_events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_asked_for_by_their_type() {
        for (lines, asked) in [
            (&["text/event-stream"][..], true),
            (&["Text/Event-Stream; charset=utf-8"], true),
            (&["application/json, text/event-stream;q=0.9"], true),
            (&["application/json", "text/event-stream"], true),
            (&["text/*", "*/*"], false),
            (&["text/event-streams"], false),
            (&[], false),
        ] {
            let mut request = HeaderMap::new();
            for line in lines {
                request.append(header::ACCEPT, line.parse().unwrap());
            }
            assert_eq!(is_asked_for(&request), asked, "{lines:?}");
        }
    }
}
