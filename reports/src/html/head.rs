//! The top of the page: the conclusion, everything that limits it, and who, what and where.

use super::Mark;
use super::text::{Text, duration, plural};
use crate::event::Mode;
use crate::model::{CaseVerdict, Conclusion, GroupSummary, NO_CANARIES, Report, canary_sentence};
use crate::sequential::Decision;
use crate::waiver;

/// The top of the page.
pub(super) struct Head {
    pub title: &'static str,
    pub glyph: &'static str,
    /// `good`, `bad`, `doubt` or `open`: which colours the band has.
    pub tone: &'static str,
    pub sentence: String,
    pub candidate: Text,
    pub version: Option<Text>,
    pub url: Option<Text>,
    pub run: Text,
    pub started: Text,
    pub levels: Vec<Level>,
    /// Why this is not the whole story.
    pub notices: Vec<Notice>,
}

/// A level, and how far it is reached.
pub(super) struct Level {
    pub name: Text,
    pub verdict: Mark,
    pub passed: u64,
    pub of: u64,
}

/// Something that a reader must not overlook.
pub(super) struct Notice {
    /// `partial`, `unsigned` or `note`.
    pub kind: &'static str,
    pub title: &'static str,
    pub text: Text,
}

/// Problems that are listed.
const MAX_PROBLEMS: usize = 20;

impl Head {
    pub fn of(report: &Report) -> Self {
        let (tone, glyph) = looks(report.conclusion, part(report));
        let level = |level: &GroupSummary| Level {
            name: Text::new(&level.name),
            verdict: level.verdict.into(),
            passed: level.cases.pass,
            of: level.cases.total,
        };
        Self {
            title: report.conclusion.title(),
            glyph,
            tone,
            sentence: sentence(report),
            candidate: Text::new(&report.candidate.name),
            version: report.candidate.version.as_deref().map(Text::new),
            url: report.candidate.url.as_deref().map(Text::new),
            run: Text::new(&report.run_id),
            started: Text::new(&report.started),
            levels: report.levels.iter().map(level).collect(),
            notices: notices(report),
        }
    }
}

/// The colours and the sign of a conclusion; of a part of a run, nothing is good.
pub(crate) fn looks(conclusion: Conclusion, part: bool) -> (&'static str, &'static str) {
    match conclusion {
        Conclusion::Conformant if part => ("open", "✓"),
        Conclusion::Conformant => ("good", "✓"),
        Conclusion::ShardPassed => ("open", "✓"),
        Conclusion::NotConformant => ("bad", "✕"),
        Conclusion::Flaky => ("doubt", "≈"),
        Conclusion::Infra => ("doubt", "!"),
        Conclusion::NothingRan => ("doubt", "○"),
    }
}

/// Whether cases were left out on purpose, or the canaries were.
fn part(report: &Report) -> bool {
    let options = &report.options;
    options.filter.is_some() || options.shard.is_some() || options.canaries.is_empty()
}

fn sentence(report: &Report) -> String {
    let totals = &report.totals;
    let attempts = plural(totals.attempts.total, "attempt");
    let checks = plural(totals.checks, "assertion");
    let cases = plural(totals.cases.total, "case");
    format!(
        "{cases}, {attempts} and {checks}, of which {} expected traffic to arrive, in {}.",
        totals.positive_checks,
        duration(report.duration_ms)
    )
}

fn notices(report: &Report) -> Vec<Notice> {
    let mut notices = Vec::new();
    let mut add = |kind, title, text: &str| {
        let text = Text::short(text, 600);
        notices.push(Notice { kind, title, text });
    };
    for problem in report.problems.iter().take(MAX_PROBLEMS) {
        add("partial", "Incomplete", problem);
    }
    if report.problems.len() > MAX_PROBLEMS {
        let more = report.problems.len() - MAX_PROBLEMS;
        add(
            "partial",
            "Incomplete",
            &format!("and {more} more problems, see report.json"),
        );
    }
    if let Some(shard) = report.options.shard {
        let text = format!(
            "this is shard {} of {}: the other shards have the other attempts, and none of them says that the candidate conforms",
            shard.index, shard.of
        );
        add("partial", "Partial", &text);
    }
    if let Some(filter) = &report.options.filter {
        let text = format!(
            "only the cases that match {filter:?} were to be run, so this says nothing about the others"
        );
        add("partial", "Partial", &text);
    }
    if report.options.canaries.is_empty() {
        add("partial", "No canaries", NO_CANARIES);
    }
    if let Some(text) = waiver::sentence(&report.cases) {
        add("note", "Waived", &text);
    }
    add(
        "unsigned",
        "Unsigned",
        "this page carries no signature, and anybody could have written it; the command harness verify, on the run's directory, says whether its files are signed, and by whom",
    );
    if let Some(claim) = report.options.until_confidence {
        let decided = |decision| {
            let claims = report.cases.iter().filter_map(|case| case.claim.as_ref());
            claims.filter(|claim| claim.decision == decision).count()
        };
        let text = format!(
            "{claim} is proven for {} cases, refuted for {} and open for {}",
            decided(Decision::Proven),
            decided(Decision::Refuted),
            decided(Decision::Open)
        );
        add("note", "Claim", &text);
    }
    let cases = &report.totals.cases;
    if report.conclusion == Conclusion::Conformant && cases.flaky > 0 {
        let text = format!(
            "{} within the flake budget of {}; with a budget of 0 the exit code is {}",
            plural(cases.flaky, "flaky case"),
            report.options.flake_budget,
            report.exit_code(0)
        );
        add("note", "Flaky", &text);
    }
    if !report.resumed.is_empty() {
        let text = format!(
            "the run was resumed {}; {} under way when it broke off counted for nothing and were made again",
            plural(report.resumed.len() as u64, "time"),
            plural(report.void_attempts(), "attempt")
        );
        add("note", "Resumed", &text);
    }
    if let Some(merged) = &report.merged {
        let text = format!(
            "made from {}; {} present more than once were counted once",
            plural(merged.sources.len() as u64, "run"),
            plural(merged.dropped, "attempt")
        );
        add("note", "Merged", &text);
    }
    notices
}

