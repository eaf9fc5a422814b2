//! `harness gate`: whether a run lets a change in.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::SystemTime,
};

use clap::Args;
use reports::{
    Report,
    gate::{Gate, Rules},
    history::History,
    waiver::{self, Known, Waiver},
};

use super::{Exit, Failed, format::Format, print, required, results, waivers};
use crate::plan::{Catalogue, Profile, Requirements};

/// Say whether a run lets a change in, with an exit code for CI.
///
/// Nothing may be worse than in the baseline; without one, nothing may fail. Enough cases have to have run, few may be skipped, what is
/// required has to pass, the run has to be whole, and known-bad proxies have to have been noticed in it. Waived failures let it in and
/// stay visible; a waiver that is expired, unknown or not needed closes the gate.
///
/// Exit codes: 0 open; 1 closed; 2 usage or bad input; 3 closed only because of flakes; 4 the run is no basis for an answer;
/// 5 too little was run.
#[derive(Debug, Args)]
pub struct GateCommand {
    /// Result directory of the run, or its report.json; by default the newest below harness-out.
    #[arg(value_name = "DIR", conflicts_with = "promote")]
    run: Option<PathBuf>,
    /// Result directory of the run that nothing may be worse than, or its report.json.
    #[arg(long, value_name = "FILE", conflicts_with = "promote")]
    baseline: Option<PathBuf>,
    /// Cases that have to pass, as YAML (`cases: [ID...]`); may be repeated.
    #[arg(long, value_name = "FILE")]
    require: Vec<PathBuf>,
    /// What is known to fail, as YAML; by default the waivers that the run was made with.
    #[arg(long, value_name = "FILE", conflicts_with = "promote")]
    waivers: Option<PathBuf>,
    /// So many cases have to pass or fail at least; by default nine tenths of the profile's. A run with --filter needs it.
    #[arg(long, value_name = "N", conflicts_with = "promote")]
    min_cases: Option<u64>,
    /// So many cases may be skipped at most; by default a tenth of those planned.
    #[arg(long, value_name = "N", conflicts_with = "promote")]
    skip_budget: Option<u64>,
    /// So many cases may be flaky that were not so in the baseline.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        conflicts_with = "promote"
    )]
    flake_budget: u64,
    /// Add the cases with enough clean runs in the history to the file of --require, and answer nothing else.
    #[arg(long, requires_all = ["history", "after", "require"])]
    promote: bool,
    /// The history, as `harness history` writes it.
    #[arg(long, value_name = "FILE", requires = "promote")]
    history: Option<PathBuf>,
    /// So many runs in a row have to be clean.
    #[arg(long, value_name = "N", requires = "promote", value_parser = clap::value_parser!(u64).range(1..))]
    after: Option<u64>,
    /// Whose runs; needed where the history has several candidates.
    #[arg(long, value_name = "NAME", requires = "promote")]
    candidate: Option<String>,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl GateCommand {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        if self.promote {
            return self.promotion();
        }
        let dir = match &self.run {
            Some(dir) => dir.clone(),
            None => newest(Path::new("harness-out"))?,
        };
        let mut report = results::read(&dir)?;
        let baseline = self.baseline.as_deref().map(results::read).transpose()?;
        if let Some(baseline) = &baseline
            && baseline.run_id == report.run_id
        {
            return Err(Failed::usage(format!(
                "--baseline is the run itself ({}): against itself every run is good enough",
                report.run_id
            )));
        }
        let waivers: Vec<Waiver> = match &self.waivers {
            Some(file) => {
                let written = waivers::parse(file)?.into_iter();
                written.map(|(waiver, _)| waiver).collect()
            }
            None => report.waivers.iter().map(|w| w.waiver.clone()).collect(),
        };
        let known = known(&report)?;
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
        report.waivers = waiver::apply(&waivers, &mut report.cases, today.date(), known.as_ref());
        let min_cases = match self.min_cases {
            Some(cases) => cases,
            None => min_cases(&report.options.profile)?,
        };
        let gate = Gate::of(
            &report,
            &Rules {
                baseline: baseline.as_ref(),
                required: required::read(&self.require)?,
                min_cases,
                skip_budget: self.skip_budget.unwrap_or(report.totals.cases.total / 10),
                flake_budget: self.flake_budget,
            },
        );
        print(&self.format.of(&gate, || gate.text(), || gate.markdown())?);
        Ok(match gate.exit_code {
            0 => Exit::Ok,
            1 => Exit::NotConformant,
            3 => Exit::Flaky,
            5 => Exit::NothingRan,
            _ => Exit::Infra,
        })
    }

    fn promotion(&self) -> Result<Exit, Failed> {
        let [file] = self.require.as_slice() else {
            return Err(Failed::usage(
                "--promote adds to one file: give --require once",
            ));
        };
        // clap has seen to it that they are there.
        let (Some(history), Some(after)) = (&self.history, self.after) else {
            return Err(Failed::usage("--promote needs --history and --after"));
        };
        let mut history = History::open(history)?;
        let names = history.candidates()?;
        let candidate = match (&self.candidate, names.as_slice()) {
            (Some(name), _) if names.contains(name) => name.clone(),
            (None, [only]) => only.clone(),
            (given, _) => {
                let given = given.as_ref().map(|name| format!(" {name}"));
                return Err(Failed::usage(format!(
                    "--candidate{}: the history has {}",
                    given.unwrap_or_else(|| " is needed".to_owned()),
                    names.join(", ")
                )));
            }
        };
        let trend = history.candidate(&candidate)?;
        let requirements = Requirements::embedded()?;
        let known = waivers::known(&Catalogue::embedded(&requirements)?, &requirements);
        let clean = |case: &&String| {
            let clean = trend.clean_runs(case);
            clean.is_some_and(|clean| clean.runs >= after)
        };
        let cases: BTreeSet<String> = trend
            .cases
            .iter()
            .map(|case| &case.case)
            .filter(|case| known.cases.contains(*case))
            .filter(clean)
            .cloned()
            .collect();
        let (all, new) = (cases.len(), required::add(file, cases)?);
        match self.format {
            Format::Json => print(&format!(
                "{}\n",
                serde_json::to_string_pretty(&new).map_err(Failed::infra)?
            )),
            Format::Text | Format::Markdown => {
                for case in &new {
                    print(&format!("{case}\n"));
                }
                print(&format!(
                    "{} cases added to {}: {all} have been clean in the last {after} runs of {candidate} or more\n",
                    new.len(),
                    file.display()
                ));
            }
        }
        Ok(Exit::Ok)
    }
}

