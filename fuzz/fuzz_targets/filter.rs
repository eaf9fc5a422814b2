//! Filter expressions, which logs hold too.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = fuzz_entries::filter(bytes);
});