/// Everything that is needed to believe and repeat the run.
pub(super) fn about(report: &Report) -> Vec<(&'static str, Text)> {
    let (machine, options, candidate) = (&report.machine, &report.options, &report.candidate);
    let mut about = vec![
        (
            "Conclusion",
            format!(
                "{}, exit code {}",
                report.conclusion.title(),
                report.exit_code
            ),
        ),
        ("Run", report.run_id.clone()),
        ("Started", report.started.clone()),
    ];
    if let Some(end) = &report.end {
        about.push(("Ended", end.time.clone()));
    }
    about.extend([
        ("Working time", duration(report.active_ms)),
        ("Candidate", candidate.name.clone()),
    ]);
    for (name, value) in [
        ("Candidate's version", &candidate.version),
        ("Candidate's home", &candidate.url),
        ("Candidate's digest", &candidate.digest),
    ] {
        if let Some(value) = value {
            about.push((name, value.clone()));
        }
    }
    for unsupported in candidate.features_unsupported.iter().take(super::MAX_LIST) {
        let text = format!("{}: {}", unsupported.feature, unsupported.reason);
        about.push(("Declared unsupported", text));
    }
    about.extend([
        ("Suite", report.suite.version.clone()),
        ("Catalogue", report.suite.catalogue_digest.clone()),
        ("Provider", report.provider.clone()),
        ("System", format!("{}, {}", machine.os, machine.arch)),
        ("Kernel", machine.kernel.clone()),
        (
            "Machine",
            format!(
                "{}, {} MiB",
                plural(u64::from(machine.cpus), "CPU"),
                machine.memory_bytes >> 20
            ),
        ),
    ]);
    if let Some(calibration) = &machine.calibration {
        about.push(("Its speed at the start", calibration.to_string()));
    }
    for (name, value) in [("nft", &machine.nft), ("iptables", &machine.iptables)] {
        if let Some(value) = value {
            about.push((name, value.clone()));
        }
    }
    about.extend([
        ("Profile", options.profile.clone()),
        (
            "Filter",
            options.filter.clone().unwrap_or_else(|| "none".to_owned()),
        ),
        ("Seed", options.seed.to_string()),
        ("Worlds at a time", options.jobs.to_string()),
        ("Flake budget", options.flake_budget.to_string()),
        (
            "Attempts per case",
            match (options.mode, options.runs) {
                (Mode::Soak, _) => "chosen by a soak".to_owned(),
                (_, 0) => "not limited".to_owned(),
                (_, runs) => runs.to_string(),
            },
        ),
    ]);
    if let Some(claim) = options.until_confidence {
        about.push(("Until", claim.to_string()));
    }
    about.push(("Canaries", canary_sentence(options, &report.canaries)));
    for setup in report.setup.iter().take(super::MAX_LIST) {
        about.push(("Cluster", setup.to_string()));
    }
    for result in report.waivers.iter().take(super::MAX_LIST) {
        let (waiver, state) = (&result.waiver, result.state.as_str());
        let text = format!("{}, {state}: {}", waiver.subject(), waiver.words());
        about.push(("Waiver", text));
    }
    let counts = |name, counts: &crate::model::Counts| {
        let words = CaseVerdict::ALL
            .into_iter()
            .filter(|verdict| counts.get(*verdict) > 0)
            .map(|verdict| format!("{} {verdict}", counts.get(verdict)));
        (name, words.collect::<Vec<_>>().join(", "))
    };
    about.push(counts("Cases", &report.totals.cases));
    about.push(counts("Requirements", &report.totals.requirements));
    let short = |(name, value): (&'static str, String)| (name, Text::short(&value, 600));
    about.into_iter().map(short).collect()
}
