//! Values of the fields that the access log can show.

use std::borrow::Cow;
use std::io::{self, Write};
use std::net::IpAddr;

use http::header;
use serde::{Serialize, Serializer};

use crate::config::{AccessField, is_secret};
use crate::telemetry::record::{MAX_USER, Phase, Record, Timeline, beginning};
use crate::util::ip_text;

/// Maximum length of a field that the client chooses freely, in bytes.
const MAX_TEXT: usize = 1024;

/// Value of a field. A text that the client has chosen may contain anything.
pub(super) enum Value<'a> {
    Absent,
    Text(Cow<'a, str>),
    Number(u64),
    Milliseconds(f64),
    Address(IpAddr),
}

impl<'a> Value<'a> {
    /// Returns the value of `field` for a request. `timestamp` is the time of its end, as in RFC 3339.
    pub(super) fn of(field: AccessField, record: &Record<'a>, timestamp: &'a str) -> Value<'a> {
        let uri = &record.request.uri;
        let header = |name| {
            let value =
                record.request.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
            Value::maybe(value.map(|text| match text {
                Cow::Borrowed(text) => Cow::Borrowed(beginning(text, MAX_TEXT)),
                Cow::Owned(text) => Cow::Owned(beginning(&text, MAX_TEXT).to_owned()),
            }))
        };
        match field {
            AccessField::Timestamp => Value::Text(timestamp.into()),
            AccessField::TimeLocal => Value::Text(time_local(timestamp).into()),
            AccessField::Request => {
                let (question, query) =
                    uri.query().map_or(("", Cow::default()), |query| ("?", masked(query)));
                let (method, path, version) = (record.method, record.path, record.request.version);
                Value::Text(format!("{method} {path}{question}{query} {version:?}").into())
            }
            AccessField::Method => Value::Text(record.method.into()),
            AccessField::Host => Value::Text(record.host.into()),
            AccessField::Path => Value::Text(record.path.into()),
            AccessField::Query => Value::maybe(uri.query().map(masked)),
            AccessField::Protocol => Value::Text(format!("{:?}", record.request.version).into()),
            AccessField::Status => Value::Number(record.status.into()),
            AccessField::GrpcStatus => {
                record.grpc_status.map_or(Value::Absent, |it| Value::Number(it.into()))
            }
            AccessField::DurationMs => milliseconds(record.duration),
            AccessField::RequestId => Value::Text(record.request_id.into()),
            AccessField::Client => record.client.map_or(Value::Absent, Value::Address),
            AccessField::User => Value::maybe(record.user.map(|user| beginning(user, MAX_USER).into())),
            AccessField::VirtualHost => Value::named(record.way.virtual_host),
            AccessField::Route => Value::named(record.way.route),
            AccessField::Tag => Value::named(record.way.tag),
            AccessField::Backend => Value::maybe(record.backend.map(Cow::from)),
            AccessField::Bytes => Value::Number(record.bytes),
            AccessField::BytesReceived => Value::Number(record.bytes_received),
            AccessField::Attempts => Value::Number(record.attempts.into()),
            AccessField::Error => Value::maybe(record.error.map(Cow::from)),
            AccessField::UserAgent => header(header::USER_AGENT),
            AccessField::Referer => header(header::REFERER),
            AccessField::TlsVersion => Value::maybe(record.tls.map(|tls| (&*tls.version).into())),
            AccessField::TlsCipher => Value::maybe(record.tls.map(|tls| (&*tls.cipher).into())),
            AccessField::ServerName => Value::maybe(record.server_name.map(Cow::from)),
            AccessField::UpstreamConnectMs => {
                between(record, Phase::UpstreamPeer, Phase::ConnectedToUpstream)
            }
            AccessField::UpstreamResponseMs => {
                between(record, Phase::ConnectedToUpstream, Phase::ResponseFilter)
            }
            AccessField::UpstreamMs => {
                let began = record.timeline.and_then(|timeline| timeline.last(Phase::UpstreamPeer));
                began.map_or(Value::Absent, |began| milliseconds(record.duration.saturating_sub(began)))
            }
        }
    }

    fn maybe(text: Option<Cow<'a, str>>) -> Value<'a> {
        text.map_or(Value::Absent, Value::Text)
    }

    fn named(text: &'a str) -> Value<'a> {
        Value::maybe(Some(text).filter(|text| !text.is_empty()).map(Cow::from))
    }

    /// Writes the value for `name=value`. A text that could be mistaken for something else is quoted.
    pub(super) fn write_text(&self, line: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Value::Text(text) if text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"') => {
                line.write_all(text.as_bytes())
            }
            Value::Text(text) => write!(line, "{text:?}"),
            other => other.write_escaped(line),
        }
    }

    /// Writes the value as Apache and nginx do: control characters, quotes, backslashes and bytes beyond ASCII become
    /// `\\xHH`, so that they can end neither a quoted field nor the line.
    pub(super) fn write_escaped(&self, line: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Value::Absent => line.write_all(b"-"),
            Value::Number(number) => write!(line, "{number}"),
            Value::Milliseconds(number) => write!(line, "{number:.3}"),
            Value::Address(address) => {
                ip_text::push(line, *address);
                Ok(())
            }
            Value::Text(text) => {
                for byte in text.bytes() {
                    match byte {
                        b' '..=b'~' if !matches!(byte, b'"' | b'\\') => line.push(byte),
                        _ => write!(line, "\\x{byte:02X}")?,
                    }
                }
                Ok(())
            }
        }
    }
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Absent => serializer.serialize_none(),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Number(number) => serializer.serialize_u64(*number),
            Value::Milliseconds(number) => serializer.serialize_f64(*number),
            Value::Address(address) => address.serialize(serializer),
        }
    }
}

