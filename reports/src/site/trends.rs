//! The cases of a candidate over its runs: how often each failed, with the interval of every run, and since when.

use super::pairs::rate_words;
use crate::history::{CandidateTrend, CaseTrend, Point, change_words, minute, sighting};
use crate::html::Mark;
use crate::html::text::{Text, plural};
use crate::model::{CaseVerdict, Rate};

/// Cases that are shown with their trend.
const MAX_CASES: usize = 300;

/// Runs in a picture and in the table below it, the newest ones.
const MAX_POINTS: usize = 60;

/// Signatures of a case.
const MAX_SIGNATURES: usize = 8;

/// All cases of a candidate.
#[derive(Debug)]
pub(crate) struct Trends {
    /// Those that failed, the worst first.
    pub troubled: Vec<Trend>,
    pub more: usize,
    /// Those that never failed: id, and what that allows.
    pub clean: Vec<(Text, String)>,
}

/// A case that has failed.
#[derive(Debug)]
pub(crate) struct Trend {
    pub id: Text,
    pub title: Text,
    pub state: Mark,
    /// What the state means.
    pub says: &'static str,
    /// The rate since it last changed.
    pub rate: Option<String>,
    pub class: Option<Text>,
    pub facts: Vec<Text>,
    pub versions: Vec<(Text, u64, String)>,
    pub signatures: Vec<(u64, Text, Text)>,
    pub picture: Option<Picture>,
    pub rows: Vec<Row>,
    pub left_out: usize,
}

/// What one run says about the case.
#[derive(Debug)]
pub(crate) struct Row {
    pub when: String,
    pub version: Text,
    pub verdict: Mark,
    pub rate: String,
    pub infra: u64,
}

/// A column per run: the interval as a line, the rate as a dot. As many units wide as there are runs, 100 high.
#[derive(Debug)]
pub(crate) struct Picture {
    pub width: usize,
    pub marks: Vec<Marks>,
    pub first: String,
    pub last: String,
    /// What the top stands for.
    pub top: &'static str,
    /// What a screen reader says.
    pub words: String,
}

/// The lines and dots of one verdict.
#[derive(Debug)]
pub(crate) struct Marks {
    pub verdict: Mark,
    pub lines: String,
    pub dots: String,
}

impl Trends {
    /// The trends of a candidate.
    pub fn of(trend: &CandidateTrend) -> Self {
        let failed = |case: &&CaseTrend| case.first_failure.is_some();
        let mut troubled: Vec<&CaseTrend> = trend.cases.iter().filter(failed).collect();
        // What fails now, then what is flaky now by its rate, then what has failed before.
        let rank = |case: &CaseTrend| match case.current {
            Some(rate) if rate.failed == rate.of => 0,
            Some(rate) if rate.failed > 0 => 1,
            _ => 2,
        };
        let share = |case: &CaseTrend| case.current.map_or(0.0, |rate| rate.rate);
        troubled.sort_by(|a, b| {
            let order = rank(a).cmp(&rank(b));
            order.then(share(b).total_cmp(&share(a)))
        });
        let more = troubled.len().saturating_sub(MAX_CASES);
        let shown = troubled.into_iter().take(MAX_CASES);
        let clean = trend.cases.iter().filter(|case| !failed(case));
        let clean = clean.filter_map(|case| Some((Text::new(&case.case), case.current?.words())));
        Self {
            troubled: shown.map(|case| one(trend, case)).collect(),
            more,
            clean: clean.collect(),
        }
    }
}

