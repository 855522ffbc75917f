//! Fuzz target that searches for an input for which the check of [`fuzz::http2_frames`] fails.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::http2_frames::check(input));
