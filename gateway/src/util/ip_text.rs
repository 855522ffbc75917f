//! Text of an IP address. Each request needs it, for the backend and for the access log, and the formatter of the standard
//! library takes a thousand instructions for an IPv4 address.

use std::io::Write as _;
use std::net::IpAddr;

/// Appends the text of `address`, the same as its `Display` shows.
pub fn push(text: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (position, octet) in address.octets().into_iter().enumerate() {
                if position > 0 {
                    text.push(b'.');
                }
                push_number(text, octet);
            }
        }
        // A write to a vector cannot fail.
        IpAddr::V6(address) => drop(write!(text, "{address}")),
    }
}

/// Appends `number` without leading zeros.
fn push_number(text: &mut Vec<u8>, number: u8) {
    if number >= 100 {
        text.push(b'0' + number / 100);
    }
    if number >= 10 {
        text.push(b'0' + number / 10 % 10);
    }
    text.push(b'0' + number % 10);
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn text_is_that_of_the_standard_library() {
        let numbers = (0..=255).map(|number| IpAddr::from(Ipv4Addr::new(number, 0, 255 - number, 10)));
        for address in numbers.chain([IpAddr::from(Ipv6Addr::LOCALHOST), "2001:db8::a:b".parse().unwrap()]) {
            let mut text = Vec::new();
            push(&mut text, address);
            assert_eq!(String::from_utf8(text).unwrap(), address.to_string());
        }
    }
}
