//! Configuration files for the tests of all five steps.

use std::fmt::Write;
use std::net::SocketAddr;

/// Table `[proxy]` for gateways in the test's own process, which do not use it.
pub(crate) const PROXY: &str = "[proxy]\nlisten_addr_http = \"127.0.0.1:1\"\nmetrics_addr = \"127.0.0.1:2\"\n\
                         shutdown_timeout_secs = 10\n";

/// Returns a configuration file. `routes` are paths and tags. `backends` are tags and addresses; their ids are
/// `backend-0`, `backend-1` and so on.
pub(crate) fn file(
    proxy: &str,
    policy: &str,
    routes: &[(&str, &str)],
    backends: &[(&str, SocketAddr)],
) -> String {
    let mut file = format!("{proxy}[policy]\n{policy}\n");
    for (path, tag) in routes {
        let _ = write!(file, "[[routes]]\npath_prefix = \"{path}\"\ntag = \"{tag}\"\n");
    }
    for (i, (tag, address)) in backends.iter().enumerate() {
        let _ =
            write!(file, "[[backends]]\nid = \"backend-{i}\"\naddress = \"{address}\"\ntag = \"{tag}\"\n");
    }
    file
}
