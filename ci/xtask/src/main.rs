//! `cargo xtask`: everything CI runs, as commands that run the same on a laptop.
//!
//! ```text
//! cargo xtask test    formatting, clippy, doc tests, all other tests
//! cargo xtask ci      the same, then certifies the reference proxy, holds that against the gate, and checks that the null candidate is refused
//! ```

mod steps;
mod summary;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand};

use steps::{Step, Steps};

/// Repository tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Formatting, clippy, doc tests and all other tests; installs cargo-nextest when it is missing.
    Test {
        /// Arguments for `cargo nextest run`, such as a filter.
        #[arg(last = true)]
        nextest: Vec<OsString>,
    },
    /// What `.ci/run` runs: `test`, then a certification of the reference proxy and its gate, and one that must fail.
    Ci,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut steps = Steps::default();
    let done = match cli.task {
        Task::Test { nextest } => test(&mut steps, "default", &nextest),
        Task::Ci => test(&mut steps, "ci", &[]).and_then(|()| conformance(&mut steps)),
    };
    steps.print_durations();
    // The counts come last, where people and CI systems look for them.
    match summary::read(&junit_path()) {
        Ok(Some(tests)) => println!("{tests}"),
        Ok(None) => {}
        Err(error) => eprintln!("xtask: failed to {error:#}"),
    }
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: failed to {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn test(steps: &mut Steps, profile: &str, nextest: &[OsString]) -> anyhow::Result<()> {
    // Counts of an earlier run must not stand for this one.
    summary::forget(&junit_path())?;
    install_nextest(steps)?;
    let all_warnings_are_errors = ["--", "--deny", "warnings"];
    steps.run(Step::new(
        "check formatting",
        cargo(["fmt", "--all", "--check"]),
    ))?;
    let mut clippy = cargo(["clippy", "--workspace", "--all-targets"]);
    clippy.args(all_warnings_are_errors);
    steps.run(Step::new("run clippy", clippy))?;
    let docs = cargo(["test", "--workspace", "--doc", "--quiet"]);
    steps.run(Step::new("run doc tests", docs))?;
    let mut tests = cargo(["nextest", "run", "--workspace", "--profile", profile]);
    tests.args(nextest);
    steps.run(Step::new("run tests", tests))
}

/// The harness against the proxy that must pass, and against the one that must not: a gate that cannot say no is none.
fn conformance(steps: &mut Steps) -> anyhow::Result<()> {
    let out = |candidate: &str| root().join("harness-out").join(format!("ci-{candidate}"));
    let harness = |command: &str| {
        let mut run = cargo(["run", "--release", "--package", "harness", "--"]);
        run.args([command, "--no-color"]);
        run
    };
    let certify = |candidate: &str| {
        let out = out(candidate);
        if out.exists() {
            std::fs::remove_dir_all(&out)
                .with_context(|| format!("remove the reports of an earlier run in {out:?}"))?;
        }
        let mut command = harness("certify");
        command.args(["--candidate", candidate, "--out"]).arg(out);
        anyhow::Ok(command)
    };
    let gate = |candidate: &str| {
        let mut command = harness("gate");
        command.arg(out(candidate));
        command.args(["--require", "ci/required/reference.yaml"]);
        command
    };
    let reference = Step::new("certify the reference proxy", certify("reference")?);
    steps.run(reference)?;
    steps.run(Step::new("pass the gate", gate("reference")))?;
    // Why it fails is known.
    let mut null = certify("null")?;
    null.arg("--no-classify");
    let null = Step::new("refuse the null candidate", null);
    steps.run(null.expect_exit(1))?;
    let closed = Step::new("close the gate to the null candidate", gate("null"));
    steps.run(closed.expect_exit(1))
}

fn install_nextest(steps: &mut Steps) -> anyhow::Result<()> {
    let present = cargo(["nextest", "--version"]).output();
    let present = present.context("start cargo")?.status.success();
    if present {
        return Ok(());
    }
    let install = cargo(["install", "--locked", "cargo-nextest"]);
    steps.run(Step::new("install cargo-nextest", install))
}

fn cargo<const N: usize>(args: [&str; N]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// Where nextest's `ci` profile puts its JUnit file, see `.config/nextest.toml`.
fn junit_path() -> PathBuf {
    root().join("target/nextest/ci/junit.xml")
}

/// The workspace: this crate lies two directories below it.
fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}
