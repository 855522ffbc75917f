//! Fuzz target that searches for an input for which the check of [`fuzz::proxy_protocol`] fails.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::proxy_protocol::check(input));
