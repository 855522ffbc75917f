//! Statuses of HTTP responses.

use http::StatusCode;

/// Returns true if another response to the same request follows. It follows after each 1xx status except 101, which
/// ends HTTP on the connection (RFC 9110 15.2).
pub fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switching_protocols_is_not_interim() {
        let interim = [100, 101, 103, 200].map(|status| is_interim(StatusCode::from_u16(status).unwrap()));
        assert_eq!(interim, [true, false, true, false]);
    }
}
