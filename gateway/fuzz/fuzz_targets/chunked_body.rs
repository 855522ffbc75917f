//! Fuzz target that searches for an input for which the check of [`fuzz::chunked_body`] fails.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::chunked_body::check(input));
