//! Looks for an input for which [`fuzz::request_head`] does not hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::request_head::check(input));
