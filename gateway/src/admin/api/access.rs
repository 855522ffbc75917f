//! Access rule of the management API: a client must send the token. If no token is configured, the rule admits only
//! programs on this machine that address the API by a local name. It then refuses requests that a browser on this
//! machine makes for web pages of other origins.

use std::io::ErrorKind;
use std::net::SocketAddr;

use axum::http::{HeaderMap, HeaderName, StatusCode, header};

use super::problem::Problem;
use crate::config::{Admin, normalise_host};

/// Path that clients may request without a token.
const HEALTH: &str = "/api/v1/health";

/// Access rule of the management API.
pub struct ApiAccess {
    token: Option<String>,
}

/// Reason why there is no safe access rule.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The token file cannot be read.
    #[error("cannot read {file} (admin.token_file): {error}")]
    Unreadable {
        /// Path of the file.
        file: String,
        /// Error of the operating system.
        error: std::io::Error,
    },
    /// The token file is empty.
    #[error("{0} is empty; it must hold the token of the management API")]
    Empty(String),
    /// The token has a character that is not allowed in a header field.
    #[error(
        "the token of the management API has a character that is not allowed in a header field; use letters \
         and digits"
    )]
    Unusable,
    /// The API would accept changes from other machines without a token.
    #[error(
        "the management API would listen on {address}, which other machines can reach, and it has no token: \
         set the variable {variable}, or admin.token_file, or proxy.management_api_addr = \"127.0.0.1:8081\""
    )]
    Open {
        /// Address on which the API would listen.
        address: SocketAddr,
        /// Environment variable for the token.
        variable: String,
    },
}

impl AccessError {
    /// Returns true if this process found no token to read. The check of a configuration then does not fail, because
    /// the machine that the configuration is meant for may have a token.
    pub fn lacks_token(&self) -> bool {
        match self {
            AccessError::Open { .. } => true,
            AccessError::Unreadable { error, .. } => {
                matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::NotADirectory
                )
            }
            AccessError::Empty(_) | AccessError::Unusable => false,
        }
    }
}

impl ApiAccess {
    /// Creates the rule for a listener at `address`, with the token that `admin` names.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub fn new(admin: &Admin, address: SocketAddr) -> Result<Self, AccessError> {
        let token = if admin.token_file.is_empty() {
            std::env::var(&admin.token_env).ok().filter(|token| !token.trim().is_empty())
        } else {
            let file = &admin.token_file;
            let text = std::fs::read_to_string(file)
                .map_err(|error| AccessError::Unreadable { file: file.clone(), error })?;
            if text.trim().is_empty() {
                return Err(AccessError::Empty(file.clone()));
            }
            Some(text)
        };
        let token = token.map(|token| token.trim().to_owned());
        if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(AccessError::Unusable);
        }
        if token.is_none() && !address.ip().to_canonical().is_loopback() {
            return Err(AccessError::Open { address, variable: admin.token_env.clone() });
        }
        Ok(ApiAccess { token })
    }

    /// Returns a problem if the request must not be answered.
    pub(super) fn admits(&self, path: &str, headers: &HeaderMap) -> Result<(), Problem> {
        match &self.token {
            _ if path == HEALTH => Ok(()),
            Some(token) if bears(headers, token) => Ok(()),
            Some(_) => {
                let detail = "expected Authorization: Bearer with the token";
                Err(Problem::new(StatusCode::UNAUTHORIZED, detail))
            }
            None => is_local(headers),
        }
    }
}

