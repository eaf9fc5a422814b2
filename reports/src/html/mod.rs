//! `report.html`: the report to look at, in one file that needs nothing else and no network.
//!
//! ```text
//!  head       conclusion, badge, what the report does not say (partial, unsigned), counts
//!  areas      a card per requirement area, with every requirement in it
//!  causes     failed attempts by what went wrong
//!  cases      one entry per case, worst first: timeline of the attempts, the failure with its evidence, how to see it again
//!  measured   distributions
//!  the rest   characteristics, warnings, requirements in words, about the run
//! ```
//!
//! Markup comes from the templates in `templates/`, which escape every value. Texts from candidates and scenarios go through [`Text`] on the
//! way there, so that nothing in them is invisible. The page's own script filters and follows links (`#case=ID`); without it everything
//! can be read all the same. A content security policy, with the digests of script and style, lets a browser load and run nothing else.
//!
//! The size is bounded in every direction that a run can grow in: see the `MAX_` constants of the modules.

pub(crate) mod areas;
mod cases;
mod drawing;
mod grid;
pub(crate) mod head;
mod plot;
pub(crate) mod text;
mod timeline;

use askama::Template;
use base64::Engine as _;
use sha2::{Digest as _, Sha256};

use self::areas::{Area, AreaSpread, Requirement};
use self::cases::Case;
use self::head::Head;
use self::plot::Plot;
use self::text::{Text, number};
use crate::badge::Badge;
use crate::evidence::Evidence;
use crate::model::{CaseVerdict, Measurement, Report};

pub(crate) const STYLE: &str = include_str!("../../templates/style.css");
const SCRIPT: &str = include_str!("../../templates/page.js");

/// Causes that are listed.
const MAX_CAUSES: usize = 100;

/// Entries of the smaller lists.
const MAX_LIST: usize = 200;

#[derive(Template)]
#[template(path = "report.html", whitespace = "minimize")]
struct Page {
    style: &'static str,
    script: &'static str,
    style_digest: String,
    script_digest: String,
    badge: Badge,
    head: Head,
    areas: Vec<Area>,
    idle: usize,
    spreads: Vec<AreaSpread>,
    causes: Vec<Cause>,
    more_causes: usize,
    verdicts: Vec<VerdictCount>,
    cases: Vec<Case>,
    plots: Vec<Plot>,
    measured: Vec<Measured>,
    characteristics: Vec<Characteristic>,
    warnings: Vec<Warning>,
    requirements: Vec<Requirement>,
    trouble: Vec<Trouble>,
    about: Vec<(&'static str, Text)>,
}

/// How many cases have a verdict.
struct VerdictCount {
    verdict: Mark,
    count: u64,
}

/// A verdict as it is shown: never by its colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub word: &'static str,
    pub glyph: &'static str,
}

impl From<CaseVerdict> for Mark {
    fn from(verdict: CaseVerdict) -> Self {
        let glyph = match verdict {
            CaseVerdict::Pass => "✓",
            CaseVerdict::Fail => "✕",
            CaseVerdict::Flaky => "≈",
            CaseVerdict::Infra => "!",
            CaseVerdict::Undecided => "?",
            CaseVerdict::Skip => "–",
            CaseVerdict::NotRun => "○",
        };
        Self {
            word: verdict.as_str(),
            glyph,
        }
    }
}

impl From<crate::event::Verdict> for Mark {
    fn from(verdict: crate::event::Verdict) -> Self {
        use crate::event::Verdict;
        CaseVerdict::into(match verdict {
            Verdict::Pass => CaseVerdict::Pass,
            Verdict::Fail => CaseVerdict::Fail,
            Verdict::Infra => CaseVerdict::Infra,
            Verdict::Skip => CaseVerdict::Skip,
        })
    }
}

/// Failed attempts with one cause.
struct Cause {
    attempts: u64,
    cases: usize,
    class: &'static str,
    what: Text,
    example: Text,
    attempt: u32,
    message: Text,
}

