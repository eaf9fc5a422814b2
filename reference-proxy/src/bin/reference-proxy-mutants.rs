//! The reference proxy with known faults, to test the tests: see `reference_proxy::mutants`.

use std::process::ExitCode;

fn main() -> ExitCode {
    reference_proxy::mutants::main_with_args(std::env::args_os().collect())
}
