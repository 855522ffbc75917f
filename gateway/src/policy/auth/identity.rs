//! Identity of an authenticated client, for the access log, rate limits and backends. Backends get the identity
//! in header fields, so the gateway removes these fields from the requests of clients.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use serde_json::{Map, Value};

use crate::config::normalized_name;
use crate::policy::remove_where;
use crate::util::cache_control;

/// Identity of an authenticated client.
#[derive(Debug, Default, PartialEq)]
pub struct Identity {
    /// Name for people; empty if none is known.
    pub name: String,
    /// Claims of the token; empty without a token.
    claims: Map<String, Value>,
    /// Header fields that tell a backend the identity.
    fields: Vec<(HeaderName, HeaderValue)>,
    /// Cookies that the auth server sets, such as a renewed session. Only the client gets these cookies.
    cookies: Vec<HeaderValue>,
}

impl Identity {
    /// Creates an identity with a name. A backend gets the name in `field`, if there is one.
    pub(super) fn named(name: &str, field: Option<&HeaderName>) -> Self {
        let value = HeaderValue::from_bytes(name.as_bytes()).ok();
        let fields = field.cloned().zip(value).into_iter().collect();
        Identity { name: name.to_owned(), fields, ..Identity::default() }
    }

    /// Creates the identity of a token with these claims.
    pub(super) fn bearer(claims: Map<String, Value>, fields: Vec<(HeaderName, HeaderValue)>) -> Self {
        let name = claims.get("sub").and_then(Value::as_str).unwrap_or_default().to_owned();
        Identity { name, claims, fields, ..Identity::default() }
    }

    /// Creates an identity from the fields and cookies that an auth server has sent.
    pub(super) fn told(fields: Vec<(HeaderName, HeaderValue)>, cookies: Vec<HeaderValue>) -> Self {
        let name = fields.first().and_then(|(_, value)| value.to_str().ok()).unwrap_or_default().to_owned();
        Identity { name, fields, cookies, ..Identity::default() }
    }

    /// Returns the claim `name` if it is a text, an integer or a boolean. Without a claim `sub`, the name of
    /// the client is returned as `sub`.
    pub fn claim(&self, name: &str) -> Option<Cow<'_, str>> {
        match find(&self.claims, name) {
            Some(value) => as_text(value),
            None if name == "sub" && !self.name.is_empty() => Some(Cow::Borrowed(&self.name)),
            None => None,
        }
    }

    /// Adds the fields that tell a backend the identity.
    ///
    /// # Errors
    /// Returns an error if Pingora refuses a field, which it does not do for these.
    pub(super) fn on_request(&self, request: &mut RequestHeader) -> Result<()> {
        for (name, value) in &self.fields {
            request.append_header(name, value)?;
        }
        Ok(())
    }

    /// Adds the auth server's cookies to the backend's response, before the backend's cookies. Because the
    /// later of two cookies with the same name wins, a backend can end a session that the auth server has just
    /// renewed.
    ///
    /// # Errors
    /// Returns an error if Pingora refuses a field, which it does not do for these.
    pub fn on_response(&self, response: &mut ResponseHeader) -> Result<()> {
        if self.cookies.is_empty() {
            return Ok(());
        }
        let of_backend: Vec<HeaderValue> =
            response.headers.get_all(header::SET_COOKIE).into_iter().cloned().collect();
        response.remove_header(&header::SET_COOKIE);
        for cookie in self.cookies.iter().chain(&of_backend) {
            response.append_header(header::SET_COOKIE, cookie)?;
        }
        cache_control::keep_private(response)
    }

    /// Adds the auth server's cookies to a local reply. No cache stores local replies.
    pub fn on_reply(&self, fields: &mut HeaderMap) {
        for cookie in &self.cookies {
            fields.append(header::SET_COOKIE, cookie.clone());
        }
    }
}

/// Returns the claim called `name`. If there is no such claim, `name` is a path into nested claims, such as
/// `realm_access.roles`.
pub(super) fn find<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    find(claims.get(first)?.as_object()?, rest)
}

