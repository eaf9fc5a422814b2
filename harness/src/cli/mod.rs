//! The command line: one file per command; thin: parse, call, print.

mod attempts;
mod bench;
mod certify;
mod classify;
mod clean;
mod cluster;
mod compare;
mod coverage;
mod diff;
mod doctor;
mod drive;
mod explain;
mod format;
mod gate;
mod github;
mod history;
mod hunt;
mod image;
mod interrupt;
mod list;
pub mod machine;
mod merge;
mod pause;
mod place;
mod progress;
mod render;
mod repeat;
mod repro;
mod required;
mod results;
mod schema;
mod selftest;
mod session;
mod sign;
mod site;
mod soak;
mod status;
mod submit;
mod upstream;
mod verify;
mod waivers;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

pub use certify::Exit;

/// Conformance and regression test harness for Kubernetes service proxies.
#[derive(Debug, Parser)]
#[command(name = "harness", version, about, max_term_width = 120, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Plain output without colours.
    #[arg(long, global = true)]
    no_color: bool,
}

const EXIT_CODES: &str = "Exit codes: 0 conformant; 1 not conformant; 2 usage or bad input; \
3 flaky beyond the budget; 4 infrastructure trouble; 5 nothing ran.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Certify a candidate: build worlds, run scenarios with real packets, write reports.
    Certify(certify::Certify),
    /// Run scenario documents from disk, such as a repro.
    Run(certify::Run),
    /// Rerun the evidence of an earlier failure.
    Repro(repro::ReproCommand),
    /// Run the cases again and again for hours, the least certain and most suspicious ones more often.
    Soak(soak::SoakCommand),
    /// Say how a running or ended run stands.
    Status(status::StatusCommand),
    /// List the cases of the catalogue.
    List(list::List),
    /// Explain a requirement, a scenario, a case, a bug or an upstream spec.
    Explain(explain::Explain),
    /// Show what the catalogue stands for: upstream specs, bugs, requirements.
    Coverage(coverage::CoverageCommand),
    /// Say what changes when one candidate takes the place of another.
    Diff(Box<diff::Diff>),
    /// Search for failures with random but valid histories, and make what fails small.
    Hunt(hunt::HuntCommand),
    /// Say what is worse in a new run than in an earlier one.
    Compare(compare::Compare),
    /// Say whether a run lets a change in.
    Gate(gate::GateCommand),
    /// Make one run out of the result directories of its shards.
    Merge(merge::MergeCommand),
    /// The results of many runs over time: rates, flakes, change points.
    History(history::HistoryCommand),
    /// Print a report of an earlier run in another format.
    Render(render::RenderCommand),
    /// Sign a result directory, or make a key to sign with.
    Sign(sign::SignCommand),
    /// Check the signature of a result directory, or a submission as a reviewer would.
    Verify(verify::VerifyCommand),
    /// Lay out a result directory for somebody who was not there.
    Submit(submit::SubmitCommand),
    /// Run the upstream end-to-end suite on a cluster, and hold it beside a run of this one.
    Upstream(Box<upstream::UpstreamCommand>),
    /// Make a static site over many reports.
    Site(site::SiteCommand),
    /// Test the tests with known-bad proxies.
    Selftest(selftest::SelftestCommand),
    /// Say what this kernel and machine can do, what is missing and how to get it.
    Doctor(doctor::Doctor),
    /// Measure worlds, the embedded API and proxies.
    Bench(bench::Bench),
    /// Write the image of the agents, for clusters that exist already.
    Image(image::ImageCommand),
    /// Clusters to look around in.
    Cluster(cluster::Cluster),
    /// Remove what a crash may have left behind.
    Clean(clean::Clean),
    /// Print the JSON Schema of scenario documents or candidate manifests.
    Schema(schema::Schema),
}

