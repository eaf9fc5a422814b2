//! The `harness` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    harness::dispatch(&args).unwrap_or_else(|| harness::cli::main(args))
}
