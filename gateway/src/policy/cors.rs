//! `[cors]`: decides which pages of other origins may use a response (CORS, section 3.2 of the fetch standard).
//! The gateway decides instead of the backends: it replaces the CORS fields of a backend's response. Local
//! replies get the same fields, because a script could otherwise not read why its request was refused.

use std::collections::HashSet;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use pingora::Result;
use pingora::http::ResponseHeader;

use super::add_vary;
use crate::config::{self, AllowedOrigin, FieldOrAny};
use crate::reply::{Problem, Reply};
use crate::util::field_list;

/// Request fields, besides Origin, on which the reply to a preflight depends (for Vary).
const ASKED: &str = "Access-Control-Request-Method, Access-Control-Request-Headers";

const ANY: HeaderValue = HeaderValue::from_static("*");

/// The compiled `[cors]` table.
pub struct Cors {
    any_origin: bool,
    origins: HashSet<String>,
    /// Origins with a wildcard for the subdomain: the text before and the text after the wildcard.
    below: Vec<(String, String)>,
    methods: Allowed<Method>,
    headers: Allowed<HeaderName>,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
}

/// Allowed methods or fields, with the header field value that lists them.
struct Allowed<T> {
    any: bool,
    these: Vec<T>,
    said: Option<HeaderValue>,
}

impl<T: AsRef<str>> Allowed<T> {
    fn new(any: bool, these: Vec<T>) -> Self {
        let list = these.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
        let said = if any { Some(ANY) } else { said(&list) };
        Allowed { any, these, said }
    }
}

fn said(list: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(list).ok().filter(|_| !list.is_empty())
}

impl From<&config::Cors> for Cors {
    fn from(config: &config::Cors) -> Self {
        let fields = |fields: &[FieldOrAny]| {
            let names = fields.iter().filter_map(|field| match field {
                FieldOrAny::Field(name) => Some(name.clone()),
                FieldOrAny::Any => None,
            });
            Allowed::new(fields.contains(&FieldOrAny::Any), names.collect())
        };
        let methods: Vec<Method> = config.allow_methods.iter().map(|method| method.0.clone()).collect();
        let (mut origins, mut below) = (HashSet::new(), Vec::new());
        for origin in &config.allow_origins {
            match origin {
                AllowedOrigin::Any => {}
                AllowedOrigin::Exact(origin) => drop(origins.insert(origin.clone())),
                AllowedOrigin::Below(begin, end) => below.push((begin.clone(), end.clone())),
            }
        }
        Cors {
            any_origin: config.allow_origins.contains(&AllowedOrigin::Any),
            origins,
            below,
            methods: Allowed::new(methods.iter().any(|method| method.as_str() == "*"), methods),
            headers: fields(&config.allow_headers),
            expose: fields(&config.expose_headers).said,
            credentials: config.allow_credentials,
            max_age: HeaderValue::from(config.max_age_secs.get()),
        }
    }
}

/// Returns the method that a preflight asks for. Returns `None` if the request is not a preflight.
pub fn asks_for(method: &Method, request: &HeaderMap) -> Option<Method> {
    if *method != Method::OPTIONS || !request.contains_key(ORIGIN) {
        return None;
    }
    let mut asked = request.get_all(ACCESS_CONTROL_REQUEST_METHOD).iter();
    // A browser asks for one method. The gateway does not choose between two methods, because the method
    // selects the route.
    match (asked.next(), asked.next()) {
        (Some(one), None) => Method::from_bytes(one.as_bytes()).ok(),
        _ => None,
    }
}

impl Cors {
    /// Returns the reply to a preflight for `method`. [`Cors::on_reply`] adds the fields that name the allowed
    /// origin.
    pub fn answer(&self, method: &Method, request: &HeaderMap) -> Reply {
        let refused = |what: &str| {
            Reply::new(Problem::OriginNotAllowed, format!("pages of other origins may not {what}"))
        };
        let reply = if self.allowed(request.get(ORIGIN)).is_none() {
            Reply::new(Problem::OriginNotAllowed, "pages of this origin may not use this route")
        } else if !self.has_method(method) {
            refused(&format!("use the method {method}"))
        } else if let Some(name) = self.forbidden_field(request) {
            refused(&format!("send the field {name}"))
        } else {
            let said = [
                (ACCESS_CONTROL_ALLOW_METHODS, self.methods.said.as_ref()),
                (ACCESS_CONTROL_ALLOW_HEADERS, self.headers.said.as_ref()),
                (ACCESS_CONTROL_MAX_AGE, Some(&self.max_age)),
            ];
            let said = said.into_iter().filter_map(|(name, value)| Some((name, value?.clone())));
            said.fold(Reply::no_content(), |reply, (name, value)| reply.field(name, value))
        };
        reply.field(VARY, HeaderValue::from_static(ASKED))
    }

