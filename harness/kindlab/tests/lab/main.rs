//! Clusters from their beginning to their end, against a kind and an engine that this program plays itself ([`fake`]); and against real ones, where
//! `HARNESS_KIND_IMAGE` names a node image ([`real`]).

mod cases;
mod fake;
mod real;

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let mut args = std::env::args();
    let program = args.next().unwrap_or_default();
    let name = Path::new(&program)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let rest: Vec<String> = args.collect();
    match (name.as_str(), rest.first().map(String::as_str)) {
        ("kind" | "docker" | "podman" | "nerdctl", _) => fake::be(&name, &rest),
        ("helper", _) => fake::helper(&rest[2]),
        (_, Some("hold")) => cases::hold(Path::new(&rest[1])),
        (_, Some("make")) => real::make(&rest[1], &rest[2]),
        _ => {}
    }
    // A user's kubeconfig, which none of the programs may hear of.
    // SAFETY: there is no other thread yet.
    unsafe { std::env::set_var("KUBECONFIG", "/the/user's/own") };
    let tests = cases::ALL.iter().chain(real::ALL);
    let trials = tests
        .map(|(name, test)| {
            Trial::test(*name, || {
                test();
                Ok(())
            })
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
