//! `harness selftest`.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use clap::{Args, ValueEnum};
use futures::StreamExt as _;

use super::{Exit, Failed, attempts::Attempts, interrupt::interrupted, machine, runtime};
use crate::{
    candidate::Candidate,
    plan::{self, Catalogue, Filter, Profile, Requirements},
    selftest::{
        self, Binary, Controls, Depth, Flakes, Mutant, MutantResult, Plan, ReferenceResult,
        ScenarioResult, Selftest, Trial, Unkilled,
    },
};

/// Test the tests: known-bad proxies must be caught by the scenarios that name what they break, the reference must pass.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 every mutant is killed, no false alarm; 1 not so; 2 usage; 4 no mutants' program, or interrupted; \
5 nothing ran."
)]
pub struct SelftestCommand {
    /// Only this mutant; may be repeated.
    #[arg(long, value_name = "NAME")]
    mutant: Vec<String>,
    /// Which levels to run.
    #[arg(long, value_enum, default_value = "all")]
    profile: Profile,
    /// Which cases to run, such as `area:udp and family=ipv6`.
    #[arg(long, value_name = "EXPR")]
    filter: Option<Filter>,
    #[command(flatten)]
    attempts: Attempts,
    /// Runs of the whole profile with the reference itself, for the rate of false alarms.
    #[arg(long, value_name = "N", default_value_t = 1)]
    runs: u32,
    /// Every mutant meets all cases, not only those of scenarios that name one of its requirements, each until it fails one.
    #[arg(long)]
    exhaustive: bool,
    /// List who fails each scenario; one that nothing fails has to be in scenarios/unkilled.yaml.
    #[arg(long, conflicts_with = "first_kill")]
    by_scenario: bool,
    /// A mutant's trial ends with the first attempt that notices it.
    #[arg(long)]
    first_kill: bool,
    /// The planted flakes instead: each is repeated until it is detected, classified by experiment, and its interval must cover its rate.
    #[arg(long, conflicts_with_all = ["exhaustive", "by_scenario", "first_kill", "filter", "runs"])]
    flakes: bool,
    /// The program with the mutants; HARNESS_MUTANTS by default, else beside this program, else built by cargo.
    #[arg(long, value_name = "PATH")]
    mutants: Option<PathBuf>,
    /// Directory for selftest.json and selftest.md.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What is printed at the end.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

fn usage_of(problems: &[crate::scenario::Problem]) -> Failed {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Failed::usage(lines.join("\n"))
}

impl SelftestCommand {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        if self.flakes {
            return self.planted();
        }
        let started = Instant::now();
        let requirements = Requirements::embedded()?;
        let catalogue = Catalogue::embedded(&requirements)?;
        let unkilled = Unkilled::embedded()?;
        let binary = selftest::find(self.mutants.as_deref()).map_err(Failed::infra)?;
        let mutants = self.chosen(&binary.mutants)?;
        let reference = binary.reference();
        let seed = self.attempts.seed();
        let filter = self.filter.clone().unwrap_or(Filter::All);
        let planned = plan::select(
            &catalogue,
            &requirements,
            &reference,
            &machine::missing(),
            self.profile,
            &filter,
        );
        let plan = Plan::new(planned, seed).map_err(|problems| usage_of(&problems))?;
        let id = format!(
            "{}-{:04x}",
            jiff::Zoned::now().strftime("%Y%m%d-%H%M%S"),
            rand::random::<u16>()
        );
        let out = self
            .out
            .clone()
            .unwrap_or_else(|| Path::new("harness-out").join(format!("selftest-{id}")));
        prepare(&out)?;
        self.say(&format!(
            "selftest of {} cases with {} mutants (profile {}, seed {seed})",
            plan.cases().len(),
            mutants.len(),
            self.profile.as_str(),
        ));
        let stop = Arc::new(AtomicBool::new(false));
        let mut found = Selftest {
            id,
            version: env!("CARGO_PKG_VERSION").into(),
            catalogue: catalogue.digest(),
            mutants_program: binary.digest().to_owned(),
            profile: self.profile.as_str().into(),
            seed,
            exhaustive: self.exhaustive,
            first_kill: self.first_kill,
            interrupted: false,
            mutants: Vec::new(),
            reference: None,
            scenarios: None,
            seconds: 0.0,
        };
        runtime()?.block_on(async {
            tokio::spawn(interrupted(stop.clone()));
            if self.runs > 0 {
                let result = self.reference(&plan, reference, &stop).await?;
                found.reference = Some(result);
            }
            found.mutants = self.all_mutants(&plan, &binary, mutants, &stop).await;
            if self.by_scenario {
                let scenarios = self
                    .scenarios(&plan, &found.mutants, &unkilled, &stop)
                    .await?;
                found.scenarios = Some(scenarios);
            }
            Ok::<(), Failed>(())
        })?;
        found.interrupted = stop.load(Ordering::Relaxed);
        found.seconds = started.elapsed().as_secs_f64();
        self.finish(&found, &out)
    }

