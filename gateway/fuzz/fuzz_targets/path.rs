//! Looks for an input for which [`fuzz::path`] does not hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::path::check(input));
