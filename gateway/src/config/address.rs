//! Address of a backend: `host:port`, a name with SRV records, or a Unix socket.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

use super::values::is_host_name;

/// Address of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum Address {
    /// Host and port. If the host is a name, each address to which it resolves is a separate backend.
    Host(HostPort),
    /// Name whose SRV records list the hosts and ports (RFC 2782): `srv:_http._tcp.example.com`.
    Service(String),
    /// Unix socket on this machine: `unix:/run/app.sock`.
    Unix(PathBuf),
}

/// Maximum length of a Unix socket's path, in bytes (`sun_path` in unix(7), without the final NUL).
const MAX_SOCKET_PATH: usize = 107;

impl Address {
    /// Returns the name that must be resolved by DNS; `None` for an IP address or a Unix socket.
    pub fn name(&self) -> Option<&str> {
        match self {
            Address::Host(host) => host.ip().is_none().then_some(&host.host),
            Address::Service(name) => Some(name),
            Address::Unix(_) => None,
        }
    }
}

impl TryFrom<String> for Address {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Address {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("'{text}' is not a valid address: {why}"));
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                _ if !path.starts_with('/') => wrong("expected unix:/path/of/socket"),
                _ if path.len() > MAX_SOCKET_PATH || path.contains('\0') => {
                    wrong(&format!("the path of a socket has at most {MAX_SOCKET_PATH} bytes"))
                }
                _ => Ok(Address::Unix(path.into())),
            };
        }
        if let Some(name) = text.strip_prefix("srv:") {
            return match is_host_name(name) && name.starts_with('_') {
                true => Ok(Address::Service(name.to_owned())),
                false => wrong("expected a name of SRV records, as in srv:_http._tcp.example.com"),
            };
        }
        text.parse().map(Address::Host)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Host(host) => host.fmt(f),
            Address::Service(name) => write!(f, "srv:{name}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Host and port, written `host:port`. The host is a name or an IP address; an IPv6 address is in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Host name or IP address as written, without brackets.
    pub host: String,
    /// Port; never 0.
    pub port: u16,
}

impl HostPort {
    /// Returns the host's IP address; `None` if the host is a name, which must be resolved.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl FromStr for HostPort {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("'{text}' is not a valid address: {why}; expected host:port, as in 127.0.0.1:3001")
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("there is no port"))?;
        let port = match port.parse::<u16>() {
            Ok(0) | Err(_) => return Err(wrong(&format!("'{port}' is not a port from 1 to 65535"))),
            Ok(port) => port,
        };
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let address =
                    rest.strip_suffix(']').filter(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
                address.ok_or_else(|| wrong("the text in brackets is not an IPv6 address"))?
            }
            None if host.contains(':') => return Err(wrong("an IPv6 address must be in brackets")),
            None if is_host_name(host) => host,
            None => return Err(wrong(&format!("'{host}' is not a valid host"))),
        };
        Ok(HostPort { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Result<Address, String> {
        text.parse()
    }

    #[test]
    fn valid_addresses_are_parsed_and_displayed() {
        for text in [
            "127.0.0.1:3001",
            "localhost:80",
            "web-1.example.com:65535",
            "[::1]:8080",
            "my_service:1",
            "unix:/run/app.sock",
            "srv:_http._tcp.example.com",
        ] {
            assert_eq!(address(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn invalid_address_is_refused_with_the_reason() {
        for (text, why) in [
            ("nonsense", "no port"),
            ("127.0.0.1", "no port"),
            ("127.0.0.1:0", "'0' is not a port"),
            ("127.0.0.1:65536", "'65536' is not a port"),
            ("127.0.0.1:http", "'http' is not a port"),
            (":80", "'' is not a valid host"),
            ("::1:80", "must be in brackets"),
            ("[::1:80", "not an IPv6 address"),
            ("[nonsense]:80", "not an IPv6 address"),
            ("a b:80", "'a b' is not a valid host"),
            ("http://a:80", "must be in brackets"),
            ("-a:80", "'-a' is not a valid host"),
            ("unix:app.sock", "expected unix:/path"),
            ("srv:web", "expected a name of SRV records"),
        ] {
            let error = address(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn only_host_and_srv_names_need_dns() {
        for (text, name) in [
            ("127.0.0.1:80", None),
            ("[::1]:80", None),
            ("unix:/run/app.sock", None),
            ("web:80", Some("web")),
            ("srv:_http._tcp.web", Some("_http._tcp.web")),
        ] {
            assert_eq!(address(text).unwrap().name(), name, "{text}");
        }
        assert!(address(&format!("unix:/{}", "a".repeat(107))).is_err());
    }
}
