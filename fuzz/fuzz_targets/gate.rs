//! Waivers and required cases, as a gate is asked with them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = fuzz_entries::gate(bytes);
});