    /// Looks for the planted flakes, and for nothing else.
    fn planted(&self) -> Result<Exit, Failed> {
        let binary = selftest::find(self.mutants.as_deref()).map_err(Failed::infra)?;
        let mutants = self.chosen(&binary.flakes)?;
        let flakes = Flakes::new(self.attempts.seed(), self.side_by_side())?;
        let stop = Arc::new(AtomicBool::new(false));
        let results = runtime()?.block_on(async {
            tokio::spawn(interrupted(stop.clone()));
            let mut results = Vec::new();
            for mutant in &mutants {
                self.say(&format!(
                    "{}, {} attempts: {}",
                    mutant.name,
                    Flakes::attempts(mutant),
                    mutant.summary
                ));
                let say = |line: &str| self.say(line);
                let result = flakes
                    .look_for(&binary, mutant, &stop, say)
                    .await
                    .map_err(Failed::infra)?;
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                self.say(&result.line());
                results.push(result);
            }
            Ok::<_, Failed>(results)
        })?;
        let json = serde_json::to_string_pretty(&results).map_err(Failed::infra)?;
        if let Some(out) = &self.out {
            let path = out.join("flakes.json");
            std::fs::create_dir_all(out)
                .and_then(|()| std::fs::write(&path, &json))
                .map_err(|error| {
                    Failed::infra(format!("{} cannot be written: {error}", path.display()))
                })?;
        }
        if self.format == Format::Json {
            super::print(&format!("{json}\n"));
        }
        Ok(if stop.load(Ordering::Relaxed) {
            Exit::Infra
        } else if results.iter().all(selftest::FlakeResult::is_good) {
            Exit::Ok
        } else {
            Exit::NotConformant
        })
    }

    fn chosen(&self, mutants: &[Mutant]) -> Result<Vec<Mutant>, Failed> {
        let known = |name: &String| mutants.iter().any(|mutant| mutant.name == *name);
        if let Some(unknown) = self.mutant.iter().find(|name| !known(name)) {
            let names = mutants.iter().map(|mutant| mutant.name.as_str());
            return Err(Failed::usage(format!(
                "--mutant {unknown}: there is none of this name{}; {}",
                if self.flakes {
                    " among the planted flakes"
                } else {
                    ""
                },
                advice(unknown, names)
            )));
        }
        let chosen =
            |mutant: &&Mutant| self.mutant.is_empty() || self.mutant.contains(&mutant.name);
        Ok(mutants.iter().filter(chosen).cloned().collect())
    }

    fn side_by_side(&self) -> usize {
        self.attempts.jobs() as usize
    }

    /// Progress goes where it does not disturb a program that reads the result.
    fn say(&self, line: &str) {
        match self.format {
            Format::Text => super::print(&format!("{line}\n")),
            Format::Json => eprintln!("{line}"),
        }
    }

    async fn reference(
        &self,
        plan: &Plan,
        reference: Candidate,
        stop: &AtomicBool,
    ) -> Result<ReferenceResult, Failed> {
        let jobs = plan
            .repeated(self.runs)
            .map_err(|problems| usage_of(&problems))?;
        self.say(&format!("the reference, {} attempts", jobs.len()));
        let trial = Trial::of_candidate(plan, reference, jobs, self.side_by_side(), stop).await;
        let result = ReferenceResult::new(self.runs, trial);
        self.say(&format!(
            "the reference: {} false alarms in {} attempts, {} infra",
            result.alarms.len(),
            result.attempts,
            result.infra.len()
        ));
        Ok(result)
    }

    async fn all_mutants(
        &self,
        plan: &Plan,
        binary: &Binary,
        mutants: Vec<Mutant>,
        stop: &AtomicBool,
    ) -> Vec<MutantResult> {
        let filtered = self.filter.is_some();
        let controls = &Controls::default();
        let depth = match (self.first_kill, self.exhaustive) {
            (true, _) => Depth::FirstKill,
            (false, true) => Depth::Cases,
            (false, false) => Depth::Scenarios,
        };
        let mut work: Vec<_> = mutants
            .into_iter()
            .enumerate()
            .map(|(at, mutant)| (at, plan.for_mutant(&mutant, self.exhaustive), mutant))
            // With a filter, mutants that it leaves no case for are not what is asked about.
            .filter(|(_, jobs, _)| !filtered || !jobs.is_empty())
            .collect();
        // The longest first, so that the end is not one mutant with everybody else waiting.
        work.sort_by_key(|(_, jobs, _)| std::cmp::Reverse(jobs.len()));
        let mut results: Vec<(usize, MutantResult)> = futures::stream::iter(work)
            .map(|(at, jobs, mutant)| async move {
                let started = Instant::now();
                let has_cases = !jobs.is_empty();
                let trial =
                    Trial::of_mutant(plan, binary, &mutant, jobs, depth, controls, stop).await;
                let seconds = started.elapsed().as_secs_f64();
                let result = MutantResult::new(mutant, trial, has_cases, seconds);
                if !stop.load(Ordering::Relaxed) {
                    self.say(&result.line());
                }
                (at, result)
            })
            .buffer_unordered(self.side_by_side())
            .collect()
            .await;
        results.sort_by_key(|(at, _)| *at);
        results.into_iter().map(|(_, result)| result).collect()
    }