fn milliseconds<'a>(duration: std::time::Duration) -> Value<'a> {
    Value::Milliseconds((duration.as_secs_f64() * 1_000_000.0).round() / 1000.0)
}

/// Returns the time from the last `begin` to the `end` after it.
fn between<'a>(record: &Record<'_>, begin: Phase, end: Phase) -> Value<'a> {
    let phases = |timeline: &Timeline| timeline.last(end)?.checked_sub(timeline.last(begin)?);
    record.timeline.and_then(phases).map_or(Value::Absent, milliseconds)
}

/// Returns a query with `***` in place of each value that may be secret.
fn masked(query: &str) -> Cow<'_, str> {
    if !query.split('&').any(|pair| is_secret(pair.split('=').next().unwrap_or_default())) {
        return beginning(query, MAX_TEXT).into();
    }
    let mask = |pair: &'_ str| match pair.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}=***"),
        _ => pair.to_owned(),
    };
    let masked = query.split('&').map(mask).collect::<Vec<_>>().join("&");
    beginning(&masked, MAX_TEXT).to_owned().into()
}

/// Returns a timestamp of RFC 3339 in the form of the Common Log Format.
fn time_local(timestamp: &str) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let part = |range: std::ops::Range<usize>| timestamp.get(range).unwrap_or_default();
    let month = part(5..7).parse::<usize>().ok().and_then(|month| MONTHS.get(month.checked_sub(1)?));
    format!("{}/{}/{}:{} +0000", part(8..10), month.unwrap_or(&"-"), part(0..4), part(11..19))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_parameters_that_may_be_secret_are_masked() {
        for (query, shown) in [
            ("a=1&page=2", "a=1&page=2"),
            ("a=1&access_token=abc&b", "a=1&access_token=***&b"),
            ("X-Amz-Signature=0f&token", "X-Amz-Signature=***&token"),
        ] {
            assert_eq!(masked(query), shown);
        }
        assert_eq!(masked(&"é".repeat(2000)).len(), MAX_TEXT);
    }

    #[test]
    fn time_of_the_common_log_format_is_made_from_the_timestamp() {
        assert_eq!(time_local("2026-11-30T22:15:54.123456Z"), "30/Nov/2026:22:15:54 +0000");
    }

    #[test]
    fn escaped_text_can_end_neither_a_quoted_field_nor_the_line() {
        let mut line = Vec::new();
        Value::Text("a\" \\ \n é".into()).write_escaped(&mut line).unwrap();
        assert_eq!(line, br"a\x22 \x5C \x0A \xC3\xA9");
    }
}
