//! Files whose content a snapshot depends on. A change of one of them compiles the configuration again.

use std::path::PathBuf;

use super::certificates::acme_pair;
use crate::live::snapshot::Snapshot;

/// Returns every file whose content `snapshot` depends on, besides the configuration file. A policy that reads a file
/// belongs into this list.
pub(in crate::live) fn files(snapshot: &Snapshot) -> Vec<PathBuf> {
    let config = &snapshot.config;
    let mut files: Vec<&String> = Vec::new();
    for host in &config.virtual_hosts {
        files.extend(host.cert_file.0.iter().chain(&host.key_file.0).chain([&host.client_ca_file]));
    }
    for (_, tables) in config.levels() {
        let of_upstream =
            tables.upstream.map(|table| [&table.ca_file, &table.client_cert_file, &table.client_key_file]);
        files.extend(of_upstream.into_iter().flatten());
        files.extend(tables.auth.into_iter().flat_map(|table| table.files()));
        files.extend(
            tables.rate_limit.into_iter().flat_map(|table| &table.0).map(|window| &window.store_ca_file),
        );
    }
    let mut files: Vec<PathBuf> =
        files.into_iter().filter(|file| !file.is_empty()).map(PathBuf::from).collect();
    let by_acme = config.virtual_hosts.iter().filter_map(|host| acme_pair(&snapshot.acme, host));
    files.extend(by_acme.map(|pair| pair.certificate));
    files.sort_unstable();
    files.dedup();
    files
}
