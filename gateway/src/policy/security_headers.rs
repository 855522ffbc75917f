//! `[security_headers]`: adds fields that make browsers more careful to every response and local reply.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora::Result;
use pingora::http::ResponseHeader;

use crate::config;

/// Compiled `[security_headers]` table: names and values of the fields.
pub struct SecurityHeaders {
    always: Vec<(HeaderName, HeaderValue)>,
    /// Value of Strict-Transport-Security, which RFC 6797 7.2 allows over HTTPS only, because over plain HTTP
    /// an attacker could have changed it; `None` sends no such field.
    over_https: Option<HeaderValue>,
}

impl From<&config::SecurityHeaders> for SecurityHeaders {
    fn from(config: &config::SecurityHeaders) -> Self {
        let always = [
            (header::X_CONTENT_TYPE_OPTIONS, &config.x_content_type_options),
            (header::X_FRAME_OPTIONS, &config.x_frame_options),
            (header::REFERRER_POLICY, &config.referrer_policy),
            (header::CONTENT_SECURITY_POLICY, &config.content_security_policy),
        ];
        let always = always.into_iter().filter(|(_, value)| !value.0.is_empty());
        let hsts = &config.strict_transport_security.0;
        SecurityHeaders {
            always: always.map(|(name, value)| (name, value.0.clone())).collect(),
            over_https: Some(hsts.clone()).filter(|value| !value.is_empty()),
        }
    }
}

impl SecurityHeaders {
    /// Returns the fields for a response, which depend on whether the client uses HTTPS.
    pub fn fields(&self, is_https: bool) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let always = self.always.iter().map(|(name, value)| (name, value));
        let hsts = self.over_https.as_ref().filter(|_| is_https);
        always.chain(hsts.map(|value| (&header::STRICT_TRANSPORT_SECURITY, value)))
    }

    /// Sets the fields that the backend has not set. Over plain HTTP, removes Strict-Transport-Security.
    ///
    /// # Errors
    /// Returns an error if Pingora refuses a field, which does not happen: the values are valid.
    pub fn on_response(&self, is_https: bool, response: &mut ResponseHeader) -> Result<()> {
        if !is_https {
            response.remove_header(&header::STRICT_TRANSPORT_SECURITY);
        }
        for (name, value) in self.fields(is_https) {
            if !response.headers.contains_key(name) {
                response.insert_header(name, value)?;
            }
        }
        Ok(())
    }

    /// Sets the fields that a local reply does not have yet.
    pub fn on_reply(&self, is_https: bool, fields: &mut HeaderMap) {
        for (name, value) in self.fields(is_https) {
            fields.entry(name).or_insert_with(|| value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FieldValue;

    fn value(text: &'static str) -> FieldValue {
        FieldValue(HeaderValue::from_static(text))
    }

    fn applied(config: &config::SecurityHeaders, is_https: bool, own: &[(&'static str, &str)]) -> HeaderMap {
        let mut response = ResponseHeader::build(200, None).unwrap();
        for (name, value) in own {
            response.insert_header(*name, *value).unwrap();
        }
        SecurityHeaders::from(config).on_response(is_https, &mut response).unwrap();
        response.headers.clone()
    }

    #[test]
    fn backend_value_is_kept_and_empty_value_is_not_sent() {
        let config = config::SecurityHeaders { referrer_policy: value(""), ..Default::default() };
        let headers = applied(&config, true, &[("X-Frame-Options", "SAMEORIGIN")]);
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["x-frame-options"], "SAMEORIGIN");
        assert_eq!(headers.len(), 2, "{headers:?}");
    }

    #[test]
    fn strict_transport_security_goes_over_https_only() {
        let config =
            config::SecurityHeaders { strict_transport_security: value("max-age=1"), ..Default::default() };
        assert_eq!(applied(&config, true, &[])["strict-transport-security"], "max-age=1");
        let backends = [("Strict-Transport-Security", "max-age=2")];
        assert_eq!(applied(&config, true, &backends)["strict-transport-security"], "max-age=2");
        assert!(!applied(&config, false, &backends).contains_key("strict-transport-security"));
    }
}
