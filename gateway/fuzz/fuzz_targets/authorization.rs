//! Fuzz target that searches for an input for which the check of [`fuzz::authorization`] fails.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::authorization::check(input));
