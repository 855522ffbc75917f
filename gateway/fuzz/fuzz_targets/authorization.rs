//! Looks for an input for which [`fuzz::authorization`] does not hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::authorization::check(input));
