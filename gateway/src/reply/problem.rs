//! Problems that a reply can report. Each problem has one row, with its status, its cause and its remedy. Replies, the
//! page to which they link, and a page of the book are all made from these rows.

use http::StatusCode;

/// Description of a problem.
#[derive(Debug)]
pub struct Row {
    /// Default status of replies about the problem.
    pub status: StatusCode,
    /// Name of the problem: the last part of its `type`, and the word in the log.
    pub name: &'static str,
    /// Title of the problem, in a few words.
    pub title: &'static str,
    /// Error type in `Proxy-Status` (RFC 9209 2.3); a reply may have a more exact one.
    pub proxy_error: &'static str,
    /// Cause of the problem, in a sentence.
    pub cause: &'static str,
    /// Remedy for the problem, for the client and the operator.
    pub cure: &'static str,
}

macro_rules! problems {
    ($($variant:ident {
        status: $status:ident, name: $name:literal, title: $title:literal, proxy_error: $proxy_error:literal,
        cause: $cause:literal,
        cure: $cure:literal,
    })+) => {
        /// Problem that the gateway reports to a client.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Problem {
            $(#[doc = $title] $variant,)+
        }

        impl Problem {
            /// List of all problems.
            pub const ALL: &[Problem] = &[$(Problem::$variant),+];

            /// Returns the description of the problem.
            pub const fn row(self) -> &'static Row {
                match self {
                    $(Problem::$variant => &Row {
                        status: StatusCode::$status,
                        name: $name,
                        title: $title,
                        proxy_error: $proxy_error,
                        cause: $cause,
                        cure: $cure,
                    },)+
                }
            }
        }
    };
}

