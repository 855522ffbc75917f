//! `[[tests]]`: what must become of certain requests. They stand beside the configuration that they are
//! about, and one that breaks them is refused like any other that is wrong.

use http::{Method, Uri};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::fields::Fields;
use super::values::is_default;

/// A request, and what is expected to become of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Case {
    /// Method and URL, as in `GET http://app.example.com/api`.
    pub request: CaseRequest,
    /// Its header fields.
    #[serde(skip_serializing_if = "is_default")]
    pub headers: Fields,
    /// What is looked at; at least one thing.
    pub expect: Expect,
}

/// Method and URL of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct CaseRequest {
    /// The method.
    pub method: Method,
    /// The URL, host included.
    pub url: Uri,
}

/// What is expected to become of a request; what is left out is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// The domain of the virtual host that serves it.
    #[serde(skip_serializing_if = "is_default")]
    pub virtual_host: Option<String>,
    /// The route that it takes; "/" where it takes none of its virtual host's.
    #[serde(skip_serializing_if = "is_default")]
    pub route: Option<String>,
    /// A tag whose backends may get it.
    #[serde(skip_serializing_if = "is_default")]
    pub tag: Option<String>,
    /// The path that a backend gets to see.
    #[serde(skip_serializing_if = "is_default")]
    pub path: Option<String>,
    /// Where the client is sent instead.
    #[serde(skip_serializing_if = "is_default")]
    pub redirect: Option<String>,
    /// The status with which the gateway itself answers.
    #[serde(skip_serializing_if = "is_default")]
    pub status: Option<u16>,
}

impl TryFrom<String> for CaseRequest {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no request; expected something like \"GET http://a.example/x\"");
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
