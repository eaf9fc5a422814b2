//! The `harness` command. One binary, several callers: the world's first process and the bundled reference proxy are
//! hidden subcommands, handled before any thread exists.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    match args.get(1).and_then(|arg| arg.to_str()) {
        Some("__world") => {
            let rest: Vec<String> = args[2..].iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
            netlab::world_main(&rest)
        }
        Some("reference-proxy") => {
            let rest = std::iter::once("reference-proxy".into()).chain(args[2..].iter().cloned());
            reference_proxy::main_with_args(rest.collect())
        }
        _ => harness::cli::main(args),
    }
}
