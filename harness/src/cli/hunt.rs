//! `harness hunt`.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use clap::Args;
use serde_json::{Value, json};

use super::{
    Exit, Failed, attempts::Attempts, certify::run_id, interrupt::interrupted, machine, runtime,
};
use crate::{
    candidate::Candidate,
    hunt::{Catch, Counterexample, Hunt, Options, Prey, Settings, Standing, document},
    plan::Profile,
    scenario::{Feature, Level, Span},
    selftest,
};

/// Search for failures: random but valid histories against a candidate, until one fails, which is then made as small as it gets.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 nothing found; 1 counterexamples found; 2 usage; 4 infrastructure trouble, only failures that the reference shows too, or \
nothing could be tried. With --mutant: 0 every mutant was found; 1 not so."
)]
pub struct HuntCommand {
    /// `reference`, `null`, or the path of a candidate manifest.
    #[arg(long, default_value = "reference", value_name = "FILE|reference|null")]
    candidate: String,
    /// How long new histories are tried, such as 90s or 2h; what was found by then is still shrunk.
    #[arg(long = "for", default_value = "5m", value_name = "TIME")]
    duration: Span,
    /// Which rules are asked for: those of level core, core and extended, or all.
    #[arg(long, value_enum, default_value = "extended")]
    profile: Profile,
    #[command(flatten)]
    attempts: Attempts,
    /// Directory for what is found; must not hold an earlier hunt.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// No more histories than these.
    #[arg(long, value_name = "N")]
    documents: Option<u64>,
    /// The hunt ends with so many counterexamples.
    #[arg(long, value_name = "N")]
    stop_after: Option<usize>,
    /// How long one counterexample may be shrunk; 0s leaves them as they are.
    #[arg(long, default_value = "3m", value_name = "TIME")]
    shrink_for: Span,
    /// Hunts proxies with known faults instead, one after the other, each until it is found; may be repeated.
    #[arg(long, value_name = "NAME", conflicts_with = "candidate")]
    mutant: Vec<String>,
    /// The program with the mutants; HARNESS_MUTANTS by default, else beside this program, else built by cargo.
    #[arg(long, value_name = "PATH")]
    mutants: Option<PathBuf>,
    /// Prints the histories, one document after the other, and runs none (with --documents; 1 by default); on stderr, which pairs they meet.
    #[arg(long)]
    print: bool,
}

