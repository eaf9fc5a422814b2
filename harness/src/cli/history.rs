//! `harness history`: the results of many runs over time.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use reports::history::{
    CandidateTrend, CaseTrend, CleanRuns, Flake, History, HistoryError, Imported, candidate_text,
    case_text, clean_runs_text, flakes_text, runs_text,
};

use super::{Exit, Failed, print, results};

/// The results of many runs over time: rates, flakes, change points.
///
/// Exit codes: 0 done; 2 usage or bad input; 4 trouble with the file.
#[derive(Debug, Args)]
pub struct HistoryCommand {
    #[command(subcommand)]
    command: Command,
    /// The history, an SQLite file.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "harness-history.sqlite"
    )]
    db: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Add the runs of result directories, each once.
    ///
    /// A run that is there already is left as it is, unless it has more to say by now: it was resumed, or its shards were
    /// merged. Then it takes the place of what was there.
    Import {
        /// Result directories, or files `report.json`.
        #[arg(required = true, value_name = "DIR")]
        dirs: Vec<PathBuf>,
    },
    /// Show the runs, a case or a candidate.
    Show {
        /// Id of a case: its rate in each version, first and last failure, changes, signatures.
        case: Option<String>,
        /// Only this candidate.
        #[arg(long, value_name = "NAME")]
        candidate: Option<String>,
        /// Output format.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Show the cases that are flaky now.
    ///
    /// Flaky is what has passed and failed since its rate last changed, and failed lately.
    Flakes {
        /// Only this candidate.
        #[arg(long, value_name = "NAME")]
        candidate: Option<String>,
        /// How long before the candidate's newest run a failure still counts as lately.
        #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = duration)]
        within: jiff::SignedDuration,
        /// Output format.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Say in how many runs in a row, up to now, a case was clean.
    CleanRuns {
        /// Id of the case.
        case: String,
        /// Only this candidate.
        #[arg(long, value_name = "NAME")]
        candidate: Option<String>,
        /// Output format.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Forget old runs. When failures were first seen is kept.
    Prune {
        /// How far back runs are kept, such as `180d`.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        keep: jiff::SignedDuration,
    },
    /// Print the whole history as JSON.
    Export,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Text,
    /// All of it, for programs.
    Json,
}

impl From<HistoryError> for Failed {
    fn from(error: HistoryError) -> Self {
        if error.is_trouble() {
            Self::infra(error)
        } else {
            Self::usage(error)
        }
    }
}

impl HistoryCommand {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        match self.command {
            Command::Import { dirs } => return import(&self.db, &dirs),
            Command::Show {
                case,
                candidate,
                format,
            } => {
                let trends = trends(&self.db, candidate.as_deref())?;
                match case {
                    Some(case) => show_case(&trends, &case, format)?,
                    None if format == Format::Json => json(&trends)?,
                    None if candidate.is_some() => {
                        print(&trends.iter().map(candidate_text).collect::<String>());
                    }
                    None => print(&runs_text(&trends)),
                }
            }
            Command::Flakes {
                candidate,
                within,
                format,
            } => flakes(&trends(&self.db, candidate.as_deref())?, within, format)?,
            Command::CleanRuns {
                case,
                candidate,
                format,
            } => {
                let trends = trends(&self.db, candidate.as_deref())?;
                let clean: Vec<CleanRuns> =
                    trends.iter().filter_map(|t| t.clean_runs(&case)).collect();
                known(&self.db, &case, !clean.is_empty())?;
                match format {
                    Format::Json => json(&clean)?,
                    Format::Text => print(&clean_runs_text(&clean)),
                }
            }
            Command::Prune { keep } => {
                let before = jiff::Timestamp::now().checked_sub(keep).map_err(|error| {
                    Failed::usage(format!("--keep: further back than time goes: {error}"))
                })?;
                let pruned = History::open(&self.db)?.prune(before)?;
                print(&format!(
                    "{} runs forgotten, {} left\n",
                    pruned.runs, pruned.left
                ));
            }
            Command::Export => json(&History::open(&self.db)?.export()?)?,
        }
        Ok(Exit::Ok)
    }
}

/// A duration such as `30d` or `12h`. A day has 24 hours here.
fn duration(text: &str) -> Result<jiff::SignedDuration, String> {
    let wrong = |error: jiff::Error| format!("such as 180d, 12h or '2 weeks': {error}");
    let span: jiff::Span = text.parse().map_err(wrong)?;
    let duration = span
        .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        .map_err(wrong)?;
    if duration.is_negative() {
        return Err("a duration, not one of the past".into());
    }
    Ok(duration)
}

/// Adds what can be added; the first directory that cannot is the error.
fn import(db: &Path, dirs: &[PathBuf]) -> Result<Exit, Failed> {
    let mut reports = Vec::new();
    // What is bad input is said before anything is changed.
    for dir in dirs {
        reports.push((dir, results::read(dir)?));
    }
    let mut history = History::create_or_open(db)?;
    for (dir, report) in reports {
        let run = &report.run_id;
        let dir = dir.display();
        print(&match history.import(&report)? {
            Imported::Added => format!("{dir}: {run} added\n"),
            Imported::Replaced(runs) => {
                format!("{dir}: {run} takes the place of {}\n", runs.join(", "))
            }
            Imported::Known(by) if by == *run => format!("{dir}: {run} is there already\n"),
            Imported::Known(by) => format!("{dir}: {run} is there already, as a part of {by}\n"),
        });
    }
    Ok(Exit::Ok)
}

/// The histories of all candidates, or of one.
fn trends(db: &Path, candidate: Option<&str>) -> Result<Vec<CandidateTrend>, Failed> {
    let mut history = History::open(db)?;
    let names = history.candidates()?;
    if let Some(name) = candidate
        && !names.iter().any(|known| known == name)
    {
        return Err(Failed::usage(format!(
            "--candidate {name}: not in {}; it has {}",
            db.display(),
            names.join(", ")
        )));
    }
    let wanted = names
        .iter()
        .filter(|name| candidate.is_none_or(|c| c == name.as_str()));
    let mut trends = Vec::new();
    for name in wanted {
        trends.push(history.candidate(name)?);
    }
    Ok(trends)
}

fn known(db: &Path, case: &str, known: bool) -> Result<(), Failed> {
    if known {
        return Ok(());
    }
    Err(Failed::usage(format!(
        "case {case}: no run in {} has it",
        db.display()
    )))
}

fn show_case(trends: &[CandidateTrend], case: &str, format: Format) -> Result<(), Failed> {
    let found: Vec<(&CandidateTrend, &CaseTrend)> = trends
        .iter()
        .flat_map(|trend| trend.cases.iter().map(move |c| (trend, c)))
        .filter(|(_, c)| c.case == case)
        .collect();
    if found.is_empty() {
        return Err(Failed::usage(format!(
            "case {case}: the history has no run with it; `harness list` lists the cases of the catalogue"
        )));
    }
    if format == Format::Json {
        let of_one = |(trend, case): &(&CandidateTrend, &CaseTrend)| CandidateTrend {
            candidate: trend.candidate.clone(),
            runs: trend.runs.clone(),
            cases: vec![(*case).clone()],
        };
        return json(&found.iter().map(of_one).collect::<Vec<_>>());
    }
    let texts: Vec<String> = found.iter().map(|(trend, c)| case_text(trend, c)).collect();
    print(&texts.join("\n"));
    Ok(())
}

fn flakes(
    trends: &[CandidateTrend],
    within: jiff::SignedDuration,
    format: Format,
) -> Result<(), Failed> {
    let mut all: Vec<Flake> = Vec::new();
    let mut earliest: Option<String> = None;
    for trend in trends {
        let Some(newest) = trend.runs.last() else {
            continue;
        };
        let newest: jiff::Timestamp = newest.started.parse().map_err(Failed::infra)?;
        let since = newest
            .checked_sub(within)
            .map_err(|error| Failed::usage(format!("--within: {error}")))?;
        let since = format!("{since:.6}");
        all.extend(trend.flakes(&since));
        earliest = Some(earliest.map_or(since.clone(), |e: String| e.min(since)));
    }
    match format {
        Format::Json => json(&all),
        Format::Text => {
            print(&flakes_text(&all, &earliest.unwrap_or_default()));
            Ok(())
        }
    }
}

fn json(value: &impl serde::Serialize) -> Result<(), Failed> {
    let text = serde_json::to_string_pretty(value).map_err(Failed::infra)?;
    print(&format!("{text}\n"));
    Ok(())
}
