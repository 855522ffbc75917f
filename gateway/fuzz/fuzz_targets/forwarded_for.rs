//! Looks for an input for which [`fuzz::forwarded_for`] does not hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::forwarded_for::check(input));