problems! {
    BadRequest {
        status: BAD_REQUEST, name: "bad_request", title: "The request is malformed", proxy_error: "http_request_error",
        cause: "The request is not valid HTTP, or two programs could understand it differently.",
        cure: "Correct what `detail` names: send one Host, one Content-Length and a plain path.",
    }
    UnknownHost {
        status: NOT_FOUND, name: "unknown_host", title: "This host is not served here", proxy_error: "destination_not_found",
        cause: "No virtual host has the name that the request asks for.",
        cure: "Check the name. Operators: add a virtual host or an alias, or a catch-all `\"*\"`.",
    }
    Misdirected {
        status: MISDIRECTED_REQUEST, name: "misdirected", title: "This connection is for another host", proxy_error: "http_request_error",
        cause: "The TLS connection was made for another host than the request, or before a change of the configuration.",
        cure: "Send the request again on a new connection, as browsers do by themselves.",
    }
    ClientCertificate {
        status: FORBIDDEN, name: "client_certificate", title: "A client certificate is required", proxy_error: "http_request_denied",
        cause: "The host requires a client certificate, and the client showed none that the host trusts.",
        cure: "Show a certificate of an authority in the host's `client_ca_file`.",
    }
    AddressDenied {
        status: FORBIDDEN, name: "address_denied", title: "This address is not allowed here", proxy_error: "http_request_denied",
        cause: "The client's address is not among the allowed ones, or it is denied.",
        cure: "Use another network. Operators: see `[access]`, and `trusted_proxies` if the address is that of a proxy.",
    }
    CredentialsMissing {
        status: UNAUTHORIZED, name: "credentials_missing", title: "Credentials are required", proxy_error: "http_request_denied",
        cause: "The request has no credentials.",
        cure: "Send the credentials that `WWW-Authenticate` asks for.",
    }
    CredentialsInvalid {
        status: UNAUTHORIZED, name: "credentials_invalid", title: "The credentials are not valid", proxy_error: "http_request_denied",
        cause: "The password, token or key is wrong, has expired, or is for another service.",
        cure: "Get new credentials. Operators: with `gateway=debug`, the log says more.",
    }
    NotAllowed {
        status: FORBIDDEN, name: "not_allowed", title: "This is not allowed", proxy_error: "http_request_denied",
        cause: "The client is known, and it lacks the permission for this request.",
        cure: "Ask the operator for permission. Operators: see `require` in `[auth]`.",
    }
    AuthUnavailable {
        status: SERVICE_UNAVAILABLE, name: "auth_unavailable", title: "Credentials cannot be checked now", proxy_error: "http_request_denied",
        cause: "The auth server or the issuer of the keys does not answer, or too many passwords are being checked.",
        cure: "Try again shortly. Operators: check the issuer's keys, or the server of forward auth.",
    }
    NotImplemented {
        status: NOT_IMPLEMENTED, name: "not_implemented", title: "This is not implemented here", proxy_error: "http_request_error",
        cause: "The request needs something that this gateway does not implement: a tunnel (`CONNECT`), or an unknown transfer coding.",
        cure: "Send the body plain or `chunked`, and do not use the gateway as a forward proxy.",
    }
    VersionNotSupported {
        status: HTTP_VERSION_NOT_SUPPORTED, name: "version_not_supported", title: "This version of HTTP is not supported", proxy_error: "http_request_error",
        cause: "The request line names a version of HTTP that this connection does not support.",
        cure: "Use HTTP/1.1, or HTTP/2 if TLS has negotiated it.",
    }
    MethodNotAllowed {
        status: METHOD_NOT_ALLOWED, name: "method_not_allowed", title: "This method is not allowed", proxy_error: "http_request_denied",
        cause: "The gateway refuses the method, such as `TRACE`, for every host.",
        cure: "Use a method that `Allow` names.",
    }
    ExpectationFailed {
        status: EXPECTATION_FAILED, name: "expectation_failed", title: "This expectation cannot be met", proxy_error: "http_request_error",
        cause: "`Expect` names something other than `100-continue`.",
        cure: "Send the request without `Expect`.",
    }
    ContentTooLarge {
        status: PAYLOAD_TOO_LARGE, name: "content_too_large", title: "The body is too long", proxy_error: "http_request_denied",
        cause: "The body has more bytes than `max_request_body_bytes` allows here.",
        cure: "Send a smaller body, or send it in parts. Operators: see `[limits]` of the route.",
    }
    UriTooLong {
        status: URI_TOO_LONG, name: "uri_too_long", title: "The target is too long", proxy_error: "http_request_denied",
        cause: "The path and the query together have more bytes than `max_uri_bytes` allows here.",
        cure: "Send long data in a body. Operators: see `[limits]` of the route.",
    }
    HeadTooLarge {
        status: REQUEST_HEADER_FIELDS_TOO_LARGE, name: "head_too_large", title: "The header is too large", proxy_error: "http_request_denied",
        cause: "The head has more bytes than `max_header_bytes`, or more fields than `max_header_fields`, allows here.",
        cure: "Delete cookies, which are the usual reason. Operators: see `[limits]` of the route.",
    }
    OriginNotAllowed {
        status: FORBIDDEN, name: "origin_not_allowed", title: "This origin is not allowed", proxy_error: "http_request_denied",
        cause: "A browser asked whether a page of another origin may send a request (CORS), and the route does not allow it.",
        cure: "`detail` says what is not allowed. Operators: see `[cors]` of the route.",
    }
    RequestTimeout {
        status: REQUEST_TIMEOUT, name: "request_timeout", title: "The request took too long to arrive", proxy_error: "http_request_error",
        cause: "The client stopped sending in the middle of its request.",
        cure: "Send it again, faster; on a slow connection, send it in smaller parts.",
    }
    RateLimited {
        status: TOO_MANY_REQUESTS, name: "rate_limited", title: "Too many requests", proxy_error: "http_request_denied",
        cause: "The client has used up its requests for this window, or too many of its passwords wait to be checked.",
        cure: "Wait for the time in `Retry-After`. Operators: see `[rate_limit]`.",
    }
    NoBackend {
        status: SERVICE_UNAVAILABLE, name: "no_backend", title: "No backend is available", proxy_error: "destination_unavailable",
        cause: "Every backend of the service is down, drained or has an open circuit.",
        cure: "Wait for the time in `Retry-After`. Operators: `/api/v1/backends` shows why.",
    }
    LimitReached {
        status: SERVICE_UNAVAILABLE, name: "limit_reached", title: "The backends are busy", proxy_error: "connection_limit_reached",
        cause: "Each usable backend has as many requests in flight as `max_inflight_per_backend` allows.",
        cure: "Try again shortly. Operators: add backends, or raise the limit if the backends can serve more.",
    }
    BadGateway {
        status: BAD_GATEWAY, name: "bad_gateway", title: "The backend failed", proxy_error: "destination_unavailable",
        cause: "A backend could not be reached, or did not send a valid response; `Proxy-Status` says which.",
        cure: "Send the request again if that is safe. Operators: check the backend, with the request's id.",
    }
    GatewayTimeout {
        status: GATEWAY_TIMEOUT, name: "gateway_timeout", title: "The backend took too long", proxy_error: "http_response_timeout",
        cause: "A backend did not accept the connection, or did not begin its response, in time.",
        cure: "Send the request again if that is safe. Operators: check the backend first, then `request_timeout_secs`.",
    }
    DeadlineExceeded {
        status: GATEWAY_TIMEOUT, name: "deadline_exceeded", title: "The call took too long", proxy_error: "http_response_timeout",
        cause: "A gRPC call took longer than its client's `grpc-timeout`.",
        cure: "Allow the call more time, or ask for less data.",
    }
    UnsupportedMediaType {
        status: UNSUPPORTED_MEDIA_TYPE, name: "unsupported_media_type", title: "This protocol is not supported here", proxy_error: "http_request_error",
        cause: "A gRPC request came over HTTP/1, or to a route whose backends do not speak HTTP/2.",
        cure: "Use HTTP/2 or gRPC-Web. Operators: set `protocol = \"http2\"` in `[upstream]`.",
    }
    FaultInjected {
        status: SERVICE_UNAVAILABLE, name: "fault_injected", title: "A fault was injected", proxy_error: "proxy_internal_response",
        cause: "The route returns this response on purpose, with the status that its `fault` names.",
        cure: "Nothing has to be done. Operators: remove `fault` from the route.",
    }
    Internal {
        status: INTERNAL_SERVER_ERROR, name: "internal", title: "The gateway failed", proxy_error: "proxy_internal_error",
        cause: "An error in the gateway itself ended the request.",
        cure: "Operators: find the request's id in the log, and please report the error.",
    }
}