/// What waivers can name, as far as that can be known: the catalogue of the run if this program has it, else the plan if that is everything.
fn known(report: &Report) -> Result<Option<Known>, Failed> {
    let requirements = Requirements::embedded()?;
    let catalogue = Catalogue::embedded(&requirements)?;
    if catalogue.digest() == report.suite.catalogue_digest {
        return Ok(Some(waivers::known(&catalogue, &requirements)));
    }
    let everything = report.options.profile == "all" && report.options.filter.is_none();
    Ok(everything.then(|| Known {
        cases: report.cases.iter().map(|case| case.id.clone()).collect(),
        requirements: report.requirements.iter().map(|r| r.id.clone()).collect(),
    }))
}

/// What a run of a whole profile executes at least: nine tenths of what the profile has in this suite.
fn min_cases(profile: &str) -> Result<u64, Failed> {
    let requirements = Requirements::embedded()?;
    let catalogue = Catalogue::embedded(&requirements)?;
    let profile = Profile::named(profile).ok_or_else(|| {
        Failed::usage(format!(
            "the run is of profile {profile:?}, which this suite does not have: say --min-cases"
        ))
    })?;
    let cases = catalogue.documents.iter();
    let cases = cases.filter(|document| profile.includes(document.header.level));
    let cases: u64 = cases.map(|document| document.cases.len() as u64).sum();
    Ok(cases * 9 / 10)
}

/// The result directory that was written last.
fn newest(below: &Path) -> Result<PathBuf, Failed> {
    let written = |dir: &Path| -> Option<SystemTime> {
        let files = [reports::log::FILE_NAME, "report.json"];
        let files = files
            .iter()
            .filter_map(|name| dir.join(name).metadata().ok());
        files.filter_map(|file| file.modified().ok()).max()
    };
    let dirs = std::fs::read_dir(below).into_iter().flatten().flatten();
    let dated = dirs.filter_map(|dir| Some((written(&dir.path())?, dir.path())));
    let newest = dated.max().map(|(_, dir)| dir);
    newest.ok_or_else(|| {
        Failed::usage(format!(
            "there is no run below {}: name its result directory",
            below.display()
        ))
    })
}