fn one(trend: &CandidateTrend, case: &CaseTrend) -> Trend {
    let (state, says) = match case.current {
        Some(rate) if rate.failed == rate.of => (CaseVerdict::Fail, "fails always now"),
        Some(rate) if rate.failed > 0 => (CaseVerdict::Flaky, "flaky now"),
        Some(_) => (CaseVerdict::Pass, "passes now, and has failed before"),
        None => (CaseVerdict::NotRun, "not tried in the runs that are kept"),
    };
    let mut facts = Vec::new();
    for (what, seen) in [
        ("first failure", &case.first_failure),
        ("last failure", &case.last_failure),
    ] {
        if let Some(seen) = seen {
            facts.push(Text::new(&format!("{what} {}", sighting(seen))));
        }
    }
    match case.changes.as_slice() {
        [] => facts.push(Text::new("no change of its rate is certain")),
        changes => facts.extend(
            changes
                .iter()
                .map(|change| Text::new(&change_words(change))),
        ),
    }
    let class = case
        .points
        .iter()
        .rev()
        .find_map(|point| point.class.as_deref());
    let versions = case.versions.iter().filter_map(|version| {
        let rate = rate_words(version.rate?);
        Some((Text::new(&version.version), version.runs, rate))
    });
    let signatures = case.signatures.iter().take(MAX_SIGNATURES).map(|found| {
        let what = Text::short(&found.signature.to_string(), 300);
        (found.attempts, what, Text::short(&found.example, 300))
    });
    let told: Vec<&Point> = case
        .points
        .iter()
        .filter(|point| point.passed + point.failed > 0)
        .collect();
    let left_out = told.len().saturating_sub(MAX_POINTS);
    let told = &told[left_out..];
    Trend {
        id: Text::new(&case.case),
        title: Text::short(&case.title, 300),
        state: state.into(),
        says,
        rate: case.current.map(rate_words),
        class: class.map(Text::new),
        facts,
        versions: versions.collect(),
        signatures: signatures.collect(),
        picture: picture(trend, told),
        rows: told.iter().rev().map(|point| row(trend, point)).collect(),
        left_out,
    }
}

fn row(trend: &CandidateTrend, point: &Point) -> Row {
    let run = &trend.runs[point.run];
    Row {
        when: minute(&run.started),
        version: Text::new(&run.version),
        verdict: verdict(point).into(),
        rate: rate(point).map_or_else(String::new, rate_words),
        infra: point.infra,
    }
}

fn rate(point: &Point) -> Option<Rate> {
    Rate::new(point.failed, point.passed + point.failed)
}

/// By the counts: a history may know words for verdicts that this suite does not.
fn verdict(point: &Point) -> CaseVerdict {
    match (point.failed, point.passed) {
        (0, _) => CaseVerdict::Pass,
        (_, 0) => CaseVerdict::Fail,
        _ => CaseVerdict::Flaky,
    }
}

/// What the top of a picture may stand for, so that small rates are seen.
const TOPS: [(f64, &str); 6] = [
    (0.02, "2 %"),
    (0.05, "5 %"),
    (0.1, "10 %"),
    (0.2, "20 %"),
    (0.5, "50 %"),
    (1.0, "100 %"),
];

fn picture(trend: &CandidateTrend, told: &[&Point]) -> Option<Picture> {
    let (first, last) = (told.first()?, told.last()?);
    let rates: Vec<Rate> = told.iter().filter_map(|point| rate(point)).collect();
    // What matters is seen in full; the interval of a run with few attempts may reach out of the picture.
    let highest = rates.iter().filter(|rate| rate.failed > 0);
    let highest = highest.map(|rate| rate.high).fold(0.0, f64::max);
    let (top, label) = TOPS
        .into_iter()
        .find(|(top, _)| highest <= *top)
        .unwrap_or(TOPS[5]);
    let height = |share: f64| 100.0 - (share / top).min(1.0) * 100.0;
    let order = [CaseVerdict::Pass, CaseVerdict::Flaky, CaseVerdict::Fail];
    let marks = order.into_iter().filter_map(|wanted| {
        let (mut lines, mut dots) = (String::new(), String::new());
        let here = told.iter().zip(&rates).enumerate();
        for (x, (_, rate)) in here.filter(|(_, (point, _))| verdict(point) == wanted) {
            lines.push_str(&format!(
                "M{x}.5 {:.1}V{:.1}",
                height(rate.low),
                height(rate.high)
            ));
            dots.push_str(&format!("M{x}.5 {:.1}h0", height(rate.rate)));
        }
        (!dots.is_empty()).then(|| Marks {
            verdict: wanted.into(),
            lines,
            dots,
        })
    });
    let failing = rates.iter().filter(|rate| rate.failed > 0).count();
    let when = |point: &Point| minute(&trend.runs[point.run].started);
    Some(Picture {
        width: told.len(),
        marks: marks.collect(),
        first: when(first),
        last: when(last),
        top: label,
        words: format!(
            "Failure rates of {}, {failing} of them with failures; the table below has them",
            plural(told.len() as u64, "run")
        ),
    })
}
