//! `report.md`: the report as a pull-request comment. The verdict comes first, then a table, then what went wrong;
//! everything that is only sometimes wanted is folded.
//!
//! Comments have a size limit, so the longest parts give way: see [`MAX_BYTES`].

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Failure, Machine, Merged, Mode, Options, Verdict};
use crate::model::{
    Attempt, CaseResult, CaseVerdict, Classification, Conclusion, Counts, Distribution,
    FailureGroup, GroupSummary, InfraGroup, Measurement, Rate, Report, canary_sentence,
};
use crate::sequential::Decision;
use crate::text::{one_line, shortened};
use crate::waiver;

/// The rendered report is never longer than this many bytes; GitHub's limit for a comment is 65,536 characters.
pub const MAX_BYTES: usize = 60_000;

/// A signature lies beside what it signs and changes nothing of it, so this has to be true of both.
const SIGNED: &str = "\
_This page does not show who made it. `harness verify DIR` says whether the run is signed, by whom, and whether anything was changed since._";

/// Failures that are shown per attempt; the evidence has them all.
const MAX_FAILURES: usize = 4;

/// Characters that are shown of one text out of the log.
const MAX_TEXT: usize = 240;

/// Warnings by the rules they are about and their kind: how many attempts, and the first of them.
pub(crate) fn warnings(report: &Report) -> BTreeMap<(String, &str), (usize, &str, &str)> {
    let mut found = BTreeMap::new();
    for case in &report.cases {
        for attempt in &case.attempts {
            let mut counted = BTreeSet::new();
            for warning in &attempt.warnings {
                let key = (warning.requirements.join(", "), warning.kind.as_str());
                if counted.insert(key.clone()) {
                    let first = (0, case.id.as_str(), warning.message.as_str());
                    found.entry(key).or_insert(first).0 += 1;
                }
            }
        }
    }
    found
}

