//! Fuzz target that searches for an input for which the check of [`fuzz::forwarded_for`] fails.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::forwarded_for::check(input));
