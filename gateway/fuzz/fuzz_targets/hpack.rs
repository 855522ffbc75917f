//! Looks for an input for which [`fuzz::hpack`] does not hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::hpack::check(input));