fn bears(headers: &HeaderMap, token: &str) -> bool {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Some((scheme, given)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else {
        return false;
    };
    let given = given.trim().as_bytes();
    // The comparison takes constant time, so that its duration does not reveal a correct prefix. Its duration may
    // reveal the length.
    scheme.eq_ignore_ascii_case("bearer")
        && given.len() == token.len()
        && openssl::memcmp::eq(given, token.as_bytes())
}

/// Refuses requests that a web page makes through its visitor's browser. Such a request has the page's domain in
/// `Host`, if that domain resolves to this machine. If the request crosses origins, the page's origin is in `Origin`.
fn is_local(headers: &HeaderMap) -> Result<(), Problem> {
    let one = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok())
    };
    let host = one(&header::HOST).unwrap_or_default();
    if !is_loopback(host) {
        let detail = format!(
            "without a token, this API answers only at a local name of this machine, and not at '{host}'"
        );
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    let own = one(&header::ORIGIN).and_then(|origin| origin.strip_prefix("http://")) == Some(host);
    if headers.contains_key(header::ORIGIN) && !own {
        let detail = "without a token, this API refuses pages of other origins";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    Ok(())
}

fn is_loopback(authority: &str) -> bool {
    let Ok(host) = normalise_host(authority) else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    match address {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        fields.iter().map(field).collect()
    }

    fn status(access: &ApiAccess, path: &str, fields: &[(&'static str, &str)]) -> u16 {
        access.admits(path, &headers(fields)).map_or_else(|problem| problem.status.as_u16(), |()| 200)
    }

    #[test]
    fn only_the_right_token_is_admitted() {
        let access = ApiAccess { token: Some("s3cret".to_owned()) };
        let ask = |authorization| status(&access, "/api/v1/config", &[("authorization", authorization)]);
        assert_eq!((ask("Bearer s3cret"), ask("bearer  s3cret ")), (200, 200));
        for wrong in ["Bearer s3cre", "Bearer s3crett", "Bearer ", "Bearer", "Basic s3cret", "s3cret", ""] {
            assert_eq!(ask(wrong), 401, "{wrong:?}");
        }
        assert_eq!(status(&access, "/", &[("host", "localhost")]), 401);
        assert_eq!(status(&access, "/api/v1/health", &[]), 200);
        assert_eq!(status(&access, "/api/v1/health/x", &[]), 401);
    }

    #[test]
    fn without_token_only_loopback_hosts_are_admitted() {
        let access = ApiAccess { token: None };
        for host in ["127.0.0.1:8081", "localhost", "LOCALHOST:1", "[::1]:8081", "127.9.9.9", "a.localhost"] {
            assert_eq!(status(&access, "/", &[("host", host)]), 200, "{host}");
        }
        for host in ["example.com", "127.0.0.1.example.com", "10.0.0.1", "", "localhost.example.com", "a b"] {
            assert_eq!(status(&access, "/", &[("host", host)]), 403, "{host}");
        }
        let from = |origin| status(&access, "/", &[("host", "localhost:8081"), ("origin", origin)]);
        assert_eq!(from("http://localhost:8081"), 200);
        let mut several = HeaderMap::new();
        for host in ["localhost:8081", "localhost:8081"] {
            several.append(header::HOST, HeaderValue::from_static(host));
        }
        assert!(access.admits("/", &several).is_err(), "nobody can tell which one is meant");
        for origin in ["http://evil.example", "http://localhost:3000", "null", "https://localhost:8081"] {
            assert_eq!(from(origin), 403, "{origin}");
        }
    }

    #[test]
    fn listener_beyond_loopback_requires_usable_token() {
        let admin = |file: &str| Admin {
            token_env: "GATEWAY_TEST_NO_SUCH_VARIABLE".to_owned(),
            token_file: file.to_owned(),
            ..Admin::default()
        };
        let everywhere = SocketAddr::from(([0, 0, 0, 0], 1));
        let error = ApiAccess::new(&admin(""), everywhere).err().unwrap().to_string();
        assert!(error.contains("0.0.0.0:1") && error.contains("GATEWAY_TEST_NO_SUCH_VARIABLE"), "{error}");
        assert!(ApiAccess::new(&admin(""), SocketAddr::from(([127, 0, 0, 1], 1))).unwrap().token.is_none());

        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display().to_string();
        assert!(matches!(ApiAccess::new(&admin(&path), everywhere), Err(AccessError::Empty(_))));
        for unusable in ["two words", "sch\u{f6}n", "a\nb"] {
            std::fs::write(file.path(), unusable).unwrap();
            assert!(
                matches!(ApiAccess::new(&admin(&path), everywhere), Err(AccessError::Unusable)),
                "{unusable}"
            );
        }
        std::fs::write(file.path(), " s3cret\n").unwrap();
        assert_eq!(ApiAccess::new(&admin(&path), everywhere).unwrap().token.as_deref(), Some("s3cret"));
        assert!(matches!(
            ApiAccess::new(&admin("/nowhere"), everywhere),
            Err(AccessError::Unreadable { .. })
        ));
    }
}