/// The report as Markdown (GitHub's dialect, which GitLab reads too).
pub fn render(report: &Report) -> String {
    // No part may take all the room, so that a candidate which fails everything still shows the rest. The numbers are bytes
    // and leave some for the headings and for the last part.
    let mut page = Page::default();
    page.block(&heading(report));
    page.block(&summary(report));
    page.section(4_000, TABLE_HEAD, report.areas.iter().map(area_row), "");
    if !report.problems.is_empty() {
        let problems = report.problems.iter().map(|p| format!("- {}\n", prose(p)));
        page.section(2_000, "## The run is incomplete\n\n", problems, "");
    }
    // With a single failed attempt, or when no two have anything in common, the sections below say the same.
    let failed: u64 = report.causes.iter().map(|cause| cause.attempts).sum();
    if failed > report.causes.len() as u64 {
        page.section(6_000, CAUSES_HEAD, report.causes.iter().map(cause_row), "");
    }
    for (title, room, verdict) in [
        ("## Failures\n\n", 20_000, CaseVerdict::Fail),
        ("## Flaky\n\n", 8_000, CaseVerdict::Flaky),
    ] {
        page.section(
            room,
            title,
            report.cases_with(verdict).map(|c| failed_case(report, c)),
            "",
        );
    }
    let undecided = report.cases_with(CaseVerdict::Undecided).map(|case| {
        let claim = case.claim.as_ref().map(ToString::to_string);
        let rate = case.failure_rate.map_or(String::new(), |rate| rate.words());
        format!(
            "- {}: {} ({rate})\n",
            code(&case.id),
            prose(&claim.unwrap_or_default())
        )
    });
    page.section(3_000, "## Undecided\n\n", undecided, "");
    let infra = report.cases_with(CaseVerdict::Infra).map(infra_case);
    page.section(3_000, "## Infrastructure trouble\n\n", infra, "");
    if report.totals.attempts.infra > report.infra_groups.len() as u64 {
        let reasons = report.infra_groups.iter().map(infra_reason);
        page.section(
            2_000,
            "What these attempts have in common:\n\n",
            reasons,
            "",
        );
    }
    let waivers = report.waivers.iter().map(|result| {
        let (subject, state) = (prose(&result.waiver.subject()), result.state.as_str());
        format!("- {subject}: {state}: {}\n", prose(&result.waiver.words()))
    });
    let title = format!("Waivers ({})", report.waivers.len());
    page.folded(3_000, &title, waivers);
    let violated = report.requirements.iter().filter(|requirement| {
        matches!(requirement.verdict, CaseVerdict::Fail | CaseVerdict::Flaky)
    });
    let violated = violated.map(|requirement| {
        format!(
            "- {} ({}): {} <sub>{}</sub>\n",
            code(&requirement.id),
            requirement.verdict,
            prose(&requirement.text),
            prose(&requirement.source)
        )
    });
    let count = report.totals.requirements.fail + report.totals.requirements.flaky;
    page.folded(6_000, &format!("Requirements violated ({count})"), violated);
    let warnings = warnings(report);
    let count: usize = warnings.values().map(|(count, _, _)| count).sum();
    let warnings = warnings
        .into_iter()
        .map(|((requirements, kind), (count, case, example))| {
            format!(
                "- {} {}: {count} attempts, such as {}: {}\n",
                prose(&requirements),
                prose(kind),
                code(case),
                prose(example)
            )
        });
    page.folded(
        3_000,
        &format!("Warnings by rules that do not decide the case ({count})"),
        warnings,
    );

    page.folded(
        4_000,
        "How sure: cases by what their attempts still allow",
        certainty(report).into_iter(),
    );
    let values = report.measurements.iter().map(measurement_row);
    page.section(4_000, MEASURED_HEAD, values, "\n</details>\n");

    let cases = &report.totals.cases;
    let skipped = report.cases_with(CaseVerdict::Skip).map(|case| {
        let (kind, reason) = match &case.skip {
            Some(skip) => (skip.kind.as_str(), prose(&skip.reason)),
            None => ("skipped", "no reason was given".to_owned()),
        };
        format!("- {}: {kind}: {reason}\n", code(&case.id))
    });
    page.folded(3_000, &format!("Skipped ({})", cases.skip), skipped);
    let not_run: Vec<String> = report
        .cases_with(CaseVerdict::NotRun)
        .filter(|case| !report.is_elsewhere(case))
        .map(|case| format!("- {}\n", code(&case.id)))
        .collect();
    let title = format!("Not run ({})", not_run.len());
    page.folded(3_000, &title, not_run.into_iter());
    let characteristics = report.characteristics.iter().flat_map(|choice| {
        choice.values.iter().map(|observed| {
            format!(
                "- {}: **{}**: {} <sub>{}</sub>\n",
                code(&choice.id),
                prose(&observed.value),
                prose(&observed.text),
                plural(observed.cases.len() as u64, "case")
            )
        })
    });
    let count = report.characteristics.len();
    page.folded(
        4_000,
        &format!("Characteristics ({count})"),
        characteristics,
    );
    page.folded(3_000, "About this run", about(report).into_iter());
    page.block(SIGNED);
    page.text
}

/// The growing document, which refuses what does not fit.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    /// Adds a part that is always wanted, and cuts nothing off it.
    fn block(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// Adds as many items as fit into so many bytes and says how many do not; adds nothing when there are none.
    fn section(
        &mut self,
        room: usize,
        head: &str,
        items: impl Iterator<Item = String>,
        foot: &str,
    ) {
        let (mut body, mut left_out) = (String::new(), 0_u64);
        for item in items {
            if body.len() + item.len() > room {
                left_out += 1;
            } else {
                body.push_str(&item);
            }
        }
        if left_out > 0 {
            body.push_str(&format!("\n_… and {left_out} more, see `report.json`._\n"));
        }
        let part = format!("{head}{body}{foot}\n");
        let last = SIGNED.len() + 1;
        if !body.is_empty() && self.text.len() + part.len() + last <= MAX_BYTES {
            self.text.push_str(&part);
        }
    }

    fn folded(&mut self, room: usize, summary: &str, items: impl Iterator<Item = String>) {
        let head = format!("<details><summary>{}</summary>\n\n", html(summary));
        self.section(room, &head, items, "\n</details>\n");
    }
}

