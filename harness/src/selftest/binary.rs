//! The program that can be each of the mutants: where it is, and what it can be.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::Mutant;
use crate::{
    candidate::{self, Candidate},
    scenario::Span,
};

const NAME: &str = "reference-proxy-mutants";
const VARIABLE: &str = "HARNESS_MUTANTS";

/// How long a condition is waited for with a known-bad proxy, where the reference takes milliseconds. Most mutants fail by never getting there.
const PATIENCE: Span = Span::millis(3_000);
/// The same after a fault: the reference notices a half-open watch after 15 s, and tries again up to 3 s later; twice that on a busy machine.
const PATIENCE_AFTER_FAULTS: Span = Span::millis(40_000);

fn patience(faults: bool) -> Span {
    if faults {
        PATIENCE_AFTER_FAULTS
    } else {
        PATIENCE
    }
}

/// The mutants' program.
#[derive(Clone, Debug)]
pub struct Binary {
    program: candidate::Binary,
    reference: Candidate,
    /// All mutants that every attempt has to notice.
    pub mutants: Vec<Mutant>,
    /// The planted flakes.
    pub flakes: Vec<Mutant>,
}

/// Finds the program: `given`, the environment, beside the running program, or, where cargo runs that, by building it.
///
/// # Errors
///
/// It is nowhere, cannot be built, or does not list its mutants. The message says how to get it.
pub fn find(given: Option<&Path>) -> Result<Binary, String> {
    let path = match given {
        Some(path) => path.to_path_buf(),
        None => match std::env::var_os(VARIABLE) {
            Some(path) => path.into(),
            None => beside().map_or_else(build, Ok)?,
        },
    };
    Binary::open(&path)
}

fn beside() -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.parent()?.join(NAME);
    path.is_file().then_some(path)
}

/// Builds the program when cargo runs us inside the workspace, which then is newer than anything lying around.
fn build() -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let (Some(cargo), Some(workspace)) = (
        cargo,
        workspace.filter(|path| path.join("reference-proxy/Cargo.toml").is_file()),
    ) else {
        return Err(format!(
            "the mutants' program {NAME} is not there: build it in the workspace with \
             'cargo build --release -p reference-proxy --features mutants --bin {NAME}' and name it with --mutants or {VARIABLE}"
        ));
    };
    eprintln!("building {NAME}");
    let output = Command::new(cargo)
        .current_dir(workspace)
        .args([
            "build",
            "--release",
            "-p",
            "reference-proxy",
            "--features",
            "mutants",
            "--bin",
            NAME,
        ])
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo cannot be run: {error}"))?;
    if !output.status.success() {
        return Err(format!("{NAME} cannot be built ({})", output.status));
    }
    // Only cargo knows where its target directory is.
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
        .next_back()
        .ok_or_else(|| format!("cargo built no {NAME}"))
}

impl Binary {
    fn open(path: &Path) -> Result<Self, String> {
        // With a slash it is a path and not a name to look up.
        let path = std::path::absolute(path)
            .map_err(|error| format!("'{}' is no path: {error}", path.display()))?;
        let program = candidate::Binary::open(&path.to_string_lossy())?;
        let output = Command::new(&path)
            .arg("--list")
            .output()
            .map_err(|error| format!("'{}' cannot be run: {error}", path.display()))?;
        let mutants: Vec<Mutant> = serde_json::from_slice(&output.stdout).map_err(|error| {
            format!("'{} --list' does not list mutants: {error}", path.display())
        })?;
        let (flakes, mutants) = mutants.into_iter().partition(|mutant| mutant.flaky);
        let reference = Candidate::load("reference")
            .map_err(|error| format!("the manifest of the reference: {error}"))?;
        Ok(Self {
            program,
            reference,
            mutants,
            flakes,
        })
    }

    /// `sha256:...` of the program.
    pub fn digest(&self) -> &str {
        &self.program.digest
    }

    /// The proxy as it should be, out of the same program.
    pub fn reference(&self) -> Candidate {
        self.candidate("reference", &[], None)
    }

    /// A mutant, for cases with or without faults.
    pub fn mutant(&self, mutant: &Mutant, faults: bool) -> Candidate {
        let arguments = ["--mutant".to_owned(), mutant.name.clone()];
        self.candidate(&mutant.name, &arguments, Some(patience(faults)))
    }

    /// The proxy as it should be, with the patience that mutants get.
    pub fn control(&self, faults: bool) -> Candidate {
        self.candidate("reference", &[], Some(patience(faults)))
    }

    fn candidate(&self, name: &str, arguments: &[String], patience: Option<Span>) -> Candidate {
        let mut candidate = self.reference.clone();
        candidate.manifest.name = name.to_owned();
        candidate.binary = Some(self.program.clone());
        candidate.patience = patience;
        if let Some(process) = &mut candidate.manifest.process {
            // The bundled reference is a part of the harness's own program: two words instead of one.
            let rest = process.command.split_off(2);
            process.command = std::iter::once(NAME.to_owned())
                .chain(arguments.iter().cloned())
                .chain(rest)
                .collect();
            if let Some(cleanup) = &mut process.cleanup_args {
                cleanup.splice(0..1, arguments.iter().cloned());
            }
            // A mutant that does not get ready will not get ready later.
            if patience.is_some() {
                process.ready.deadline = Some(Span::millis(10_000));
            }
        }
        candidate
    }
}
