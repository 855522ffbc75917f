//! Runs local origins for lessons and tests: `cargo run -p origin [-- PORT…]`.
//!
//! Each port (3001, 3002 and 3003 by default) is a separate instance on 127.0.0.1, labelled A, B, C and so
//! on. The top of `lib.rs` lists their paths.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

const DEFAULT_PORTS: [u16; 3] = [3001, 3002, 3003];

#[tokio::main]
async fn main() -> ExitCode {
    let ports = match ports(std::env::args().skip(1)) {
        Ok(ports) => ports,
        Err(usage) => {
            eprintln!("origin: {usage}");
            return ExitCode::from(2);
        }
    };
    let mut origins = JoinSet::new();
    for (port, label) in ports.into_iter().zip('A'..='Z') {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            Err(error) => {
                eprintln!("origin: cannot listen on {address}: {error}");
                return ExitCode::FAILURE;
            }
        };
        let address = listener.local_addr().unwrap_or(address);
        eprintln!("origin {label} listens on http://{address}");
        origins.spawn(origin::serve(listener, origin::app_with_log(&label.to_string())));
    }
    while let Some(ended) = origins.join_next().await {
        if let Ok(Err(error)) = ended {
            eprintln!("origin: an origin has stopped: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Returns the ports of the command line, or the default ones. At most 26 are allowed, one for each letter.
fn ports(arguments: impl Iterator<Item = String>) -> Result<Vec<u16>, String> {
    let ports = arguments
        .map(|argument| {
            argument.parse().map_err(|_| {
                format!(
                    "'{argument}' is not a port; expected numbers from 0 to 65535, as in: origin 3001 3002"
                )
            })
        })
        .collect::<Result<Vec<u16>, String>>()?;
    match ports.len() {
        0 => Ok(DEFAULT_PORTS.to_vec()),
        1..=26 => Ok(ports),
        n => Err(format!("{n} ports are too many; at most 26, one for each letter from A to Z")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Vec<u16>, String> {
        ports(arguments.iter().map(ToString::to_string))
    }

    #[test]
    fn ports_are_those_of_the_command_line_or_default() {
        assert_eq!(parse(&[]).unwrap(), DEFAULT_PORTS);
        assert_eq!(parse(&["4000", "0"]).unwrap(), [4000, 0]);
    }

    #[test]
    fn invalid_port_is_named_in_the_error() {
        assert!(parse(&["3001", "seventy"]).unwrap_err().contains("'seventy'"));
        assert!(parse(&["65536"]).unwrap_err().contains("'65536'"));
        assert!(parse(&["1"; 27]).unwrap_err().contains("27 ports"));
    }
}
