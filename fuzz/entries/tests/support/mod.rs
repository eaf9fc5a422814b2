//! What the tests share: limits on time and memory, and changes that make a valid input a hostile one.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod change;
pub mod limit;
pub mod seeds;

use proptest::prelude::ProptestConfig;

/// So many inputs per test: `HARNESS_FUZZ_CASES`, or few enough for every run of the tests.
pub fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var("HARNESS_FUZZ_CASES")
        .ok()
        .map(|n| n.parse().expect("HARNESS_FUZZ_CASES is a number"));
    ProptestConfig {
        cases: asked.unwrap_or(cases),
        // A failure is shown with its input; what it shows becomes a test of its own.
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    }
}
