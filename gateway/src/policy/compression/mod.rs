//! `[compression]`: compresses responses if the client accepts that and the compression saves enough.
//!
//! Compression affects more than the 200. A 206 and a 304 must have the same fields as the 200 to the same
//! request (RFC 9110 15.3.7 and 15.4.5), and so must a response to HEAD (9.3.2). But a 304 does not name the
//! media type of the resource, and a 206 need not. Therefore the fields that do not depend on the media type
//! are added to every response.
//!
//! The gateway does not use Pingora's module, because that module has three faults. It uses the first coding
//! that the client names, regardless of the weight; it does not end a body that it compresses with Brotli; and
//! it delays data that should be sent at once.

mod encoder;
mod entity_tag;

pub use encoder::Encoder;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, IF_NONE_MATCH, RANGE, TRAILER, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

use super::add_vary;
use crate::config::{self, Coding, CompressionLevel, MediaTypes};
use crate::util::{accept, decimal, field_list};

/// Fields with a digest of the exact bytes of a body (RFC 9530, RFC 3230, and the older Content-MD5).
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// Media type of server-sent events. Events are small and must arrive at once, so they are not compressed even
/// if `types` lists this type.
const EVENTS: &str = "text/event-stream";

/// The compiled `[compression]` table.
pub struct Compression {
    codings: Vec<Coding>,
    level: CompressionLevel,
    types: Vec<MediaTypes>,
    min_bytes: u64,
}

impl From<&config::Compression> for Compression {
    fn from(config: &config::Compression) -> Self {
        Compression {
            codings: config.algorithms.clone(),
            level: config.level,
            types: config.types.clone(),
            min_bytes: config.min_bytes,
        }
    }
}

/// Returns the name of a coding in `Content-Encoding`.
fn name(coding: Coding) -> &'static str {
    match coding {
        Coding::Zstd => "zstd",
        Coding::Br => "br",
        Coding::Gzip => "gzip",
    }
}

impl Compression {
    /// Decides if the response to `request` is compressed, and changes the response head accordingly. Returns
    /// the encoder of the body; `None` if the body stays uncompressed or there is no body.
    ///
    /// # Errors
    /// Returns an error if Pingora refuses a field, which it does not do for these, or if the encoder cannot be
    /// created.
    pub fn on_response(
        &self,
        request: &RequestHeader,
        response: &mut ResponseHeader,
    ) -> Result<Option<Encoder>> {
        if response.status.is_informational() {
            return Ok(None);
        }
        // Every response gets Vary, because a 304 or 206 must have the same Vary as the 200 but does not name
        // the media type of the whole resource.
        add_vary(response, "Accept-Encoding")?;
        let coding = self.choose(&request.headers).filter(|_| may_change(request));
        if response.status == StatusCode::NOT_MODIFIED
            && holds_compressed(request, response, coding.is_some())
        {
            return weaken(response).map(|()| None);
        }
        let Some(coding) = coding.filter(|_| self.is_worth_it(response)) else { return Ok(None) };
        let length = length(response);
        response.insert_header(CONTENT_ENCODING, name(coding))?;
        response.remove_header(&CONTENT_LENGTH);
        response.remove_header(&ACCEPT_RANGES);
        weaken(response)?;
        if request.method == Method::HEAD {
            return Ok(None);
        }
        // Pingora omits this field over HTTP/2.
        response.insert_header(TRANSFER_ENCODING, "chunked")?;
        Encoder::new(coding, self.level, length).map(Some)
    }