fn heading(report: &Report) -> String {
    let mark = match report.conclusion {
        Conclusion::Conformant => "✅",
        Conclusion::ShardPassed => "🧩",
        Conclusion::NotConformant => "❌",
        Conclusion::Flaky => "🎲",
        Conclusion::Infra => "⚠️",
        Conclusion::NothingRan => "⚪",
    };
    let version = match &report.candidate.version {
        Some(version) => format!(" {}", prose(version)),
        None => String::new(),
    };
    let name = prose(&report.candidate.name);
    format!("# {mark} {}: {name}{version}\n", report.conclusion.title())
}

fn summary(report: &Report) -> String {
    let cases = &report.totals.cases;
    let attempts = report.totals.attempts.total;
    let mut text = format!(
        "**{}**: {}. {}, {} in {}, profile {}.\n",
        plural(cases.total, "case"),
        counted(cases),
        plural(attempts, "attempt"),
        plural(report.totals.checks, "check"),
        duration(report.duration_ms),
        prose(&report.options.profile),
    );
    if let Some(merged) = &report.merged {
        text.push_str(&merged_words(merged));
    }
    if cases.flaky > 0 && report.flakes_tolerated() {
        let budget = report.options.flake_budget;
        text.push_str(&format!(
            "Flaky cases are within the flake budget of {budget}.\n"
        ));
    }
    if let Some(waived) = waiver::sentence(&report.cases) {
        text.push_str(&format!("{waived}.\n"));
    }
    if let Some(shard) = report.options.shard {
        let elsewhere = report.cases.iter().filter(|case| report.is_elsewhere(case));
        text.push_str(&format!(
            "\nThis is shard {shard}: {} of the plan belong to other shards, and only all shards together show conformance.\n",
            plural(elsewhere.count() as u64, "case")
        ));
    }
    if let Some(claim) = report.options.until_confidence {
        let decided = |decision| {
            let claims = report.cases.iter().filter_map(|case| case.claim.as_ref());
            claims.filter(|claim| claim.decision == decision).count()
        };
        text.push_str(&format!(
            "\n{} is proven for {}, refuted for {}, undecided for {}.\n",
            prose(&claim.to_string()),
            plural(decided(Decision::Proven) as u64, "case"),
            decided(Decision::Refuted),
            decided(Decision::Open)
        ));
    }
    if !report.resumed.is_empty() {
        text.push_str(&format!(
            "\nThe run was resumed {}; {} void and were made again.\n",
            times(report.resumed.len()),
            match report.void_attempts() {
                1 => "1 attempt was".to_owned(),
                count => format!("{count} attempts were"),
            }
        ));
    }
    text
}

/// What a merged run was made from.
fn merged_words(merged: &Merged) -> String {
    // How busy it was makes no kind of machine.
    let kind = |machine: &Machine| Machine {
        calibration: None,
        ..machine.clone()
    };
    let mut machines: Vec<Machine> = merged.sources.iter().map(|s| kind(&s.machine)).collect();
    machines.sort_by_key(|machine| format!("{machine:?}"));
    machines.dedup();
    let mut text = format!(
        "Merged from {} on {}",
        plural(merged.sources.len() as u64, "run"),
        plural(machines.len() as u64, "kind") + " of machine",
    );
    if merged.dropped > 0 {
        let dropped = plural(merged.dropped, "attempt");
        text.push_str(&format!("; {dropped} present more than once, counted once"));
    }
    text + ".\n"
}

/// The verdicts that occur, in words.
pub(crate) fn counted(counts: &Counts) -> String {
    let words: Vec<String> = CaseVerdict::ALL
        .into_iter()
        .filter(|verdict| counts.get(*verdict) > 0)
        .map(|verdict| {
            format!(
                "{} {}",
                counts.get(verdict),
                verdict.as_str().replace('-', " ")
            )
        })
        .collect();
    match words.as_slice() {
        [] => "none".to_owned(),
        _ => words.join(", "),
    }
}

const TABLE_HEAD: &str = "\
| | Area | Pass | Fail | Flaky | Infra | Undecided | Skip | Not run | Convergence p50 / p99 |
|---|---|--:|--:|--:|--:|--:|--:|--:|--:|
";

