//! The list of requirements.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = fuzz_entries::requirements(bytes);
});