    async fn scenarios(
        &self,
        plan: &Plan,
        mutants: &[MutantResult],
        unkilled: &Unkilled,
        stop: &AtomicBool,
    ) -> Result<Vec<ScenarioResult>, Failed> {
        let null = Candidate::load("null")?;
        let mut results: Vec<ScenarioResult> = plan
            .scenarios()
            .into_iter()
            .map(|(scenario, requirements)| ScenarioResult {
                mutants: mutants
                    .iter()
                    .filter(|result| result.kills.iter().any(|kill| kill.scenario == scenario))
                    .map(|result| result.mutant.name.clone())
                    .collect(),
                null: None,
                skip: plan.skip_of(&scenario),
                reason: unkilled.reason(&scenario).map(str::to_owned),
                scenario,
                requirements,
            })
            .collect();
        let asked: Vec<usize> = (0..results.len())
            .filter(|at| results[*at].mutants.is_empty())
            .collect();
        self.say(&format!("the null candidate, {} scenarios", asked.len()));
        let null = &null;
        let answers: Vec<(usize, Option<bool>)> = futures::stream::iter(asked)
            .map(|at| {
                let jobs = plan.of_scenario(&results[at].scenario);
                async move {
                    if jobs.is_empty() || stop.load(Ordering::Relaxed) {
                        return (at, None);
                    }
                    let jobs = jobs.into_iter().map(|(_, job)| job).collect();
                    let trial = Trial::of_candidate(plan, null.clone(), jobs, 1, stop).await;
                    (at, (trial.attempts > 0).then_some(!trial.kills.is_empty()))
                }
            })
            .buffer_unordered(self.side_by_side())
            .collect()
            .await;
        for (at, answer) in answers {
            results[at].null = answer;
        }
        Ok(results)
    }

    fn finish(&self, found: &Selftest, out: &Path) -> Result<Exit, Failed> {
        let json = serde_json::to_string_pretty(found).map_err(Failed::infra)?;
        for (name, text) in [
            ("selftest.json", &json),
            ("selftest.md", &selftest::markdown(found)),
        ] {
            let path = out.join(name);
            std::fs::write(&path, text).map_err(|error| {
                Failed::infra(format!("{} cannot be written: {error}", path.display()))
            })?;
        }
        match self.format {
            Format::Text => {
                super::print(&format!("{}  {}\n", selftest::text(found), out.display()))
            }
            Format::Json => super::print(&format!("{json}\n")),
        }
        Ok(if found.interrupted {
            Exit::Infra
        } else if found.attempts() == 0 {
            Exit::NothingRan
        } else if found.is_good() {
            Exit::Ok
        } else {
            Exit::NotConformant
        })
    }
}

/// What to try in place of a name that does not exist: those that are near, by letters or by a part, or where all are listed.
fn advice<'a>(unknown: &str, names: impl Iterator<Item = &'a str>) -> String {
    const ALL: &str = "docs/mutants.md lists all of them";
    let mut near: Vec<(f64, &str)> = names
        .map(|name| {
            let part = !unknown.is_empty() && name.contains(unknown);
            let near = strsim::jaro_winkler(unknown, name);
            (if part { 1.0 } else { near }, name)
        })
        .filter(|(near, _)| *near > 0.8)
        .collect();
    near.sort_by(|(a, one), (b, other)| b.total_cmp(a).then(one.cmp(other)));
    near.truncate(4);
    if near.is_empty() {
        return ALL.into();
    }
    let near: Vec<&str> = near.into_iter().map(|(_, name)| name).collect();
    format!("is it {}? {ALL}", near.join(" or "))
}

fn prepare(out: &Path) -> Result<(), Failed> {
    if out.join("selftest.json").exists() {
        return Err(Failed::usage(format!(
            "--out {}: it holds an earlier selftest; name another directory or remove it",
            out.display()
        )));
    }
    std::fs::create_dir_all(out).map_err(|error| {
        Failed::usage(format!(
            "--out {}: it cannot be created: {error}",
            out.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_name_is_told_its_neighbours_and_not_all() {
        let names = [
            "no-hairpin",
            "no-reject",
            "stale-kept-at-node-ports",
            "stale-kept-forever",
        ];
        let advice = |unknown| advice(unknown, names.into_iter());
        assert_eq!(
            advice("no-hairpins"),
            "is it no-hairpin? docs/mutants.md lists all of them"
        );
        assert_eq!(
            advice("stale-kept"),
            "is it stale-kept-at-node-ports or stale-kept-forever? docs/mutants.md lists all of them"
        );
        assert_eq!(advice("zzz"), "docs/mutants.md lists all of them");
        assert_eq!(advice(""), "docs/mutants.md lists all of them");
    }
}
