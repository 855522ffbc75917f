//! Looks for an input for which [`fuzz::host`] does not hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::host::check(input));