/// Returns a simple value as text. Returns `None` for a structure, and for a number that is not an integer of
/// 64 bits: the parser rounds such numbers, so that two different numbers could become equal.
pub(super) fn as_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) if number.is_f64() => None,
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(truth) => Some(Cow::Borrowed(if *truth { "true" } else { "false" })),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Names of the fields in which any `[auth]` table tells backends the identity. The fields are removed on every
/// route, because a backend believes them even on routes without authentication.
#[derive(Debug, Default)]
pub struct IdentityFields(Vec<String>);

impl IdentityFields {
    /// Creates the set of these names. Returns `None` if there are no names.
    pub fn new<'n>(names: impl Iterator<Item = &'n HeaderName>) -> Option<Self> {
        let mut names: Vec<String> = names.map(|name| normalized_name(name.as_str()).into_owned()).collect();
        names.sort_unstable();
        names.dedup();
        (!names.is_empty()).then_some(IdentityFields(names))
    }

    /// Removes these fields from a client's request.
    pub fn on_request(&self, request: &mut RequestHeader) {
        remove_where(request, |name| self.0.iter().any(|known| known == name));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(json: Value) -> Map<String, Value> {
        json.as_object().unwrap().clone()
    }

    #[test]
    fn claim_is_found_by_name_or_path() {
        let json = json!({
            "sub": "alice", "n": 7, "f": 7.0, "ok": true, "none": null, "list": ["a"],
            "realm": { "tier": "gold", "deep": { "x": "y" } }, "https://a.example/b": "c", "realm.tier": "exact"
        });
        let identity = Identity::bearer(claims(json), Vec::new());
        for (name, expected) in [
            ("sub", Some("alice")),
            ("n", Some("7")),
            ("f", None),
            ("ok", Some("true")),
            ("none", None),
            ("list", None),
            ("realm", None),
            ("realm.tier", Some("exact")),
            ("realm.deep.x", Some("y")),
            ("realm.deep.x.y", None),
            ("https://a.example/b", Some("c")),
            ("absent", None),
        ] {
            assert_eq!(identity.claim(name).as_deref(), expected, "{name}");
        }
        assert_eq!(identity.name, "alice");
        let named = Identity::named("bob", None);
        assert_eq!((named.claim("sub").as_deref(), named.claim("role")), (Some("bob"), None));
    }

    #[test]
    fn auth_server_cookies_reach_only_the_client() {
        let cookies = ["sid=new; Path=/", "csrf=1"].map(HeaderValue::from_static);
        let renewed = Identity::told(Vec::new(), cookies.into());
        let mut response = ResponseHeader::build(200, None).unwrap();
        response.append_header("Cache-Control", "public, max-age=60").unwrap();
        response.append_header("Set-Cookie", "sid=; Max-Age=0").unwrap();
        let untouched = response.clone();
        Identity::named("alice", None).on_response(&mut response).unwrap();
        assert_eq!(response.headers, untouched.headers);
        renewed.on_response(&mut response).unwrap();
        let set = |headers: &HeaderMap| headers.get_all("set-cookie").iter().cloned().collect::<Vec<_>>();
        assert_eq!(set(&response.headers), ["sid=new; Path=/", "csrf=1", "sid=; Max-Age=0"]);
        assert_eq!(response.headers["cache-control"], "max-age=60, private");

        let mut fields = HeaderMap::new();
        Identity::named("alice", None).on_reply(&mut fields);
        assert!(fields.is_empty());
        renewed.on_reply(&mut fields);
        assert_eq!(set(&fields), ["sid=new; Path=/", "csrf=1"]);

        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        renewed.on_request(&mut request).unwrap();
        assert!(request.headers.is_empty(), "{:?}", request.headers);
    }

    #[test]
    fn identity_fields_of_the_client_are_removed() {
        let names = [HeaderName::from_static("x-user"), HeaderName::from_static("x_role_id")];
        let fields = IdentityFields::new(names.iter()).unwrap();
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for name in
            ["X-User", "x-user", "X_User", "X.User", "X~User", "X-Role-Id", "X_Role-Id", "X-Users", "User"]
        {
            request.append_header(name, "root").unwrap();
        }
        fields.on_request(&mut request);
        let mut left: Vec<&str> = request.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["user", "x-users"]);
        Identity::named("alice", Some(&names[0])).on_request(&mut request).unwrap();
        assert_eq!(request.headers["x-user"], "alice");
        assert!(IdentityFields::new(std::iter::empty()).is_none());
    }
}
