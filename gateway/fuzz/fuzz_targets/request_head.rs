//! Fuzz target that searches for an input for which the check of [`fuzz::request_head`] fails.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::request_head::check(input));
