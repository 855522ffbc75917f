//! Looks for an input for which [`fuzz::chunked_body`] does not hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::chunked_body::check(input));