impl Problem {
    /// Returns the default status of replies about the problem.
    pub const fn status(self) -> StatusCode {
        self.row().status
    }

    /// Returns the name, as in the problem's `type`.
    pub const fn name(self) -> &'static str {
        self.row().name
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fmt::Write as _;

    use super::*;

    /// Error types that RFC 9209 2.3 defines.
    const ERROR_TYPES: &str = "dns_timeout dns_error destination_not_found destination_unavailable \
        destination_ip_prohibited destination_ip_unroutable connection_refused connection_terminated \
        connection_timeout connection_read_timeout connection_write_timeout connection_limit_reached \
        tls_protocol_error tls_certificate_error tls_alert_received http_request_error http_request_denied \
        http_response_incomplete http_response_timeout http_upgrade_failed http_protocol_error \
        proxy_internal_response proxy_internal_error proxy_configuration_error proxy_loop_detected";

    #[test]
    fn each_problem_is_unique_and_has_a_remedy() {
        let names: HashSet<&str> = Problem::ALL.iter().map(|problem| problem.name()).collect();
        assert_eq!(names.len(), Problem::ALL.len());
        for problem in Problem::ALL {
            let row = problem.row();
            let is_plain = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(row.name.chars().all(is_plain), "{row:?}");
            assert_eq!(row.name.replace('_', ""), format!("{problem:?}").to_lowercase());
            assert!(row.status.is_client_error() || row.status.is_server_error(), "{row:?}");
            assert!(ERROR_TYPES.split_whitespace().any(|known| known == row.proxy_error), "{row:?}");
            assert!(
                row.cause.ends_with('.') && row.cure.ends_with('.') && !row.title.ends_with('.'),
                "{row:?}"
            );
        }
    }

    #[test]
    fn the_book_lists_every_problem() {
        const BEGIN: &str = "<!-- problems -->\n";
        const END: &str = "<!-- /problems -->";
        let mut right = "| name | status | what it comes from | what to do |\n|---|---|---|---|\n".to_owned();
        for Row { status, name, cause, cure, .. } in Problem::ALL.iter().map(|problem| problem.row()) {
            let status = status.as_u16();
            let _ = writeln!(right, "| <a id=\"{name}\"></a>`{name}` | {status} | {cause} | {cure} |");
        }
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/problems.md");
        let text = std::fs::read_to_string(page).unwrap();
        let (before, rest) = text.split_once(BEGIN).expect("<!-- problems --> in docs/src/problems.md");
        let (written, after) = rest.split_once(END).expect("<!-- /problems --> in docs/src/problems.md");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(page, format!("{before}{BEGIN}{right}{END}{after}")).unwrap();
            return;
        }
        assert_eq!(written, right, "to rewrite it: BLESS=1 cargo test -p gateway --lib reply::problem");
    }
}
