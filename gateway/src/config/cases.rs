//! `[[tests]]`: requests with their expected results. The tests are part of the configuration that they check. A
//! configuration that fails one of its tests is refused like any other invalid configuration.

use http::{Method, Uri};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::fields::Fields;
use super::values::is_default;

/// Test of the configuration: a request and its expected result.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Case {
    /// Method and URL, such as `GET http://app.example.com/api`.
    pub request: CaseRequest,
    /// Header fields of the request.
    #[serde(skip_serializing_if = "is_default")]
    pub headers: Fields,
    /// Expected result; at least one of its keys must be set.
    pub expect: Expect,
}

/// Method and URL of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct CaseRequest {
    /// Method of the request.
    pub method: Method,
    /// URL of the request; it always has a host.
    pub url: Uri,
}

/// Expected result of a request. A key that is left out is not checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// Domain of the virtual host that serves the request.
    #[serde(skip_serializing_if = "is_default")]
    pub virtual_host: Option<String>,
    /// Name of the route that matches the request; "/" if no route of the virtual host matches.
    #[serde(skip_serializing_if = "is_default")]
    pub route: Option<String>,
    /// Tag of the backends from which the request's backend is chosen.
    #[serde(skip_serializing_if = "is_default")]
    pub tag: Option<String>,
    /// Path in the request that the backend gets.
    #[serde(skip_serializing_if = "is_default")]
    pub path: Option<String>,
    /// Target of the redirect with which the gateway answers.
    #[serde(skip_serializing_if = "is_default")]
    pub redirect: Option<String>,
    /// Status code of the local reply with which the gateway answers.
    #[serde(skip_serializing_if = "is_default")]
    pub status: Option<u16>,
}

impl TryFrom<String> for CaseRequest {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let wrong =
            || format!("'{text}' is not a valid request; expected something like \"GET http://a.example/x\"");
        let (method, url) = text.split_once(' ').ok_or_else(wrong)?;
        let (method, url) = (method.parse().map_err(|_| wrong())?, url.parse::<Uri>().map_err(|_| wrong())?);
        url.authority().ok_or_else(wrong)?;
        Ok(CaseRequest { method, url })
    }
}

impl Serialize for CaseRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{} {}", self.method, self.url))
    }
}