/// Runs the command.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // clap prints help and version to stdout with exit code 0, and errors to stderr with 2.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("HARNESS_LOG")
                .unwrap_or_else(|_| "error".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let color = !cli.no_color && std::env::var_os("NO_COLOR").is_none();
    let result = match cli.command {
        Command::Bench(command) => command.run(),
        Command::Certify(command) => command.run(color),
        Command::Run(command) => command.run(color),
        Command::Repro(command) => command.run(color),
        Command::Soak(command) => command.run(color),
        Command::Status(command) => command.run(),
        Command::List(command) => command.run(),
        Command::Explain(command) => command.run(),
        Command::Coverage(command) => command.run(),
        Command::Diff(command) => command.run(),
        Command::Hunt(command) => command.run(),
        Command::Compare(command) => command.run(),
        Command::Gate(command) => command.run(),
        Command::Merge(command) => command.run(),
        Command::History(command) => command.run(),
        Command::Render(command) => command.run(),
        Command::Sign(command) => command.run(),
        Command::Verify(command) => command.run(),
        Command::Submit(command) => command.run(),
        Command::Upstream(command) => command.run(),
        Command::Site(command) => command.run(),
        Command::Selftest(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Image(command) => command.run(),
        Command::Cluster(command) => command.run(),
        Command::Clean(command) => command.run(),
        Command::Schema(command) => command.run(),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            // It may hold what somebody else wrote, which is not to act in a terminal.
            eprintln!("error: {}", reports::text::visible(&failure.message));
            failure.exit.into()
        }
    }
}

/// Reads a file of waivers out of a text: for those that try it with hostile ones.
///
/// # Errors
/// When it is none.
pub fn check_waivers(text: &str) -> Result<(), crate::scenario::Problem> {
    waivers::of_text(&"waivers.yaml".into(), text).map(drop)
}

/// Reads a file of required cases out of a text: for those that try it with hostile ones.
///
/// # Errors
/// When it is none.
pub fn check_required(text: &str) -> Result<(), crate::scenario::Problem> {
    required::of_text("required.yaml".as_ref(), text).map(drop)
}

/// A command that could not do its work.
#[derive(Debug)]
pub struct Failed {
    message: String,
    exit: Exit,
}

impl Failed {
    /// Bad input: exit code 2.
    fn usage(message: impl std::fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            exit: Exit::Usage,
        }
    }

    /// Trouble that is not the candidate's: exit code 4.
    fn infra(message: impl std::fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            exit: Exit::Infra,
        }
    }
}

impl Failed {
    /// Makes reports of what was recorded before this, if there is room for them, and says where they are.
    fn with_reports_of(self, dir: &std::path::Path) -> Self {
        let written = results::read(dir)
            .ok()
            .and_then(|report| reports::write_all(dir, &report).ok());
        let message = match written {
            Some(_) => format!(
                "{}; reports of what was recorded are in {}",
                self.message,
                dir.display()
            ),
            None => format!(
                "{}; 'harness render {}' prints a report of what was recorded",
                self.message,
                dir.display()
            ),
        };
        Self { message, ..self }
    }
}

impl From<crate::scenario::Problem> for Failed {
    fn from(problem: crate::scenario::Problem) -> Self {
        Self::usage(problem)
    }
}

impl From<crate::candidate::CandidateError> for Failed {
    fn from(error: crate::candidate::CandidateError) -> Self {
        match error {
            crate::candidate::CandidateError::MissingTool { .. }
            | crate::candidate::CandidateError::Command { .. } => Self::infra(error),
            _ => Self::usage(error),
        }
    }
}

impl From<reports::directory::DirectoryError> for Failed {
    fn from(error: reports::directory::DirectoryError) -> Self {
        if error.is_usage() {
            Self::usage(error)
        } else if error.is_full() {
            Self::infra(format!("the disk of --out is full: {error}; make room"))
        } else {
            Self::infra(format!("{error}; what was written is kept"))
        }
    }
}

/// The runtime of all commands.
fn runtime() -> Result<tokio::runtime::Runtime, Failed> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failed::infra(format!("the runtime cannot be started: {error}")))
}

/// Prints to stdout; a reader that went away (`harness list | head`) ends the command quietly.
fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