impl HuntCommand {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        let seed = self.attempts.seed();
        if self.print {
            return Ok(self.print_documents(seed));
        }
        if self.mutant.is_empty() {
            self.hunt_candidate(seed)
        } else {
            self.hunt_mutants(seed)
        }
    }

    fn level(&self) -> Level {
        match self.profile {
            Profile::Core => Level::Core,
            Profile::Extended => Level::Extended,
            Profile::All => Level::Strict,
        }
    }

    fn print_documents(&self, seed: u64) -> Exit {
        let settings = Settings::up_to(self.level());
        let mut generator = crate::hunt::Generator::new(seed, settings);
        let texts: Vec<String> = (0..self.documents.unwrap_or(1))
            .map(|_| document::text(&generator.generate().scenario))
            .collect();
        super::print(&texts.join("---\n"));
        eprint!("{}", generator.coverage().table(5));
        Exit::Ok
    }

    fn options(&self, seed: u64, out: PathBuf, lacks: impl Fn(Feature) -> bool) -> Options {
        let features = [
            Feature::SessionAffinity,
            Feature::SourceRanges,
            Feature::TopologyHints,
            Feature::ExternalIps,
            Feature::LoadBalancer,
            Feature::TrafficPolicy,
            Feature::NetfilterRules,
        ];
        let missing = machine::missing();
        Options {
            seed,
            settings: Settings {
                level: self.level(),
                lacking: features
                    .into_iter()
                    .filter(|feature| lacks(*feature) || missing.contains_key(feature))
                    .collect(),
            },
            jobs: self.attempts.jobs() as usize,
            duration: self.duration.0,
            documents: self.documents,
            most: self.stop_after,
            shrink: Some(self.shrink_for.0).filter(|time| *time > Duration::ZERO),
            out,
        }
    }

    fn directory(&self, name: &str) -> Result<PathBuf, Failed> {
        let out = self
            .out
            .clone()
            .unwrap_or_else(|| Path::new("harness-out").join(format!("hunt-{}", run_id(name))));
        if out.join("hunt.json").exists() {
            return Err(Failed::usage(format!(
                "--out {}: it holds an earlier hunt; name another directory or remove it",
                out.display()
            )));
        }
        std::fs::create_dir_all(&out).map_err(|error| {
            Failed::usage(format!(
                "--out {}: it cannot be created: {error}",
                out.display()
            ))
        })?;
        Ok(out)
    }

    fn hunt_candidate(&self, seed: u64) -> Result<Exit, Failed> {
        let candidate = Candidate::load(&self.candidate)?;
        let out = self.directory(&candidate.manifest.name)?;
        let options = self.options(seed, out.clone(), |feature| {
            candidate.lacks(feature).is_some()
        });
        let control = (self.candidate != "reference")
            .then(|| Candidate::load("reference"))
            .transpose()?;
        super::print(&format!(
            "hunting {} for {} (profile {}, seed {seed})\n",
            candidate.manifest.name,
            self.duration,
            self.profile.as_str()
        ));
        let prey = Prey::Candidate {
            candidate: Box::new(candidate),
            control: control.map(Box::new),
        };
        let name = prey.name().to_owned();
        let caught = hunt(prey, options, &Arc::new(AtomicBool::new(false)))?;
        write(&out, &summary(&caught, &name, seed, self.profile))?;
        super::print(&text(&caught, &name, &out));
        Ok(exit(&caught))
    }

    fn hunt_mutants(&self, seed: u64) -> Result<Exit, Failed> {
        let binary = selftest::find(self.mutants.as_deref()).map_err(Failed::infra)?;
        let mut mutants = Vec::new();
        for name in &self.mutant {
            let Some(mutant) = binary.mutants.iter().find(|mutant| mutant.name == *name) else {
                return Err(Failed::usage(format!(
                    "--mutant {name}: there is none of this name; docs/mutants.md lists them"
                )));
            };
            mutants.push(mutant.clone());
        }
        let out = self.directory("mutants")?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut rows = Vec::new();
        let mut all = Vec::new();
        let mut missed = 0;
        super::print(&format!(
            "hunting {} mutants, each for {} (profile {}, seed {seed})\n",
            mutants.len(),
            self.duration,
            self.profile.as_str()
        ));
        for mutant in mutants {
            let name = mutant.name.clone();
            let mut options = self.options(seed, out.join(&name), |_| false);
            options.most = Some(self.stop_after.unwrap_or(1));
            let prey = Prey::Mutant {
                binary: Box::new(binary.clone()),
                mutant,
            };
            let caught = hunt(prey, options, &stop)?;
            all.push(summary(&caught, &name, seed, self.profile));
            let first = counterexamples(&caught).min_by(|a, b| a.seconds.total_cmp(&b.seconds));
            missed += usize::from(first.is_none());
            rows.push(row(&name, &caught, first));
            if let Some(row) = rows.last() {
                super::print(&format!("{row}\n"));
            }
            if caught.interrupted {
                break;
            }
        }
        let table = format!("{TABLE}{}\n", rows.join("\n"));
        let failed = |error: std::io::Error| Failed::infra(format!("{}: {error}", out.display()));
        std::fs::write(out.join("hunt.md"), &table).map_err(failed)?;
        write(&out, &json!(all))?;
        super::print(&format!("\n{table}\n{}\n", out.display()));
        let interrupted = stop.load(std::sync::atomic::Ordering::Relaxed);
        Ok(match (interrupted, missed) {
            (true, _) => Exit::Infra,
            (_, 0) => Exit::Ok,
            _ => Exit::NotConformant,
        })
    }
}

const TABLE: &str = "| mutant | found after | histories | steps | of | attempts to shrink | signature |\n|---|--:|--:|--:|--:|--:|---|\n";

fn row(name: &str, caught: &Catch, first: Option<&Counterexample>) -> String {
    match first {
        Some(one) => format!(
            "| `{name}` | {:.0} s | {} | {} | {} | {} | {} |",
            one.seconds,
            caught.documents,
            one.scenario.steps.len(),
            one.found_steps,
            one.shrink_attempts,
            one.signature
        ),
        None => format!(
            "| `{name}` | not within {:.0} s | {} | | | | |",
            caught.seconds, caught.documents
        ),
    }
}

