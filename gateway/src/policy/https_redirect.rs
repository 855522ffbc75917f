//! `http_to_https`: redirects clients without TLS to the same URL over HTTPS.

use http::HeaderValue;

use super::Verdict;
use crate::config::normalise_host;
use crate::reply::{Problem, Reply};

/// Redirect from plain HTTP to HTTPS.
pub struct HttpsRedirect {
    /// Port at which clients reach the gateway over HTTPS.
    port: u16,
}

impl HttpsRedirect {
    /// Creates a redirect to the HTTPS port `port`.
    pub fn new(port: u16) -> Self {
        HttpsRedirect { port }
    }

    /// Answers a request without TLS with 308, which keeps method and body (RFC 9110 15.4.9). `host` is the
    /// host of the request, and `target` its path and query.
    pub fn check(&self, is_https: bool, host: Option<&str>, target: &str) -> Verdict {
        if is_https {
            return Verdict::Continue(());
        }
        let Some(Ok(host)) = host.map(normalise_host) else {
            return Verdict::Reply(Reply::new(
                Problem::BadRequest,
                "there is no Host to redirect to over HTTPS",
            ));
        };
        // A target without a leading slash ("OPTIONS *") is not a path that the client could request again.
        let target = if target.starts_with('/') { target } else { "/" };
        let location = match self.port {
            443 => format!("https://{host}{target}"),
            port => format!("https://{host}:{port}{target}"),
        };
        match HeaderValue::from_str(&location) {
            Ok(location) => Verdict::Reply(Reply::redirect(location)),
            Err(_) => Verdict::Reply(Reply::new(Problem::BadRequest, "the target is not a valid URL")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_path_and_query_are_kept() {
        let location = |port, host, target| match HttpsRedirect::new(port).check(false, host, target) {
            Verdict::Reply(reply) if reply.status() == 308 => {
                reply.fields()["location"].to_str().unwrap().to_owned()
            }
            Verdict::Reply(reply) => reply.status().to_string(),
            Verdict::Continue(()) => "let in".to_owned(),
        };
        for (port, host, target, expected) in [
            (443, "a.test", "/b?c=d&e", "https://a.test/b?c=d&e"),
            (8443, "A.test:80", "/", "https://a.test:8443/"),
            (443, "[::1]:8080", "//x/../y", "https://[::1]//x/../y"),
            (443, "a.test", "*", "https://a.test/"),
            (443, "a b", "/", "400"),
        ] {
            assert_eq!(location(port, Some(host), target), expected, "{host} {target}");
        }
        assert_eq!(location(443, None, "/"), "400");
    }

    #[test]
    fn request_over_https_passes() {
        let verdict = HttpsRedirect::new(443).check(true, Some("a.test"), "/");
        assert!(matches!(verdict, Verdict::Continue(())));
    }
}
