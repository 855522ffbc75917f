//! Comparison of a program's output with the output on a page. It ignores parts that differ in every run:
//! dates, ids, ephemeral ports, durations, curl's version, and lengths that depend on these.

use std::sync::LazyLock;

use regex::Regex;

use crate::pattern;

/// Replaces the parts that differ in every run.
fn settled(lines: &[String]) -> Vec<String> {
    lines.iter().map(|line| settle(line)).collect()
}

fn settle(line: &str) -> String {
    static RULES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        let rules = [
            (r"\b\w{3}, \d{2} \w{3} \d{4} \d{2}:\d{2}:\d{2} GMT\b", "DATE"),
            (r"\b\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:Z|[+-]\d{2}:\d{2})", "TIME"),
            (r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UUID"),
            (r"\bcurl/\d+(?:\.\d+)+", "curl/VERSION"),
            (r#"(?i)\b(content-length"?: "?)\d+"#, "${1}LENGTH"),
            // The kernel gives ports of this range to programs that ask for any port.
            (r"(\d+\.\d+\.\d+\.\d+|\[[0-9a-f:]+\]):(?:3[2-9]|[45]\d|6[0-5])\d{3}\b", "${1}:PORT"),
            (r"\b\d+(?:\.\d+)?(?:ns|µs|us|ms|s)\b", "DURATION"),
        ];
        rules.map(|(expression, instead)| (pattern(expression), instead)).into()
    });
    let line = line.trim_end().to_owned();
    RULES
        .iter()
        .fold(line, |line, (expression, instead)| expression.replace_all(&line, *instead).into_owned())
}

/// Returns the difference between the lines as a diff, if there is one.
pub fn difference(shown: &[String], came: &[String]) -> Option<String> {
    let (shown, came) = (settled(shown), settled(came));
    (shown != came).then(|| crate::diff(&lines(&shown), &lines(&came)))
}

fn lines(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differ(shown: &str, came: &str) -> Option<String> {
        difference(&[shown.to_owned()], &[came.to_owned()])
    }

    #[test]
    fn parts_that_differ_in_every_run_are_ignored() {
        for (shown, came) in [
            ("Date: Fri, 20 Nov 2026 14:17:39 GMT", "Date: Sat, 02 Jan 2027 00:00:00 GMT"),
            ("[2026-11-20T14:17:39Z INFO x] up", "[2027-01-02T01:02:03Z INFO x] up"),
            ("at 2026-11-20T14:17:39.123+01:00", "at 2026-11-21T14:17:39Z"),
            ("id: 01a1f982-bf47-7773-8531-a865b31b9679", "id: 01a1f983-0000-7773-8531-a865b31b9670"),
            ("\"user-agent\": \"curl/7.88.1\",", "\"user-agent\": \"curl/8.5.0\","),
            ("content-length: 330", "content-length: 329"),
            ("\"content-length\": \"12\"", "\"content-length\": \"9\""),
            ("origins at 127.0.0.1:38123", "origins at 127.0.0.1:60999"),
            ("took 1.2ms, waited 30s", "took 17µs, waited 1s"),
            ("trailing blanks  ", "trailing blanks"),
        ] {
            assert_eq!(differ(shown, came), None, "{shown}");
        }
    }

    #[test]
    fn other_differences_are_reported() {
        for (shown, came) in [
            ("hello from origin A", "hello from origin B"),
            ("HTTP/1.1 200 OK", "HTTP/1.1 502 Bad Gateway"),
            ("listens on http://127.0.0.1:3001", "listens on http://127.0.0.1:3002"),
            ("x-one: 1", ""),
        ] {
            let diff = differ(shown, came).unwrap();
            assert!(diff.contains(&format!("-{shown}")) && diff.contains(&format!("+{came}")), "{diff}");
        }
        assert!(
            difference(&["one".to_owned()], &["one".to_owned(), "two".to_owned()]).unwrap().contains("+two")
        );
    }
}
