//! Looks for an input for which [`fuzz::proxy_protocol`] does not hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::proxy_protocol::check(input));
