//! Errors of DNS lookups: the reason in words, and whether another lookup may succeed.

use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;

/// Error of a lookup: the reason why the addresses of a name are not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupError {
    /// Reason in words.
    pub reason: String,
    /// True if DNS has no such name or address, or if the name is not a valid DNS name. Another lookup then fails too,
    /// until the operator changes the name or DNS. If false, another lookup may succeed soon.
    pub is_final: bool,
}

impl LookupError {
    /// Returns the error for a temporary failure: another lookup may succeed soon.
    pub(super) fn passing(reason: impl ToString) -> Self {
        LookupError { reason: reason.to_string(), is_final: false }
    }

    /// Returns the error for a final failure: DNS has no such name or address, or the name is not valid.
    pub(super) fn lasting(reason: impl ToString) -> Self {
        LookupError { reason: reason.to_string(), is_final: true }
    }

    pub(super) fn no_address() -> Self {
        LookupError::lasting("the name has no address")
    }

    /// Converts `error`, the failure of a query to `server`.
    pub(super) fn of(server: &str, error: &NetError) -> Self {
        match error {
            error if error.is_nx_domain() => LookupError::lasting("there is no such name"),
            error if error.is_no_records_found() => LookupError::no_address(),
            NetError::Dns(DnsError::ResponseCode(code)) => LookupError::answered(server, *code),
            NetError::Timeout => LookupError::passing(format!("{server} did not answer in time")),
            NetError::NoConnections => LookupError::passing(format!("{server} cannot be reached")),
            NetError::Io(error) => LookupError::passing(format!("the query to {server} failed: {error}")),
            error => LookupError::passing(format!("{server} gave no valid answer: {error}")),
        }
    }

    /// Returns the error for a response of `server` with the failure `code`. The reason gives the name of the code
    /// (RFC 1035, RFC 6895), or the number if the code has no name.
    pub(super) fn answered(server: &str, code: ResponseCode) -> Self {
        let code = match code {
            ResponseCode::Unknown(code) => format!("response code {code}"),
            named => format!("{named:?}").to_ascii_uppercase(),
        };
        LookupError::passing(format!("{server} answered with {code}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_response_code_of_server() {
        let reason = |error: &NetError| LookupError::of("192.0.2.53:53", error).reason;
        for (code, words) in [
            (ResponseCode::FormErr, "192.0.2.53:53 answered with FORMERR"),
            (ResponseCode::NotImp, "192.0.2.53:53 answered with NOTIMP"),
            (ResponseCode::Refused, "192.0.2.53:53 answered with REFUSED"),
            (ResponseCode::ServFail, "192.0.2.53:53 answered with SERVFAIL"),
            (ResponseCode::Unknown(3000), "192.0.2.53:53 answered with response code 3000"),
        ] {
            let error = NetError::from(DnsError::ResponseCode(code));
            assert_eq!(reason(&error), words);
            assert!(!LookupError::of("", &error).is_final, "{words}");
        }
        assert_eq!(reason(&NetError::Timeout), "192.0.2.53:53 did not answer in time");
    }
}
