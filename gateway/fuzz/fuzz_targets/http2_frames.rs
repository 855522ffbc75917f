//! Looks for an input for which [`fuzz::http2_frames`] does not hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::http2_frames::check(input));
