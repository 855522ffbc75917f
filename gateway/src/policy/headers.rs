//! `[headers]`: sets, adds or removes header fields of requests and responses as the operator configures. The
//! gateway first removes, then sets, then adds fields, so that no rule undoes another rule.

use http::{HeaderName, HeaderValue};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

use crate::config::{FieldName, Fields, Headers};

/// Response field that names the backend if `expose_backend` is true.
const X_BACKEND: HeaderName = HeaderName::from_static("x-backend");

/// The compiled `[headers]` table.
pub struct HeaderRules {
    request: Rules,
    response: Rules,
    expose_backend: bool,
}

struct Rules {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
}

impl From<&Headers> for HeaderRules {
    fn from(config: &Headers) -> Self {
        fn names(names: &[FieldName]) -> Vec<HeaderName> {
            names.iter().map(|FieldName(name)| name.clone()).collect()
        }
        fn fields(Fields(fields): &Fields) -> Vec<(HeaderName, HeaderValue)> {
            fields.iter().map(|(name, value)| (name.0.clone(), value.0.clone())).collect()
        }
        HeaderRules {
            request: Rules {
                remove: names(&config.request_remove),
                set: fields(&config.request_set),
                add: fields(&config.request_add),
            },
            response: Rules {
                remove: names(&config.response_remove),
                set: fields(&config.response_set),
                add: fields(&config.response_add),
            },
            expose_backend: config.expose_backend,
        }
    }
}

impl HeaderRules {
    /// Applies the rules to a request for the backend.
    ///
    /// # Errors
    /// Returns an error if Pingora refuses a field, which the validation of the configuration has excluded.
    pub fn on_request(&self, request: &mut RequestHeader) -> Result<()> {
        for name in &self.request.remove {
            request.remove_header(name);
        }
        for (name, value) in &self.request.set {
            request.insert_header(name, value)?;
        }
        for (name, value) in &self.request.add {
            request.append_header(name, value)?;
        }
        Ok(())
    }

    /// Applies the rules to a response. `backend` is the name of the backend that sent it, if one did.
    ///
    /// # Errors
    /// Returns an error if Pingora refuses a field, which the validation of the configuration has excluded.
    pub fn on_response(&self, response: &mut ResponseHeader, backend: Option<&str>) -> Result<()> {
        for name in &self.response.remove {
            response.remove_header(name);
        }
        for (name, value) in &self.response.set {
            response.insert_header(name, value)?;
        }
        for (name, value) in &self.response.add {
            response.append_header(name, value)?;
        }
        if let Some(backend) = backend.filter(|_| self.expose_backend) {
            response.insert_header(X_BACKEND, backend)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(toml: &str) -> HeaderRules {
        let headers: Headers = toml::from_str(toml).unwrap();
        HeaderRules::from(&headers)
    }

    fn fields(headers: &http::HeaderMap) -> Vec<(&str, &str)> {
        headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect()
    }

    #[test]
    fn requests_are_changed_in_a_fixed_order() {
        let rules = rules(
            "request_remove = [\"X-Gone\", \"X-Set\"]\n\
             request_set = { \"X-Set\" = \"ours\" }\n\
             request_add = { \"X-Added\" = \"ours\" }\n",
        );
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in [("X-Gone", "1"), ("X-Set", "theirs"), ("X-Added", "theirs"), ("X-Kept", "1")] {
            request.append_header(name, value).unwrap();
        }
        rules.on_request(&mut request).unwrap();
        let mut fields = fields(&request.headers);
        fields.sort_unstable();
        let expected = [("x-added", "ours"), ("x-added", "theirs"), ("x-kept", "1"), ("x-set", "ours")];
        assert_eq!(fields, expected);
    }

    #[test]
    fn server_and_powered_by_are_removed_by_default() {
        let rules = rules("");
        let mut response = ResponseHeader::build(200, None).unwrap();
        response.insert_header("Server", "nginx").unwrap();
        response.insert_header("X-Powered-By", "PHP").unwrap();
        rules.on_response(&mut response, Some("web-1")).unwrap();
        assert_eq!(fields(&response.headers), []);

        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        rules.on_request(&mut request).unwrap();
        assert_eq!(fields(&request.headers), [("x-proxy", "gateway")]);
    }

    #[test]
    fn backend_name_is_sent_if_expose_backend_is_set() {
        let mut response = ResponseHeader::build(200, None).unwrap();
        rules("expose_backend = true").on_response(&mut response, Some("web-1")).unwrap();
        assert_eq!(fields(&response.headers), [("x-backend", "web-1")]);
    }
}
