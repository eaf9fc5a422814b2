//! A static site over the reports of many runs: candidates against requirements, the cases of each candidate over time, two candidates side
//! by side.
//!
//! ```text
//!  result directories, submissions, report.json ──find──> places ──read──> reports
//!                                                                   │  └──> history in memory ──> trends
//!                                                                   └──> what is kept of each run ──> columns, pairs
//!  SITE/index.html                 candidates x requirements
//!  SITE/compare.html               any two candidates
//!  SITE/candidates/NAME.html       runs and failures over time
//!  SITE/runs/RUN/report.html ...   the reports of each run
//!  SITE/site.json                  the names of all of these
//! ```
//!
//! Nothing of what is published is copied from what was submitted: every page, every picture and every `report.json` is rendered from the
//! log (or the `report.json`, where there is no log), so that nobody's own markup or script is on the site. The same input makes the same bytes.
//!
//! One report at a time is in memory, besides what is kept of the runs with a column.

mod data;
mod find;
mod matrix;
mod out;
mod pages;
mod pairs;
mod run;
mod signed;
mod trends;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use find::{Found, Place, Skipped, find};
pub use out::MARKER;
pub use run::Signed;

use self::matrix::Rules;
use self::out::Out;
use self::pages::Site;
use self::pairs::Pair;
use self::run::{Run, slug};
use crate::evidence::{self, Evidence};
use crate::history::{CandidateTrend, History, HistoryError, Imported};
use crate::model::Report;
use crate::read::{REPORT_NAME, ReadError, read};
use crate::sign::files::FilesError;
use crate::sign::key::PublicKey;
use crate::{badge, html, json};

/// What can go wrong with a site.
#[derive(Debug, Error)]
pub enum SiteError {
    /// What was named is not there, or cannot be read.
    #[error("{}: it cannot be read: {source}", path.display())]
    Input {
        /// What was named.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// There is a report, and it is broken.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The history cannot be used, or a run does not fit into it.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A signed file cannot be read.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The output directory holds something else.
    #[error(
        "{}: it is neither empty nor an earlier site (it has no {MARKER} of one); name another directory", dir.display()
    )]
    Taken {
        /// The directory.
        dir: PathBuf,
    },
    /// The site cannot be written.
    #[error("{}: it cannot be written: {source}", path.display())]
    Out {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl SiteError {
    /// Whether it is about what was asked for, rather than about the machine.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Input { .. } | Self::Read(_) | Self::Taken { .. } => true,
            Self::History(error) => !error.is_trouble(),
            Self::Files(_) | Self::Out { .. } => false,
        }
    }
}

/// What a site is made of.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// Its heading.
    pub title: String,
    /// A history whose runs are in the trends as well.
    pub history: Option<&'a Path>,
    /// Keys of people whose results are believed.
    pub keys: &'a [PublicKey],
}

/// A site that was written.
#[derive(Debug)]
pub struct Written {
    /// Runs with reports.
    pub runs: usize,
    /// Candidates with a page.
    pub candidates: usize,
    /// Versions with a column.
    pub columns: usize,
    /// Files in the directory.
    pub files: usize,
    /// Runs that say nothing that another does not.
    pub skipped: Vec<Skipped>,
}

/// Writes a site over some runs; nothing if there is none among them. All reports are read before the first file is written.
///
/// # Errors
/// [`SiteError`]. If it is about the input, nothing was written.
pub fn write(places: &[Place], options: &Options, dir: &Path) -> Result<Written, SiteError> {
    let mut out = Out::new(dir)?;
    let Known {
        runs,
        trends,
        skipped,
    } = known(places, options)?;
    let versions: HashMap<&str, &str> = trends
        .iter()
        .flat_map(|trend| &trend.runs)
        .map(|row| (row.run_id.as_str(), row.version.as_str()))
        .collect();
    let names = runs.iter().flat_map(|(_, id)| {
        let slug = slug(id);
        RUN_FILES.map(|name| format!("runs/{slug}/{name}"))
    });
    let names: Vec<String> = names.chain(Site::page_names(&trends)).collect();
    if !runs.is_empty() {
        out.begin(names)?;
    }
    let mut kept = Vec::new();
    for (place, id) in &runs {
        let report = read(&place.path)?;
        let signed = match place.dir() {
            Some(dir) => signed::look(dir, &report, options.keys)?,
            None => Signed::No,
        };
        let version = versions.get(id.as_str()).copied().unwrap_or_default();
        let run = Run::of(&report, version, signed);
        publish(&mut out, place, &run, &report)?;
        kept.push(run);
    }
    let (columns, _) = matrix::columns(&kept);
    let mut reports = Vec::new();
    for column in &columns {
        let mut report = read(&runs[column.run].0.path)?;
        slim(&mut report);
        reports.push(report);
    }
    let site = assemble(options.title.clone(), kept, &reports, trends);
    if !runs.is_empty() {
        for (name, page) in site.pages() {
            out.put(&name, page.as_bytes())?;
        }
    }
    Ok(Written {
        runs: runs.len(),
        candidates: site.trends.len(),
        columns: site.columns.len(),
        files: if runs.is_empty() { 0 } else { out.finish()? },
        skipped,
    })
}

