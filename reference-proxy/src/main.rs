//! The `reference-proxy` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    reference_proxy::main_with_args(std::env::args_os().collect())
}