fn area_row(area: &GroupSummary) -> String {
    let convergence = match area.convergence_ms {
        Some(Distribution { p50, p99, .. }) => format!("{} / {}", duration(p50), duration(p99)),
        None => "–".to_owned(),
    };
    let counts: Vec<String> = CaseVerdict::ALL
        .into_iter()
        .map(|verdict| area.cases.get(verdict).to_string())
        .collect();
    format!(
        "| {} | {} | {} | {convergence} |\n",
        mark(area.verdict),
        prose(&area.name),
        counts.join(" | ")
    )
}

const MEASURED_HEAD: &str = "\
<details><summary>What was measured</summary>

| | Unit | Values | p50 | p90 | p99 | max |
|---|---|--:|--:|--:|--:|--:|
";

fn measurement_row(measured: &Measurement) -> String {
    let values = &measured.values;
    format!(
        "| {} | {} | {} | {} | {} | {} | {} |\n",
        prose(&measured.name),
        prose(&measured.unit),
        values.count,
        number(values.p50),
        number(values.p90),
        number(values.p99),
        number(values.max)
    )
}

/// A measured number with the digits that mean something.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{}", (value * 10.0).round() / 10.0),
        _ => format!("{}", (value * 1000.0).round() / 1000.0),
    }
}

/// Where each case was repeated: what its attempts still allow, the least certain ones first.
fn certainty(report: &Report) -> Vec<String> {
    let mut rated: Vec<(&CaseResult, Rate)> = report
        .cases
        .iter()
        .filter_map(|case| Some((case, case.failure_rate?)))
        .collect();
    if rated.iter().all(|(_, rate)| rate.of < 2) {
        return Vec::new();
    }
    // Stable: equally uncertain ones stay in the order of the plan.
    rated.sort_by(|(_, a), (_, b)| b.upper_bound.total_cmp(&a.upper_bound));
    let line = |(case, rate): (&CaseResult, Rate)| {
        let claim = match &case.claim {
            Some(claim) => format!("; {}", prose(&claim.to_string())),
            None => String::new(),
        };
        format!("- {}: {}{claim}\n", code(&case.id), rate.words())
    };
    rated.into_iter().map(line).collect()
}

fn times(count: usize) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        _ => format!("{count} times"),
    }
}

const CAUSES_HEAD: &str = "\
## Causes

| Attempts | Cases | Class | What they have in common | Example |
|--:|--:|---|---|---|
";

fn cause_row(group: &FailureGroup) -> String {
    format!(
        "| {} | {} | {} | {} | {}, attempt {} |\n",
        group.attempts,
        group.cases.len(),
        group.class.map_or("–", |class| class.as_str()),
        prose(&group.signature.to_string()),
        code(&group.example_case),
        group.example_attempt
    )
}

fn mark(verdict: CaseVerdict) -> &'static str {
    match verdict {
        CaseVerdict::Pass => "✅",
        CaseVerdict::Fail => "❌",
        CaseVerdict::Flaky => "🎲",
        CaseVerdict::Infra | CaseVerdict::Undecided => "⚠️",
        CaseVerdict::Skip | CaseVerdict::NotRun => "⚪",
    }
}

fn failed_case(report: &Report, case: &CaseResult) -> String {
    let mut text = format!("### {}\n\n{}.", code(&case.id), prose(&case.title));
    if let Some(rate) = case.failure_rate {
        text.push_str(&format!(" {}.", rate_words(rate)));
    }
    text.push_str("\n\n");
    if let Some(waiver) = &case.waived {
        text.push_str(&format!("**Waived**: {}\n\n", prose(&waiver.words())));
    }
    if let Some(classification) = &case.classification {
        text.push_str(&class_words(classification));
    }
    for id in &case.requirements {
        let rule = report
            .requirements
            .iter()
            .find(|requirement| requirement.id == *id);
        let rule = rule.map_or("", |requirement| requirement.text.as_str());
        text.push_str(&format!("> - {}: {}\n", code(id), prose(rule)));
    }
    if let Some(attempt) = case.attempts_with(Verdict::Fail).next() {
        text.push_str(&format!("\n{}\n", attempt_words(attempt)));
        if attempt.failures.is_empty() {
            text.push_str("\nNo failure was recorded.\n");
        } else {
            text.push_str("\n| Step | Where | Expected | Actual |\n|---|---|---|---|\n");
        }
        for failure in attempt.failures.iter().take(MAX_FAILURES) {
            text.push_str(&failure_row(failure));
        }
        if attempt.failures.len() > MAX_FAILURES {
            let more = attempt.failures.len() - MAX_FAILURES;
            text.push_str(&format!(
                "\n… and {} in this attempt.\n",
                plural(more as u64, "more failure")
            ));
        }
    }
    text.push('\n');
    text
}

