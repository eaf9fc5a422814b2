//! Every case of the catalogue as a test of its own, so that nextest's filters, stress runs and JUnit work on them.
//!
//! A test makes one attempt of its case against the reference proxy, in a world of its own. It is never retried to green: its seed
//! is random, and a failure says how to make the same attempt again. By environment variables:
//!
//! - `HARNESS_TEST_PROFILE`: `core` (default), `extended` or `all`.
//! - `HARNESS_TEST_CANDIDATE`: `reference` (default), `null` or the path of a manifest.
//! - `HARNESS_TEST_SEED`: the run's seed, as `harness certify --seed` takes it.
//! - `HARNESS_TEST_OUT`: directory for the evidence of failed attempts; without it none is kept.
//!
//! What the machine or the candidate cannot do is ignored, and `infra:` before a message says that the failure is not the
//! candidate's.

use std::{env, fmt::Write as _, path::PathBuf, process::ExitCode, sync::Arc};

use clap::ValueEnum as _;
use harness::{
    candidate::Candidate,
    cli::machine,
    plan::{self, Catalogue, Filter, Planned, Profile, Requirements},
    run,
    scenario::rehearse,
};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use netlab::{Topology, World, WorldError};
use reports::event::{AttemptFinished, Skip, Verdict};
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let args: Vec<std::ffi::OsString> = env::args_os().collect();
    if let Some(exit) = harness::dispatch(&args) {
        return exit;
    }
    let arguments = Arguments::from_args();
    match trials(arguments.list) {
        Ok(trials) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// What all tests of this process share.
struct Shared {
    candidate: Arc<Candidate>,
    /// As `--candidate` takes it.
    given: String,
    seed: u64,
    out: Option<PathBuf>,
    runtime: Runtime,
}

/// All cases. For a list it is found out whether worlds can be built at all, so that tools that run each test in a process of its
/// own, and go by the list, see tests that are ignored and not tests that pass.
fn trials(list: bool) -> Result<Vec<Trial>, Box<dyn std::error::Error>> {
    let profile = match env::var("HARNESS_TEST_PROFILE") {
        Ok(name) => Profile::from_str(&name, false)
            .map_err(|error| format!("HARNESS_TEST_PROFILE: {error}"))?,
        Err(_) => Profile::default(),
    };
    let seed = match env::var("HARNESS_TEST_SEED") {
        Ok(seed) => seed
            .parse()
            .map_err(|error| format!("HARNESS_TEST_SEED: {error}"))?,
        Err(_) => u64::from(rand::random::<u32>()),
    };
    let candidate = env::var("HARNESS_TEST_CANDIDATE").unwrap_or_else(|_| "reference".into());
    let shared = Arc::new(Shared {
        candidate: Arc::new(Candidate::load(&candidate)?),
        given: candidate,
        seed,
        out: env::var_os("HARNESS_TEST_OUT").map(PathBuf::from),
        runtime: tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?,
    });
    let requirements = Requirements::embedded()?;
    let catalogue = Catalogue::embedded(&requirements)?;
    let planned = plan::select(
        &catalogue,
        &requirements,
        &shared.candidate,
        &machine::missing(),
        profile,
        &Filter::All,
    );
    let forbidden = list && shared.runtime.block_on(worlds_are_forbidden());
    let trial = |planned: Planned| {
        let shared = shared.clone();
        let (id, area) = (planned.key.id.clone(), planned.area.clone());
        let ignored = forbidden || planned.skip.is_some();
        Trial::ignorable_test(id, move || attempt(&planned, &shared))
            .with_kind(area)
            .with_ignored_flag(ignored)
    };
    Ok(planned.into_iter().map(trial).collect())
}

/// What [`WorldError::UserNamespacesForbidden`] says.
const FORBIDDEN: &str = "user namespaces are forbidden";

fn attempt(planned: &Planned, shared: &Shared) -> Result<Completion, Failed> {
    if let Some(Skip { kind, reason }) = &planned.skip {
        return Ok(ignored(&format!("{kind}: {reason}")));
    }
    let case = planned.document.resolve(&planned.key)?;
    rehearse(&case)?;
    let seed = planned
        .document
        .header
        .seed
        .unwrap_or_else(|| plan::attempt_seed(shared.seed, &planned.key.id, 1));
    let attempt = run::run_once(
        Arc::new(case),
        shared.candidate.clone(),
        seed,
        1,
        shared.out.clone(),
        None,
        None,
    );
    let finished = shared.runtime.block_on(attempt);
    match finished.verdict {
        Verdict::Pass => Ok(Completion::Completed),
        Verdict::Skip => Ok(ignored(&finished.skip.map_or_else(String::new, |skip| {
            format!("{}: {}", skip.kind, skip.reason)
        }))),
        Verdict::Infra
            if finished
                .infra
                .as_deref()
                .is_some_and(|infra| infra.contains(FORBIDDEN)) =>
        {
            Ok(ignored(&finished.infra.unwrap_or_default()))
        }
        Verdict::Fail | Verdict::Infra => Err(message(&finished, shared).into()),
    }
}

/// A test that cannot be made here. nextest counts it as passed unless it was ignored beforehand, so it is said aloud.
fn ignored(reason: &str) -> Completion {
    println!("skipped: {reason}");
    Completion::ignored_with(reason)
}

/// Whether this machine does not let this user make user namespaces; every other trouble is the tests' to find.
async fn worlds_are_forbidden() -> bool {
    match World::build(&Topology::uniform(1, 0), &netlab::Options::default()).await {
        Ok(world) => {
            world.shutdown().await;
            false
        }
        Err(error) => matches!(error, WorldError::UserNamespacesForbidden { .. }),
    }
}

fn message(finished: &AttemptFinished, shared: &Shared) -> String {
    let mut text = String::new();
    if let Some(infra) = &finished.infra {
        let _ = writeln!(text, "infra: {infra}");
    }
    for failure in &finished.failures {
        let _ = writeln!(
            text,
            "{} ({}): {}",
            failure.kind, failure.verb, failure.message
        );
    }
    let _ = write!(
        text,
        "once more: harness certify --profile all --filter '{}' --seed {}",
        finished.case, shared.seed
    );
    if shared.given != "reference" {
        let _ = write!(text, " --candidate {}", shared.given);
    }
    if let (Some(out), Some(evidence)) = (&shared.out, &finished.evidence) {
        let _ = write!(text, "\nevidence: {}", out.join(evidence).display());
    }
    text
}
