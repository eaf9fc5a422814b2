//! A run's log, into a report and all of its forms.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = fuzz_entries::log(bytes);
});