/// A measured number of the run as a whole.
struct Measured {
    name: Text,
    unit: Text,
    count: u64,
    values: [String; 5],
}

struct Characteristic {
    id: Text,
    values: Vec<(Text, Text, usize)>,
}

struct Warning {
    rules: Text,
    kind: Text,
    count: usize,
    case: Text,
    example: Text,
}

struct Trouble {
    attempts: u64,
    cases: usize,
    reason: Text,
}

/// The report as a page, with what is to be shown of the evidence.
pub fn render(report: &Report, evidence: &Evidence) -> String {
    let verdicts = CaseVerdict::ALL.into_iter().map(|verdict| VerdictCount {
        verdict: verdict.into(),
        count: report.totals.cases.get(verdict),
    });
    let areas = areas::cards(report);
    let page = Page {
        style: STYLE,
        script: SCRIPT,
        style_digest: digest(STYLE),
        script_digest: digest(SCRIPT),
        badge: Badge::of(report),
        head: Head::of(report),
        idle: areas.iter().filter(|area| area.idle).count(),
        areas,
        spreads: areas::spreads(report),
        causes: causes(report),
        more_causes: report.causes.len().saturating_sub(MAX_CAUSES),
        verdicts: verdicts.filter(|verdict| verdict.count > 0).collect(),
        cases: cases::all(report, evidence),
        plots: plot::all(&report.measurements),
        measured: report.measurements.iter().map(measured).collect(),
        characteristics: characteristics(report),
        warnings: warnings(report),
        requirements: areas::requirements(report),
        trouble: trouble(report),
        about: head::about(report),
    };
    // Nothing in it can fail: texts and numbers are written into memory.
    page.render().expect("texts and numbers are always written")
}

/// What a content security policy calls a script or style by.
pub(crate) fn digest(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let digest = base64::engine::general_purpose::STANDARD.encode(digest);
    format!("sha256-{digest}")
}

fn causes(report: &Report) -> Vec<Cause> {
    let cause = |group: &crate::model::FailureGroup| Cause {
        attempts: group.attempts,
        cases: group.cases.len(),
        class: group.class.map_or("–", |class| class.as_str()),
        what: Text::short(&group.signature.to_string(), 240),
        example: Text::new(&group.example_case),
        attempt: group.example_attempt,
        message: Text::short(&group.example, 400),
    };
    report.causes.iter().take(MAX_CAUSES).map(cause).collect()
}

fn measured(measured: &Measurement) -> Measured {
    let values = &measured.values;
    Measured {
        name: Text::new(&measured.name),
        unit: Text::new(&measured.unit),
        count: values.count,
        values: [values.min, values.p50, values.p90, values.p99, values.max].map(number),
    }
}

fn characteristics(report: &Report) -> Vec<Characteristic> {
    let value = |observed: &crate::model::CharacteristicValue| {
        (
            Text::short(&observed.value, 200),
            Text::short(&observed.text, 400),
            observed.cases.len(),
        )
    };
    report
        .characteristics
        .iter()
        .take(MAX_LIST)
        .map(|choice| Characteristic {
            id: Text::new(&choice.id),
            values: choice.values.iter().map(value).collect(),
        })
        .collect()
}

fn warnings(report: &Report) -> Vec<Warning> {
    crate::markdown::warnings(report)
        .into_iter()
        .take(MAX_LIST)
        .map(|((rules, kind), (count, case, example))| Warning {
            rules: Text::new(&rules),
            kind: Text::new(kind),
            count,
            case: Text::new(case),
            example: Text::short(example, 400),
        })
        .collect()
}

fn trouble(report: &Report) -> Vec<Trouble> {
    let reason = |group: &crate::model::InfraGroup| Trouble {
        attempts: group.attempts,
        cases: group.cases.len(),
        reason: Text::short(&group.reason, 400),
    };
    report
        .infra_groups
        .iter()
        .take(MAX_LIST)
        .map(reason)
        .collect()
}