/// The files of each run.
const RUN_FILES: [&str; 3] = ["report.html", REPORT_NAME, "badge.svg"];

fn publish(out: &mut Out, place: &Place, run: &Run, report: &Report) -> Result<(), SiteError> {
    let evidence = match place.dir() {
        Some(dir) => evidence::collect(dir, report),
        None => Evidence::new(),
    };
    let texts = [
        html::render(report, &evidence),
        json::render(report),
        badge::render(report),
    ];
    for (name, text) in RUN_FILES.into_iter().zip(texts) {
        out.put(&format!("{}/{name}", run.place()), text.as_bytes())?;
    }
    Ok(())
}

/// The runs that are on the site, and the trends.
struct Known {
    /// By their start.
    runs: Vec<(Place, String)>,
    trends: Vec<CandidateTrend>,
    skipped: Vec<Skipped>,
}

/// Reads every report once. No attempt is in the trends twice, and of two places with the same run the one that says more counts.
fn known(places: &[Place], options: &Options) -> Result<Known, SiteError> {
    let mut history = History::in_memory(options.history)?;
    let mut runs: BTreeMap<String, (String, Place)> = BTreeMap::new();
    let mut skipped = Vec::new();
    let mut skip = |place: &Place, why: String| {
        let path = place.path.clone();
        skipped.push(Skipped { path, why });
    };
    for place in places {
        let report = read(&place.path)?;
        let id = report.run_id.clone();
        let entry = (report.started.clone(), place.clone());
        match history.import(&report)? {
            Imported::Added => {}
            Imported::Replaced(others) => {
                for other in others {
                    if let Some((_, less)) = runs.remove(&other) {
                        skip(&less, format!("all of it is in {}", place.path.display()));
                    }
                }
            }
            // The history has it, and its reports are here.
            Imported::Known(by) if by == id && !runs.contains_key(&id) => {}
            Imported::Known(by) => {
                let other = runs
                    .get(&by)
                    .map(|(_, place)| place.path.display().to_string());
                let other = other.unwrap_or_else(|| format!("run {by} of the history"));
                skip(place, format!("all of it is in {other}"));
                continue;
            }
        }
        runs.insert(id, entry);
    }
    let mut runs: Vec<(String, String, Place)> = runs
        .into_iter()
        .map(|(id, (started, place))| (started, id, place))
        .collect();
    runs.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    Ok(Known {
        runs: runs.into_iter().map(|(_, id, place)| (place, id)).collect(),
        trends: history.export()?.candidates,
        skipped,
    })
}

/// Everything that a site shows, from what is kept of the runs and the reports of the columns, in their order.
fn assemble(
    title: String,
    runs: Vec<Run>,
    reports: &[Report],
    trends: Vec<CandidateTrend>,
) -> Site {
    let (columns, left_out) = matrix::columns(&runs);
    let mut rules = Rules::default();
    for report in reports {
        rules.add(report);
    }
    let areas = rules.areas().to_vec();
    let pairs = pairs::choose(&columns, &runs)
        .into_iter()
        .map(|(a, b)| Pair::of((a, b), &columns, &runs, &areas, [&reports[a], &reports[b]]));
    Site {
        title,
        pairs: pairs.collect(),
        runs,
        columns,
        left_out,
        areas,
        trends,
    }
}

/// Forgets what no comparison looks at.
fn slim(report: &mut Report) {
    for case in &mut report.cases {
        case.measurements = Vec::new();
        case.experiments = Vec::new();
        for attempt in &mut case.attempts {
            attempt.failures.truncate(1);
            attempt.warnings = Vec::new();
            (attempt.complaint, attempt.evidence) = (None, None);
            (attempt.stress, attempt.shape, attempt.started) = (None, None, None);
        }
    }
    report.failure_groups = Vec::new();
    report.causes = Vec::new();
}
