//! Tells the backend who the client is, in `X-Forwarded-*` and `X-Real-IP`, and makes the `Via` field. The
//! gateway first removes every field in which a client could claim another identity, because a backend believes
//! these fields. The function `origin` finds the client if there are trusted proxies in front of the gateway.

mod origin;

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderValue, Version};
pub use origin::{Origin, origin};
use pingora::Result;
use pingora::http::RequestHeader;

use super::remove_where;
use crate::util::ip_text;

// Names of the fields. Pingora would copy a `HeaderName` for each request, but not a text.
const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";
const X_FORWARDED_HOST: &str = "x-forwarded-host";
const X_REAL_IP: &str = "x-real-ip";
const VIA: &str = "via";

/// Facts that the gateway knows about the client of a request.
pub struct ForwardedClient<'a> {
    /// Address of the client; `None` on a Unix socket.
    pub address: Option<IpAddr>,
    /// True if the client uses HTTPS.
    pub is_https: bool,
    /// Host that the client asked for, as the client wrote it.
    pub host: Option<&'a str>,
}

/// Replaces the client's claims about itself by the facts that the gateway knows.
///
/// # Errors
/// Returns an error if Pingora refuses a field, which does not happen: all values are valid.
pub fn apply(request: &mut RequestHeader, client: &ForwardedClient<'_>) -> Result<()> {
    // Remove every field by which a client could pretend to be another client.
    remove_where(request, is_claim);
    if let Some(address) = client.address {
        let mut text = Vec::with_capacity(45);
        ip_text::push(&mut text, address);
        if let Ok(address) = HeaderValue::from_maybe_shared(Bytes::from(text)) {
            request.insert_header(X_REAL_IP, address.clone())?;
            request.insert_header(X_FORWARDED_FOR, address)?;
        }
    }
    request.insert_header(
        X_FORWARDED_PROTO,
        HeaderValue::from_static(if client.is_https { "https" } else { "http" }),
    )?;
    if let Some(host) = client.host {
        request.insert_header(X_FORWARDED_HOST, host)?;
    }
    Ok(())
}

/// Returns true if backends may read in the field `name` who the client is, how the client connected, or which
/// path it asked for.
fn is_claim(name: &str) -> bool {
    const BEGINNINGS: [&str; 9] = [
        "x-forwarded",
        "x-original-",
        "x-client-cert",
        "x-ssl-client",
        "x-authenticated-",
        "x-auth-request-",
        "x-webauth-",
        "x-amzn-oidc-",
        "x-ms-client-principal",
    ];
    match name {
        "forwarded" | "x-real-ip" | "x-client-ip" | "x-cluster-client-ip" | "client-ip" => true,
        "true-client-ip" | "cf-connecting-ip" | "cf-connecting-ipv6" | "fastly-client-ip" => true,
        "client-cert" | "client-cert-chain" => true,
        "x-user" | "x-remote-user" | "remote-user" => true,
        // Some frameworks use this field as the path.
        "x-rewrite-url" => true,
        name => BEGINNINGS.iter().any(|beginning| name.starts_with(beginning)),
    }
}

/// Returns the `Via` field for a message that was received over `version` (RFC 9110 7.6.3). The caller appends
/// this field to the `Via` fields of the message.
pub fn via(version: Version) -> (&'static str, HeaderValue) {
    let via = match version {
        Version::HTTP_2 => "2 gateway",
        Version::HTTP_10 => "1.0 gateway",
        _ => "1.1 gateway",
    };
    (VIA, HeaderValue::from_static(via))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(fields: &[(&'static str, &str)], client: &ForwardedClient<'_>) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        apply(&mut request, client).unwrap();
        request
    }

    #[test]
    fn claims_of_the_client_are_replaced_by_known_facts() {
        let forged = [
            ("X-Forwarded-For", "6.6.6.6"),
            ("X-Forwarded-For", "7.7.7.7"),
            ("x-forwarded-proto", "https"),
            ("X-Forwarded-Host", "evil.example"),
            ("X-Forwarded-Port", "443"),
            ("X-Forwarded-Prefix", "/admin"),
            ("Forwarded", "for=6.6.6.6"),
            ("X-Real-IP", "6.6.6.6"),
            ("X-Client-Cert-Subject", "CN=admin"),
            ("Client-Cert", ":AA==:"),
            ("X_Client_Cert-Subject", "CN=admin"),
            ("x_forwarded_for", "6.6.6.6"),
            ("True-Client-IP", "6.6.6.6"),
            ("CF-Connecting-IP", "6.6.6.6"),
            ("X-User", "admin"),
            ("Remote_User", "admin"),
            ("X-Auth-Request-Email", "admin"),
            ("X-Original-URL", "/admin"),
            ("X-Rewrite-URL", "/admin"),
            ("X-Other", "stays"),
        ];
        let client =
            ForwardedClient { address: "192.0.2.1".parse().ok(), is_https: false, host: Some("a.example") };
        let request = applied(&forged, &client);
        let mut fields: Vec<(&str, &str)> =
            request.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        fields.sort_unstable();
        let expected = [
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-host", "a.example"),
            ("x-forwarded-proto", "http"),
            ("x-other", "stays"),
            ("x-real-ip", "192.0.2.1"),
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn client_without_address_gets_no_forwarded_for() {
        let client = ForwardedClient { address: None, is_https: true, host: None };
        let request = applied(&[("X-Forwarded-For", "6.6.6.6")], &client);
        assert!(!request.headers.contains_key("x-forwarded-for"));
        assert!(!request.headers.contains_key("x-forwarded-host"));
        assert_eq!(request.headers["x-forwarded-proto"], "https");
    }
}
