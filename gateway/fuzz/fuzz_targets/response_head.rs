//! Looks for an input for which [`fuzz::response_head`] does not hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::response_head::check(input));