fn failure_row(failure: &Failure) -> String {
    let step = failure
        .step
        .map_or(String::new(), |step| format!("{step} "));
    let place = failure.cell.as_deref().unwrap_or(&failure.message);
    format!(
        "| {step}{} | {} | {} | {} |\n",
        code(&failure.verb),
        code(place),
        code(&failure.expected),
        code(&failure.actual)
    )
}

fn attempt_words(attempt: &Attempt) -> String {
    let mut words = format!("Attempt {}", attempt.attempt);
    if let Some(seed) = attempt.seed {
        words.push_str(&format!(", seed {seed}"));
    }
    if let Some(evidence) = &attempt.evidence {
        words.push_str(&format!(
            ", evidence in {} (`harness repro` with it shows it again)",
            code(evidence)
        ));
    }
    words.push(':');
    words
}

fn rate_words(rate: Rate) -> String {
    if rate.failed == 0 {
        return format!("Failed {}", rate.words());
    }
    format!(
        "Failed {} of {} ({:.1} %, 95 % interval {:.1} to {:.1} %)",
        rate.failed,
        plural(rate.of, "attempt"),
        rate.rate * 100.0,
        rate.low * 100.0,
        rate.high * 100.0
    )
}

/// The class, what decided, and how often it fails.
fn class_words(classification: &Classification) -> String {
    let Classification {
        class,
        why,
        rate,
        representative,
    } = classification;
    let mut text = format!("**{class}** by experiment: {}", prose(why));
    if let Some(rate) = rate {
        text.push_str(&format!(
            "; it fails in {:.1} % of its attempts, 95 % interval {:.1} to {:.1} %",
            rate.rate * 100.0,
            rate.low * 100.0,
            rate.high * 100.0
        ));
    }
    if let Some(representative) = representative {
        text.push_str(&format!(" {}", code(representative)));
    }
    text.push_str(".\n\n");
    text
}

fn infra_reason(group: &InfraGroup) -> String {
    format!(
        "- {} in {}: {}\n",
        plural(group.attempts, "attempt"),
        plural(group.cases.len() as u64, "case"),
        prose(&group.reason)
    )
}

fn infra_case(case: &CaseResult) -> String {
    let reason = case
        .attempts
        .iter()
        .find_map(|attempt| attempt.infra.as_deref());
    let reason = reason.unwrap_or("some attempts passed and some were skipped");
    format!("- {}: {}\n", code(&case.id), prose(reason))
}

fn about(report: &Report) -> Vec<String> {
    let (machine, options, candidate) = (&report.machine, &report.options, &report.candidate);
    let text = |value: &str| prose(value);
    let mut lines = vec![
        (
            "Run",
            format!("{} at {}", code(&report.run_id), text(&report.started)),
        ),
        (
            "Suite",
            format!(
                "{}, catalogue {}",
                text(&report.suite.version),
                code(&report.suite.catalogue_digest)
            ),
        ),
        ("Provider", text(&report.provider)),
        (
            "Machine",
            format!(
                "{}, kernel {}, {}, {}, {} MiB",
                text(&machine.os),
                text(&machine.kernel),
                text(&machine.arch),
                plural(u64::from(machine.cpus), "CPU"),
                machine.memory_bytes >> 20
            ),
        ),
        (
            "Options",
            format!(
                "{}, jobs {}, seed {}, flake budget {}",
                repetition(options),
                options.jobs,
                options.seed,
                options.flake_budget
            ),
        ),
    ];
    let canaries = canary_sentence(options, &report.canaries);
    lines.push(("Canaries", text(&canaries)));
    for setup in &report.setup {
        lines.push(("Cluster", text(&setup.to_string())));
    }
    if let Some(calibration) = &machine.calibration {
        lines.push(("Its speed at the start", calibration.to_string()));
    }
    for (name, value) in [
        ("Filter", &options.filter),
        ("nft", &machine.nft),
        ("iptables", &machine.iptables),
        ("Candidate's home", &candidate.url),
        ("Candidate's digest", &candidate.digest),
    ] {
        if let Some(value) = value {
            lines.push((name, code(value)));
        }
    }
    for unsupported in &candidate.features_unsupported {
        let (feature, reason) = (code(&unsupported.feature), text(&unsupported.reason));
        lines.push(("Declared unsupported", format!("{feature}: {reason}")));
    }
    let line = |(name, value): (&str, String)| format!("- {name}: {value}\n");
    lines.into_iter().map(line).collect()
}