fn hunt(prey: Prey, options: Options, stop: &Arc<AtomicBool>) -> Result<Catch, Failed> {
    runtime()?.block_on(async {
        tokio::spawn(interrupted(stop.clone()));
        let say = Box::new(|line: &str| super::print(&format!("{line}\n")));
        Ok(Hunt::run(prey, options, stop.clone(), say).await)
    })
}

fn counterexamples(caught: &Catch) -> impl Iterator<Item = &Counterexample> {
    let all = caught.found.iter();
    all.filter(|one| one.standing == Standing::Counterexample)
}

fn exit(caught: &Catch) -> Exit {
    let suspect = caught
        .found
        .iter()
        .any(|one| one.standing == Standing::OracleSuspect);
    if counterexamples(caught).next().is_some() {
        Exit::NotConformant
    } else if caught.documents == 0 || caught.interrupted || suspect || !caught.unusable.is_empty()
    {
        Exit::Infra
    } else {
        Exit::Ok
    }
}

fn text(caught: &Catch, name: &str, out: &Path) -> String {
    let mut text = format!("\n{}", caught.coverage.table(5));
    for one in &caught.found {
        text.push_str(&format!(
            "\n{} {}: {} ({} steps, also seen in {} other histories)\n  {}\n",
            one.name(),
            one.standing.as_str(),
            one.signature,
            one.scenario.steps.len(),
            one.seen,
            one.paragraph(name)
        ));
    }
    for (what, list) in [
        ("infra", &caught.infra),
        ("unusable history", &caught.unusable),
    ] {
        for reason in list.iter().take(3) {
            text.push_str(&format!("\n{what}: {reason}"));
        }
        if list.len() > 3 {
            text.push_str(&format!("\n{what}: {} more", list.len() - 3));
        }
    }
    text.push_str(&format!(
        "\n{} histories, {} attempts in {:.0} s: {} counterexamples, {} not seen again, {} that the reference fails too, {} only by rules of other levels, {} infra\n{}\n",
        caught.documents,
        caught.attempts,
        caught.seconds,
        counterexamples(caught).count(),
        standing(caught, Standing::Unconfirmed),
        standing(caught, Standing::OracleSuspect),
        caught.minor,
        caught.infra.len(),
        out.display()
    ));
    text
}

fn standing(caught: &Catch, standing: Standing) -> usize {
    caught
        .found
        .iter()
        .filter(|one| one.standing == standing)
        .count()
}

fn summary(caught: &Catch, name: &str, seed: u64, profile: Profile) -> Value {
    let found: Vec<Value> = caught
        .found
        .iter()
        .map(|one| {
            json!({
                "name": one.name(),
                "standing": one.standing,
                "signature": one.signature,
                "expected": one.failure.expected,
                "actual": one.failure.actual,
                "scenario": format!("{}/{}/scenario.yaml", one.standing.directory(), one.name()),
                "seed": one.seed,
                "secondsToFind": one.seconds,
                "steps": one.scenario.steps.len(),
                "stepsFound": one.found_steps,
                "attemptsToShrink": one.shrink_attempts,
                "attempts": one.tally.attempts,
                "shown": one.tally.shown,
                "seenAgain": one.seen,
            })
        })
        .collect();
    json!({
        "formatVersion": 1,
        "candidate": name,
        "seed": seed,
        "profile": profile.as_str(),
        "documents": caught.documents,
        "attempts": caught.attempts,
        "seconds": caught.seconds,
        "interrupted": caught.interrupted,
        "minor": caught.minor,
        "infra": caught.infra,
        "unusable": caught.unusable,
        "coverage": {
            "pairs": caught.coverage.total(),
            "met": caught.coverage.met(),
            "missing": caught.coverage.missing(),
        },
        "found": found,
    })
}

fn write(out: &Path, value: &Value) -> Result<(), Failed> {
    let text = serde_json::to_string_pretty(value).map_err(Failed::infra)?;
    let path = out.join("hunt.json");
    std::fs::write(&path, text)
        .map_err(|error| Failed::infra(format!("{} cannot be written: {error}", path.display())))
}