    fn has_method(&self, method: &Method) -> bool {
        // GET, HEAD and POST need no permission (CORS-safelisted methods, fetch 2.2.1).
        self.methods.any
            || self.methods.these.contains(method)
            || matches!(*method, Method::GET | Method::HEAD | Method::POST)
    }

    /// Returns the first field name that the preflight asks for but the table does not allow.
    fn forbidden_field<'r>(&self, request: &'r HeaderMap) -> Option<&'r str> {
        let names = field_list::members(request, ACCESS_CONTROL_REQUEST_HEADERS);
        let mut names = names.map(|name| std::str::from_utf8(name).unwrap_or("?"));
        let is_allowed = |name: &&str| {
            let listed = self.headers.these.iter().any(|allowed| allowed.as_str().eq_ignore_ascii_case(name));
            // The wildcard does not include Authorization (fetch, 3.2.4).
            listed || self.headers.any && !name.eq_ignore_ascii_case(AUTHORIZATION.as_str())
        };
        names.find(|name| !is_allowed(name))
    }

    /// Returns the value of Access-Control-Allow-Origin for `origin`. Returns `None` if the origin is not
    /// allowed.
    fn allowed(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        if self.any_origin && !self.credentials {
            return Some(ANY);
        }
        let text = origin?.to_str().ok()?;
        let is_below = |(begin, end): &(String, String)| {
            let host = text.strip_prefix(begin.as_str()).and_then(|host| host.strip_suffix(end.as_str()));
            let is_of_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            host.is_some_and(|host| !host.is_empty() && host.bytes().all(is_of_host))
        };
        let is_allowed = self.any_origin || self.origins.contains(text) || self.below.iter().any(is_below);
        origin.filter(|_| is_allowed).cloned()
    }

    /// Returns true if the CORS fields are the same for every origin.
    fn is_for_all(&self) -> bool {
        self.any_origin && !self.credentials
    }

    fn fields(&self, origin: Option<&HeaderValue>) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let allowed = self.allowed(origin);
        let may = allowed.is_some();
        let credentials = (may && self.credentials).then(|| HeaderValue::from_static("true"));
        let fields = [
            (ACCESS_CONTROL_ALLOW_ORIGIN, allowed),
            (ACCESS_CONTROL_ALLOW_CREDENTIALS, credentials),
            (ACCESS_CONTROL_EXPOSE_HEADERS, self.expose.clone().filter(|_| may)),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }

    /// Replaces the CORS fields of a backend's response. `origin` is the origin of the page that sent the
    /// request.
    ///
    /// # Errors
    /// Returns an error if Pingora refuses a field, which does not happen: the values are valid.
    pub fn on_response(&self, origin: Option<&HeaderValue>, response: &mut ResponseHeader) -> Result<()> {
        // The prefix also covers other CORS fields, present and future, such as
        // Access-Control-Allow-Private-Network.
        let is_of_cors = |name: &&HeaderName| name.as_str().starts_with("access-control-");
        let theirs: Vec<HeaderName> = response.headers.keys().filter(is_of_cors).cloned().collect();
        for name in &theirs {
            response.remove_header(name);
        }
        for (name, value) in self.fields(origin) {
            response.insert_header(name, value)?;
        }
        if self.is_for_all() { Ok(()) } else { add_vary(response, "Origin") }
    }

    /// Adds the CORS fields to a local reply.
    pub fn on_reply(&self, origin: Option<&HeaderValue>, fields: &mut HeaderMap) {
        fields.extend(self.fields(origin));
        if !self.is_for_all() {
            fields.append(VARY, HeaderValue::from_static("Origin"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(toml: &str) -> Cors {
        Cors::from(&toml::from_str::<config::Cors>(toml).unwrap())
    }

    fn request(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let fields = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        fields.collect()
    }

    fn origin(text: &'static str) -> HeaderValue {
        HeaderValue::from_static(text)
    }

    const APP: &str = "allow_origins = [\"https://app.example.com\", \"https://*.test.example:8443\"]\n";

    #[test]
    fn origins_are_compared_whole() {
        let cors = cors(APP);
        for (text, may) in [
            ("https://app.example.com", true),
            ("https://a.test.example:8443", true),
            ("https://a.b.test.example:8443", true),
            ("http://app.example.com", false),
            ("https://app.example.com:8443", false),
            ("https://app.example.com.evil.example", false),
            ("https://evilapp.example.com", false),
            ("https://test.example:8443", false),
            ("https://.test.example:8443", false),
            ("https://eviltest.example:8443", false),
            ("https://evil.example/.test.example:8443", false),
            ("https://evil.example:1.test.example:8443", false),
            ("https://a.test.example", false),
            ("null", false),
            ("", false),
            ("*", false),
        ] {
            assert_eq!(cors.allowed(Some(&origin(text))).is_some(), may, "{text}");
        }
        assert!(cors.allowed(None).is_none());
    }

    #[test]
    fn preflight_reply_lists_what_is_allowed() {
        let cors = cors(&format!(
            "{APP}allow_methods = [\"PUT\"]\nallow_headers = [\"X-Token\", \"Content-Type\"]\n"
        ));
        let asked = |method: &'static str, headers: &'static str| {
            let request = request(&[
                ("origin", "https://app.example.com"),
                ("access-control-request-method", method),
                ("access-control-request-headers", headers),
            ]);
            let method = asks_for(&Method::OPTIONS, &request).unwrap();
            cors.answer(&method, &request)
        };
        let reply = asked("PUT", "content-type, x-token");
        assert_eq!(reply.status(), 204);
        assert_eq!(reply.fields()["access-control-allow-methods"], "PUT");
        assert_eq!(reply.fields()["access-control-allow-headers"], "x-token, content-type");
        assert_eq!(reply.fields()["access-control-max-age"], "600");
        assert_eq!(reply.fields()["vary"], ASKED);
        assert_eq!(asked("POST", "").status(), 204, "needs no leave");
        assert_eq!(asked("DELETE", "").status(), 403);
        assert_eq!(asked("PUT", "x-other").status(), 403);
        let elsewhere =
            request(&[("origin", "https://evil.example"), ("access-control-request-method", "GET")]);
        assert_eq!(cors.answer(&Method::GET, &elsewhere).status(), 403);
    }

    #[test]
    fn only_options_with_origin_and_method_is_a_preflight() {
        let full = [("origin", "https://a.example"), ("access-control-request-method", "PUT")];
        assert_eq!(asks_for(&Method::OPTIONS, &request(&full)), Some(Method::PUT));
        assert_eq!(asks_for(&Method::GET, &request(&full)), None);
        assert_eq!(asks_for(&Method::OPTIONS, &request(&full[..1])), None);
        assert_eq!(asks_for(&Method::OPTIONS, &request(&full[1..])), None);
        let nonsense = [("origin", "https://a.example"), ("access-control-request-method", "a b")];
        assert_eq!(asks_for(&Method::OPTIONS, &request(&nonsense)), None);
        let mut two = request(&full);
        two.append("access-control-request-method", HeaderValue::from_static("GET"));
        assert_eq!(asks_for(&Method::OPTIONS, &two), None, "which of them would find the route?");
    }

    #[test]
    fn a_star_for_fields_leaves_authorization_out() {
        let cors = cors("allow_origins = [\"*\"]\nallow_headers = [\"*\"]\n");
        let asked = |headers| {
            let request =
                request(&[("origin", "https://a.example"), ("access-control-request-headers", headers)]);
            cors.answer(&Method::GET, &request).status()
        };
        assert_eq!((asked("x-any"), asked("x-any, Authorization")), (204, 403));
    }

    #[test]
    fn cors_fields_of_the_backend_are_replaced() {
        let cors = cors(&format!("{APP}allow_credentials = true\nexpose_headers = [\"X-Total\"]\n"));
        let mut response = ResponseHeader::build(200, None).unwrap();
        for (name, value) in [
            ("Access-Control-Allow-Origin", "*"),
            ("Access-Control-Allow-Origin", "https://evil.example"),
            ("Access-Control-Allow-Credentials", "true"),
            ("Access-Control-Allow-Private-Network", "true"),
            ("Access-Control-Allow-Methods", "*"),
            ("Access-Control-Whatever-Comes", "true"),
            ("Vary", "Accept-Encoding"),
        ] {
            response.append_header(name, value).unwrap();
        }
        let mut other = response.clone();
        cors.on_response(Some(&origin("https://app.example.com")), &mut response).unwrap();
        let all = |name| response.headers.get_all(name).iter().collect::<Vec<_>>();
        let of_cors = |response: &ResponseHeader| {
            response.headers.keys().filter(|name| name.as_str().starts_with("access-control")).count()
        };
        assert_eq!(of_cors(&response), 3);
        assert_eq!(all("access-control-allow-origin"), ["https://app.example.com"]);
        assert_eq!(all("access-control-allow-credentials"), ["true"]);
        assert_eq!(all("access-control-expose-headers"), ["x-total"]);
        assert_eq!(all("vary"), ["Accept-Encoding", "Origin"]);

        cors.on_response(None, &mut other).unwrap();
        assert_eq!(of_cors(&other), 0);
        assert_eq!(
            other.headers.get_all("vary").iter().count(),
            2,
            "another origin would get another response"
        );
    }

    #[test]
    fn any_origin_without_credentials_gets_star_and_no_vary() {
        let mut fields = HeaderMap::new();
        cors("allow_origins = [\"*\"]\n").on_reply(None, &mut fields);
        assert_eq!((&fields["access-control-allow-origin"], fields.len()), (&ANY, 1));
    }
}