/// How often attempts are made.
fn repetition(options: &Options) -> String {
    let mut words = match (options.mode, options.runs) {
        (Mode::Certify, 0) => Vec::new(),
        (Mode::Certify, runs) => vec![format!("runs {runs}")],
        (Mode::Stress, 0) => vec!["stress".to_owned()],
        (Mode::Stress, runs) => vec![format!("stress, runs {runs}")],
        (Mode::Soak, _) => vec!["soak".to_owned()],
    };
    if let Some(claim) = options.until_confidence {
        words.push(format!("until {claim}"));
    }
    if let Some(ms) = options.for_ms {
        words.push(format!("for {}", duration(ms as f64)));
    }
    words.join(", ")
}

pub(crate) fn plural(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// A duration in milliseconds, in the unit a reader expects.
pub(crate) fn duration(ms: f64) -> String {
    match ms {
        _ if ms < 10.0 => format!("{ms:.1} ms"),
        _ if ms < 1000.0 => format!("{ms:.0} ms"),
        _ if ms < 120_000.0 => format!("{:.1} s", ms / 1000.0),
        _ => format!("{:.0} min", ms / 60_000.0),
    }
}

/// Text out of the log as code: nothing in it is Markdown, HTML, a mention or a link.
pub fn code(text: &str) -> String {
    let text = shortened(&one_line(text), MAX_TEXT);
    // A bar would end a table's cell even inside backticks, and nothing at all makes no span.
    if text.contains('|') || text.trim().is_empty() {
        return format!("<code>{}</code>", entities(&text));
    }
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let pad = if text.starts_with('`') || text.ends_with('`') {
        " "
    } else {
        ""
    };
    format!("{fence}{pad}{text}{pad}{fence}")
}

/// Text out of the log as running text: punctuation stays readable, but builds nothing.
///
/// Mentions, references to issues and links are found after rendering, where escapes are gone already, so they are broken
/// up with a zero-width space: a report must not notify people or leave backlinks in upstream issues each time it is posted.
pub fn prose(text: &str) -> String {
    const BREAK: &str = "&#8203;";
    let text = shortened(one_line(text).trim(), 2 * MAX_TEXT);
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        let (before, rest) = (&text[..at], &text[at..]);
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '@' => out.push_str(&format!("@{BREAK}")),
            '#' => out.push_str(&format!("\\#{BREAK}")),
            ':' if rest.starts_with("://") => out.push_str(&format!(":{BREAK}")),
            '.' if before.to_ascii_lowercase().ends_with("www") => {
                out.push_str(&format!(".{BREAK}"))
            }
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '$' => out.extend(['\\', c]),
            // A list or an underline at the beginning of a block.
            '-' | '+' | '=' if before.is_empty() => out.extend(['\\', c]),
            '.' | ')' if numbers_a_list(before, rest) => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out
}

/// Whether a dot or bracket between these makes the beginning of a numbered list.
fn numbers_a_list(before: &str, rest: &str) -> bool {
    let number = !before.is_empty() && before.bytes().all(|b| b.is_ascii_digit());
    number && rest[1..].starts_with([' ', '\t'])
}

/// Escapes everything that means something in Markdown or HTML as a character reference, which builds nothing in either.
fn entities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_punctuation() && !matches!(c, ',' | '-' | '/' | '(' | ')') {
            out.push_str(&format!("&#{};", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

fn html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
