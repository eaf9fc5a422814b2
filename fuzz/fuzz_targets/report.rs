//! A finished report, as `compare`, `history` and `verify` read it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = fuzz_entries::report(bytes);
});