    /// Returns true if the response can be compressed and the compression saves enough.
    fn is_worth_it(&self, response: &ResponseHeader) -> bool {
        let has = |name: &HeaderName| response.headers.contains_key(name);
        let bodiless = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED];
        let is_whole = response.status != StatusCode::PARTIAL_CONTENT && !has(&CONTENT_RANGE);
        is_whole
            && !bodiless.contains(&response.status)
            && !has(&CONTENT_ENCODING)
            // Trailers could not follow, because Pingora ends the body with the data that is flushed last.
            && !has(&TRAILER)
            && !DIGESTS.iter().any(has)
            && !forbids_change(&response.headers)
            && length(response).is_none_or(|length| length >= self.min_bytes && length > 0)
            && self.is_of_type(response)
    }

    fn is_of_type(&self, response: &ResponseHeader) -> bool {
        let Some(kind) = response.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else {
            return false;
        };
        let kind = kind.split(';').next().unwrap_or_default().trim();
        !kind.eq_ignore_ascii_case(EVENTS) && self.types.iter().any(|types| types.contains(kind))
    }

    /// Returns the coding with the highest weight in Accept-Encoding, and among equals the first in the
    /// configuration (RFC 9110 12.5.3). Returns `None` if the client prefers an uncompressed body or accepts
    /// none of the codings.
    fn choose(&self, request: &HeaderMap) -> Option<Coding> {
        let (mut others, mut plain) = (0, None);
        let mut weights: Vec<Option<u16>> = vec![None; self.codings.len()];
        for (coding, weight) in accept::entries(request, ACCEPT_ENCODING).flatten() {
            let is_it = |ours: &Coding| {
                coding.eq_ignore_ascii_case(name(*ours))
                    || *ours == Coding::Gzip && coding.eq_ignore_ascii_case("x-gzip")
            };
            if coding == "*" {
                others = weight;
            } else if coding.eq_ignore_ascii_case("identity") {
                plain = Some(weight);
            } else if let Some(place) = self.codings.iter().position(is_it) {
                weights[place] = Some(weight);
            }
        }
        let weighted =
            self.codings.iter().zip(&weights).map(|(coding, weight)| (*coding, weight.unwrap_or(others)));
        let best = weighted.reduce(|best, next| if next.1 > best.1 { next } else { best });
        best.filter(|(_, weight)| *weight > 0 && *weight >= plain.unwrap_or(0)).map(|(coding, _)| coding)
    }
}

/// Returns true if the response to `request` may be compressed at all. A response to a request with Range stays
/// uncompressed, because a 206 and a 200 to the same request must be of the same representation.
fn may_change(request: &RequestHeader) -> bool {
    // Before HTTP/1.1, only the end of the connection can end a body of unknown length.
    request.version > Version::HTTP_10
        && !forbids_change(&request.headers)
        && !request.headers.contains_key(RANGE)
}

/// Returns true if the client that gets this 304 has the compressed form of the resource: its If-None-Match
/// then lists the weak form of the response's tag. If the client lists the weak and the strong form,
/// `compresses` decides: it is true if the client would get the compressed form now.
fn holds_compressed(request: &RequestHeader, response: &ResponseHeader, compresses: bool) -> bool {
    let Some(Some((false, tag))) = response.headers.get(ETAG).map(|tag| entity_tag::tags(tag).next()) else {
        return false;
    };
    let has = |weak: bool| {
        let lines = request.headers.get_all(IF_NONE_MATCH).into_iter();
        lines.flat_map(entity_tag::tags).any(|listed| listed == (weak, tag))
    };
    has(true) && (compresses || !has(false))
}

/// Returns true if Cache-Control has `no-transform` (RFC 9111 5.2.1.6 and 5.2.2.6).
fn forbids_change(headers: &HeaderMap) -> bool {
    field_list::has(headers, CACHE_CONTROL, "no-transform")
}

fn length(response: &ResponseHeader) -> Option<u64> {
    decimal::strict(response.headers.get(CONTENT_LENGTH)?.as_bytes()).ok()
}

/// Makes a strong entity tag weak, because the compressed body has the same meaning but not the same bytes (RFC
/// 9110 8.8.1). Removes a malformed tag.
fn weaken(response: &mut ResponseHeader) -> Result<()> {
    let Some(strong) = response.headers.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/")) else {
        return Ok(());
    };
    let weak = HeaderValue::from_bytes(&[b"W/", strong.as_bytes()].concat());
    let weak = weak.ok().filter(|_| strong.as_bytes().starts_with(b"\""));
    match weak {
        Some(weak) => response.insert_header(ETAG, weak),
        None => {
            response.remove_header(&ETAG);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(toml: &str) -> Compression {
        Compression::from(&toml::from_str::<config::Compression>(toml).unwrap())
    }

    fn request(fields: &[(&'static str, &'static str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    fn response(status: u16, fields: &[(&'static str, &'static str)]) -> ResponseHeader {
        let mut response = ResponseHeader::build(status, None).unwrap();
        for (name, value) in fields {
            response.append_header(*name, *value).unwrap();
        }
        response
    }

    #[test]
    fn coding_follows_client_weight_then_configured_order() {
        let choose =
            |accepted: &'static str| policy("").choose(&request(&[("accept-encoding", accepted)]).headers);
        for (accepted, coding) in [
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("gzip, br", Some(Coding::Br)),
            ("gzip", Some(Coding::Gzip)),
            ("X-GZIP", Some(Coding::Gzip)),
            ("gzip;q=1, br;q=0.9, zstd;q=0.8", Some(Coding::Gzip)),
            ("gzip;q=0.5, *;q=0.1", Some(Coding::Gzip)),
            ("*", Some(Coding::Zstd)),
            ("zstd;q=0, *", Some(Coding::Br)),
            ("zstd;q=0, br;q=0, gzip;q=0", None),
            ("*;q=0", None),
            ("identity;q=0", None),
            ("identity;q=0, gzip;q=0.1", Some(Coding::Gzip)),
            ("gzip;q=0.5, identity", None),
            ("gzip;q=0.5, identity;q=0.5", Some(Coding::Gzip)),
            ("deflate", None),
            ("", None),
            ("gzip;q=nonsense", None),
            ("gzip;q=nonsense, br", Some(Coding::Br)),
        ] {
            assert_eq!(choose(accepted), coding, "{accepted:?}");
        }
        assert_eq!(policy("").choose(&HeaderMap::new()), None);
        let only = policy("algorithms = [\"gzip\"]");
        assert_eq!(only.choose(&request(&[("accept-encoding", "zstd, br")]).headers), None);
    }

    #[test]
    fn only_compressible_responses_are_worth_it() {
        let html = ("content-type", "text/html; charset=utf-8");
        for (status, fields, worth) in [
            (200, &[html][..], true),
            (404, &[html, ("content-length", "5000")], true),
            (200, &[html, ("content-length", "1023")], false),
            (200, &[html, ("content-length", "1024")], true),
            (204, &[html], false),
            (304, &[html], false),
            (206, &[html], false),
            (200, &[html, ("content-range", "bytes 0-1/2")], false),
            (200, &[html, ("content-encoding", "gzip")], false),
            (200, &[html, ("cache-control", "public, No-Transform")], false),
            (200, &[html, ("content-digest", "sha-256=::")], false),
            (200, &[html, ("trailer", "x-sum")], false),
            (200, &[("content-type", "application/problem+json")], true),
            (200, &[("content-type", "image/svg+xml")], true),
            (200, &[("content-type", "image/png")], false),
            (200, &[("content-type", "application/zip")], false),
            (200, &[("content-type", "text/event-stream")], false),
            (200, &[("content-type", "application/grpc")], false),
            (200, &[], false),
        ] {
            assert_eq!(policy("").is_worth_it(&response(status, fields)), worth, "{status} {fields:?}");
        }
        let all_text = policy("types = [\"text/*\"]\nmin_bytes = 0");
        assert!(!all_text.is_worth_it(&response(200, &[("content-type", "text/event-stream; x=y")])));
        assert!(!all_text.is_worth_it(&response(200, &[html, ("content-length", "0")])));
    }

    #[test]
    fn head_matches_the_compressed_body() {
        let page = [
            ("content-type", "text/html"),
            ("content-length", "5000"),
            ("accept-ranges", "bytes"),
            ("etag", "\"v1\""),
            ("vary", "Cookie"),
        ];
        let mut compressed = response(200, &page);
        let encoder =
            policy("").on_response(&request(&[("accept-encoding", "gzip")]), &mut compressed).unwrap();
        assert!(encoder.is_some());
        let all = |head: &ResponseHeader| {
            let mut all: Vec<String> = head
                .headers
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            all.sort_unstable();
            all
        };
        let head = [
            "content-encoding: gzip",
            "content-type: text/html",
            "etag: W/\"v1\"",
            "transfer-encoding: chunked",
            "vary: Accept-Encoding",
            "vary: Cookie",
        ];
        assert_eq!(all(&compressed), head);

        let mut of_head = response(200, &page);
        let mut asked = request(&[("accept-encoding", "gzip")]);
        asked.set_method(Method::HEAD);
        assert!(policy("").on_response(&asked, &mut of_head).unwrap().is_none());
        let without_framing = head.into_iter().filter(|field| !field.starts_with("transfer"));
        assert_eq!(all(&of_head), without_framing.collect::<Vec<_>>(), "HEAD says what GET would");
    }

    #[test]
    fn plain_response_is_unchanged_except_for_vary() {
        let cases =
            [request(&[]), request(&[("accept-encoding", "gzip"), ("cache-control", "no-transform")])];
        let mut old = request(&[("accept-encoding", "gzip")]);
        old.set_version(Version::HTTP_10);
        for request in cases.into_iter().chain([old]) {
            let mut plain = response(
                200,
                &[("content-type", "text/html"), ("content-length", "5000"), ("etag", "\"1\"")],
            );
            assert!(policy("").on_response(&request, &mut plain).unwrap().is_none());
            assert_eq!(plain.headers["vary"], "Accept-Encoding");
            assert_eq!(plain.headers["content-length"], "5000");
            assert_eq!(plain.headers["etag"], "\"1\"");
        }
    }

    #[test]
    fn head_of_206_and_304_matches_the_200() {
        let gzip = ("accept-encoding", "gzip");
        let part = ("range", "bytes=0-99");
        let tagged = ("etag", "\"v1\"");
        let said = |asked: &[(&'static str, &'static str)], status: u16, kind: Option<&'static str>| {
            let kind = kind.map(|kind| ("content-type", kind));
            let fields: Vec<_> = [tagged, ("content-length", "5000")].into_iter().chain(kind).collect();
            let mut head = response(status, &fields);
            policy("").on_response(&request(asked), &mut head).unwrap();
            let text = |name: &str| head.headers[name].to_str().unwrap().to_owned();
            (text("etag"), text("vary"))
        };
        for kind in ["text/html", "image/jpeg"] {
            for asked in [&[gzip, part][..], &[part]] {
                // A 206 with several ranges has another media type than the resource.
                for of_part in [kind, "multipart/byteranges; boundary=x"] {
                    let whole = said(asked, 200, Some(kind));
                    assert_eq!(said(asked, 206, Some(of_part)), whole, "{kind} {asked:?}");
                }
            }
            for accepted in [&[gzip][..], &[]] {
                let (tag, vary) = said(accepted, 200, Some(kind));
                let condition = ("if-none-match", &*tag.clone().leak());
                let asked: Vec<_> = accepted.iter().copied().chain([condition]).collect();
                assert_eq!(said(&asked, 304, None), (tag, vary), "{kind} {asked:?}");
            }
        }
    }

    #[test]
    fn tag_of_304_is_the_one_that_the_client_holds() {
        for (accepted, listed, tag) in [
            ("gzip", "\"v1\"", "\"v1\""),
            ("gzip", "W/\"v1\"", "W/\"v1\""),
            ("", "W/\"v1\"", "W/\"v1\""),
            ("gzip", "\"v0\", W/\"v1\"", "W/\"v1\""),
            ("gzip", "\"v1\", W/\"v1\"", "W/\"v1\""),
            ("", "\"v1\", W/\"v1\"", "\"v1\""),
            ("gzip", "W/\"v0\"", "\"v1\""),
            ("gzip", "*", "\"v1\""),
        ] {
            let mut head = response(304, &[("etag", "\"v1\"")]);
            let asked = request(&[("accept-encoding", accepted), ("if-none-match", listed)]);
            assert!(policy("").on_response(&asked, &mut head).unwrap().is_none());
            assert_eq!(head.headers["etag"], tag, "{accepted:?} {listed}");
            assert_eq!(head.headers["vary"], "Accept-Encoding");
        }
    }

    #[test]
    fn strong_tag_becomes_weak_and_malformed_is_removed() {
        for (tag, weak) in [("\"a\"", Some("W/\"a\"")), ("W/\"a\"", Some("W/\"a\"")), ("a", None)] {
            let mut head = response(200, &[("etag", tag)]);
            weaken(&mut head).unwrap();
            assert_eq!(head.headers.get(ETAG).map(|tag| tag.to_str().unwrap()), weak);
        }
    }
}
