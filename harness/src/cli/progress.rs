//! What the terminal shows while a run goes on, and after it.
//!
//! On a terminal: a bar with the running cases below the status lines. Otherwise plain lines.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reports::{
    event::{
        AttemptFinished, CanaryOutcome, EventBody, ExperimentFinished, FinishReason, Mode, Options,
        RunStarted, SetupFinished, Verdict,
    },
    model::{CaseResult, Rate, Report, at_most},
};

use super::certify::by_area;
use crate::{run::source::Done, scenario::Span};

/// How many running cases the bar names.
const NAMED: usize = 3;

/// Where there is no terminal, the rate of a run of many attempts is told this often.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Shows a run.
pub struct Progress {
    bar: ProgressBar,
    color: bool,
    terminal: bool,
    /// Whether a line per passed attempt would drown everything else.
    many: bool,
    /// Whether attempts are told by their numbers.
    numbered: bool,
    told: Instant,
    stress: Option<String>,
    running: BTreeSet<String>,
    started: Instant,
    counts: BTreeMap<Verdict, u32>,
    skips: BTreeMap<String, u32>,
    /// Infrastructure trouble, and how many attempts it ended.
    trouble: BTreeMap<String, u32>,
}

impl Progress {
    /// Shows the head of the run.
    ///
    /// `attempts` is how many there will be, where that is known.
    pub fn new(run: &RunStarted, attempts: Option<u64>, color: bool) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let bar = attempts.map_or_else(ProgressBar::no_length, ProgressBar::new);
        bar.set_draw_target(if terminal {
            ProgressDrawTarget::stdout()
        } else {
            ProgressDrawTarget::hidden()
        });
        let template = match (attempts.is_some(), color) {
            (true, true) => "{elapsed_precise} [{bar:30.cyan/blue}] {pos}/{len} {msg:.dim}",
            (true, false) => "{elapsed_precise} [{bar:30}] {pos}/{len} {msg}",
            (false, true) => "{elapsed_precise} {msg:.dim}",
            (false, false) => "{elapsed_precise} {msg}",
        };
        bar.set_style(
            ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> "),
        );
        if terminal {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        let progress = Self {
            bar,
            color: color && terminal,
            terminal,
            many: run.options.mode != Mode::Certify,
            numbered: run.options.runs != 1,
            told: Instant::now(),
            stress: None,
            running: BTreeSet::new(),
            started: Instant::now(),
            counts: BTreeMap::new(),
            skips: BTreeMap::new(),
            trouble: BTreeMap::new(),
        };
        progress.line(&format!(
            "{} {} with {} cases{} (profile {}, provider {}, {} at a time, seed {})",
            match run.options.mode {
                Mode::Certify => "certify",
                Mode::Stress => "stress",
                Mode::Soak => "soak",
            },
            clean(&run.candidate.name),
            run.cases.len(),
            repetition(&run.options),
            run.options.profile,
            run.provider,
            run.options.jobs,
            run.options.seed
        ));
        progress
    }

    /// No bar: somebody else uses the terminal meanwhile.
    pub fn plain(&mut self) {
        self.bar.disable_steady_tick();
        self.bar.set_draw_target(ProgressDrawTarget::hidden());
        self.terminal = false;
    }

    /// Says where a run that is resumed stands.
    pub fn resumed(&mut self, done: &Done, void: usize, ended: Option<FinishReason>) {
        for verdict in done.verdicts() {
            *self.counts.entry(verdict).or_default() += 1;
        }
        let what = match ended {
            Some(_) => "nothing is left to do".to_owned(),
            None => format!("{void} were under way when it broke off and are made again"),
        };
        self.line(&format!(
            "resumed: {} attempts are done, {what}",
            done.len()
        ));
    }

    /// Shows an event.
    pub fn event(&mut self, body: &EventBody) {
        match body {
            EventBody::AttemptStarted { case, stress, .. } => {
                self.stress.clone_from(stress);
                self.running.insert(case.clone());
                self.message();
            }
            EventBody::AttemptFinished(finished) => {
                self.running.remove(&finished.case);
                *self.counts.entry(finished.verdict).or_default() += 1;
                if let Some(skip) = &finished.skip {
                    *self
                        .skips
                        .entry(format!("{}: {}", skip.kind, clean(&skip.reason)))
                        .or_default() += 1;
                }
                // Hundreds of attempts on a cluster that could not be made have one thing to say.
                let times = finished.infra.as_ref().map(|infra| {
                    let times = self.trouble.entry(clean(infra)).or_default();
                    *times += 1;
                    *times
                });
                let again = times.is_some_and(|times| times > 1);
                if !again && (!self.many || !matches!(finished.verdict, Verdict::Pass)) {
                    self.line(&self.status(finished));
                }
                self.bar.inc(1);
                self.message();
                if self.many && !self.terminal && self.told.elapsed() >= TOLD_EVERY {
                    self.told = Instant::now();
                    self.line(&self.rate());
                }
            }
            EventBody::ExperimentFinished(finished) => {
                self.line(&experiment(finished));
            }
            EventBody::SetupFinished(setup) => self.line(&setup_line(setup)),
            EventBody::CanaryFinished(canary) if canary.outcome != CanaryOutcome::Caught => {
                let message = clean(&canary.message);
                self.line(&format!("canary {}: {message}", canary.canary));
            }
            _ => {}
        }
    }

    /// `129909 runs, 48 failures, 0.037 % [0.027, 0.049]`.
    fn rate(&self) -> String {
        let count = |verdict| u64::from(self.counts.get(&verdict).copied().unwrap_or(0));
        let (passed, failed) = (count(Verdict::Pass), count(Verdict::Fail));
        let rate = Rate::new(failed, passed + failed);
        let mut line = rate.map_or("0 runs".to_owned(), |rate| rate.to_string());
        if count(Verdict::Infra) > 0 {
            line.push_str(&format!(", {} infra", count(Verdict::Infra)));
        }
        if let Some(stress) = &self.stress {
            line.push_str(&format!("; {}", clean(stress)));
        }
        line
    }

    fn message(&self) {
        if self.many {
            self.bar.set_message(self.rate());
            return;
        }
        let named: Vec<&str> = self
            .running
            .iter()
            .take(NAMED)
            .map(String::as_str)
            .collect();
        let more = self.running.len().saturating_sub(NAMED);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        self.bar.set_message(format!("{}{more}", named.join(" ")));
    }

    fn line(&self, text: &str) {
        if self.terminal {
            self.bar.println(text);
        } else {
            super::print(&format!("{text}\n"));
        }
    }

    /// `PASS  1.234s  udp-endpoint-replaced[ipv6,nodePort]  converged in 12.3 ms`.
    fn status(&self, finished: &AttemptFinished) -> String {
        let (word, color) = match finished.verdict {
            Verdict::Pass => ("PASS", "32"),
            Verdict::Fail => ("FAIL", "31"),
            Verdict::Infra => ("INFRA", "35"),
            Verdict::Skip => ("SKIP", "33"),
        };
        let word = format!("{word:<5}");
        let word = if self.color {
            format!("\x1b[1;{color}m{word}\x1b[0m")
        } else {
            word
        };
        let attempt = if self.numbered {
            format!(" #{}", finished.attempt)
        } else {
            String::new()
        };
        let mut line = format!(
            "{word} {:>8.3}s  {}{attempt}",
            finished.duration_ms / 1e3,
            finished.case
        );
        if let Some(convergence) = finished.convergence_ms {
            line.push_str(&format!("  converged in {convergence:.1} ms"));
        }
        if let Some(skip) = &finished.skip {
            line.push_str(&format!("  {}: {}", skip.kind, clean(&skip.reason)));
        }
        if let Some(infra) = &finished.infra {
            line.push_str(&format!("\n      {}", clean(infra)));
        }
        for failure in finished.failures.iter().take(3) {
            line.push_str(&format!(
                "\n      {}: {}",
                failure.kind,
                clean(&failure.message)
            ));
        }
        if finished.failures.len() > 3 {
            line.push_str(&format!("\n      and {} more", finished.failures.len() - 3));
        }
        line
    }

    /// The bar goes away; of many attempts the rate stays.
    pub fn finish(&mut self) {
        self.bar.finish_and_clear();
        if self.many {
            self.stress = None;
            super::print(&format!("{}\n", self.rate()));
        }
    }

    /// The table per requirement area, the verdict, and where the reports are.
    pub fn summary(&self, report: &Report, files: &[PathBuf], flake_budget: u32) {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header(["area", "pass", "fail", "other"]);
        for (area, (pass, fail, other)) in by_area(report) {
            table.add_row([area, pass.to_string(), fail.to_string(), other.to_string()]);
        }
        let count = &report.totals.attempts;
        let mut text = format!("\n{table}\n\n");
        text.push_str(&causes(report));
        text.push_str(&classes(report));
        text.push_str(&rates(report));
        text.push_str(&measured(report));
        let repeated = self.trouble.iter().filter(|(_, times)| **times > 1);
        for (trouble, times) in repeated {
            text.push_str(&format!("infra {times} x {trouble}\n"));
        }
        for (reason, times) in &self.skips {
            text.push_str(&format!("skipped {times} x {reason}\n"));
        }
        text.push_str(&format!(
            "{}: {} attempts passed, {} failed, {} infra, {} skipped in {:.1} s\n",
            conclusion(report.conclude(flake_budget)),
            count.pass,
            count.fail,
            count.infra,
            count.skip,
            self.started.elapsed().as_secs_f64()
        ));
        for waiver in &report.waivers {
            let (subject, state) = (clean(&waiver.waiver.subject()), waiver.state.as_str());
            text.push_str(&format!("waiver of {subject}: {state}\n"));
        }
        if let Some(shard) = report.options.shard {
            text.push_str(&format!(
                "this was shard {shard}: only all shards together show conformance\n"
            ));
        }
        for problem in &report.problems {
            text.push_str(&format!("incomplete: {}\n", clean(problem)));
        }
        for file in files {
            text.push_str(&format!("  {}\n", file.display()));
        }
        super::print(&text);
    }
}

/// Cases whose rates are shown; the reports have them all.
const RATES: usize = 12;

/// How often cases failed, and how often they may fail at most: where they were repeated, the least certain ones first.
fn rates(report: &Report) -> String {
    let mut rated: Vec<(&CaseResult, Rate)> = report
        .cases
        .iter()
        .filter_map(|case| Some((case, case.failure_rate?)))
        .collect();
    if rated.iter().all(|(_, rate)| rate.of < 2) {
        return String::new();
    }
    rated.sort_by(|(_, a), (_, b)| b.upper_bound.total_cmp(&a.upper_bound));
    let mut text = String::from("failure rates at 95 % confidence, the least certain first:\n");
    for (case, rate) in rated.iter().take(RATES) {
        let claim = case.claim.as_ref();
        let claim = claim.map_or(String::new(), |claim| format!("; {claim}"));
        text.push_str(&format!("  {}: {}{claim}\n", case.id, rate.words()));
    }
    if let Some((_, best)) = rated.get(RATES..).and_then(<[_]>::last) {
        let more = rated.len() - RATES;
        text.push_str(&format!(
            "  and {more} more, down to {}\n",
            at_most(best.upper_bound)
        ));
    }
    if rated.len() > 1 {
        let (failed, passed) = (report.totals.attempts.fail, report.totals.attempts.pass);
        if let Some(rate) = Rate::new(failed, failed + passed) {
            text.push_str(&format!("  all cases together: {rate}\n"));
        }
    }
    text.push('\n');
    text
}

/// What reports show distributions of.
const MEASURED: [&str; 4] = [
    "convergence",
    "blackout",
    "misdelivered",
    "connect latency max",
];

fn measured(report: &Report) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["measured", "values", "p50", "p90", "p99", "max"]);
    let measurements = report.measurements.iter();
    let shown: Vec<_> = measurements
        .filter(|measured| MEASURED.contains(&measured.name.as_str()))
        .collect();
    if shown.is_empty() {
        return String::new();
    }
    for measured in shown {
        let values = &measured.values;
        let numbers = [values.p50, values.p90, values.p99, values.max];
        let [p50, p90, p99, max] =
            numbers.map(|value| format!("{value:.1} {}", clean(&measured.unit)));
        let name = measured.name.clone();
        table.add_row([name, values.count.to_string(), p50, p90, p99, max]);
    }
    format!("{table}\n\n")
}

fn repetition(options: &Options) -> String {
    let mut text = match (options.until_confidence, options.runs) {
        (Some(claim), runs) if runs > 0 => format!(" until {claim}, at most x {runs}"),
        (Some(claim), _) => format!(" until {claim}"),
        (None, 0) => String::new(),
        (None, runs) => format!(" x {runs}"),
    };
    if let Some(ms) = options.for_ms {
        text.push_str(&format!(" for {}", Span::millis(ms)));
    }
    if let Some(shard) = options.shard {
        text.push_str(&format!(", shard {shard}"));
    }
    text
}

/// Groups of failures that are shown; the reports have them all.
const CAUSES: usize = 8;

/// What failures have in common, when there are several and they have.
fn causes(report: &Report) -> String {
    let groups = &report.causes;
    let failed: u64 = groups.iter().map(|group| group.attempts).sum();
    if failed <= groups.len() as u64 {
        return String::new();
    }
    let mut text = format!("{failed} failed attempts by what they have in common:\n");
    for group in groups.iter().take(CAUSES) {
        text.push_str(&format!(
            "{:>6} x {}{} (such as {} #{})\n",
            group.attempts,
            group
                .class
                .map_or(String::new(), |class| format!("{class}: ")),
            clean(&group.signature.to_string()),
            group.example_case,
            group.example_attempt
        ));
    }
    if groups.len() > CAUSES {
        let more = groups.len() - CAUSES;
        text.push_str(&format!("         and {more} more groups\n"));
    }
    text.push('\n');
    text
}

/// `cluster      41.2 s  create the cluster`.
fn setup_line(setup: &SetupFinished) -> String {
    clean(&format!("cluster  {setup}"))
}

/// `      alone: 3 of 5 failed  udp-endpoint-replaced[ipv6,nodePort]`.
fn experiment(finished: &ExperimentFinished) -> String {
    let ExperimentFinished {
        case,
        experiment,
        attempts,
        failed,
        infra,
        what,
        ..
    } = finished;
    if *attempts == 0 {
        return format!("      {experiment}: {}  {case}", clean(what));
    }
    let infra = match infra {
        0 => String::new(),
        infra => format!(", {infra} infra"),
    };
    format!("      {experiment}: {failed} of {attempts} failed{infra}  {case}")
}

/// Cases that are shown with what experiments say of them; the reports have them all.
const CLASSES: usize = 12;

/// What kind of failure the cases have that experiments were made with.
fn classes(report: &Report) -> String {
    let known = |case: &&CaseResult| !case.experiments.is_empty();
    let mut text = String::new();
    for case in report.cases.iter().filter(known).take(CLASSES) {
        let Some(classification) = &case.classification else {
            continue;
        };
        text.push_str(&format!(
            "{}: {} ({})\n",
            case.id, classification.class, classification.why
        ));
        if let Some(rate) = classification.rate {
            text.push_str(&format!(
                "    fails in {:.2} % of its attempts [{:.2}, {:.2}]\n",
                rate.rate * 100.0,
                rate.low * 100.0,
                rate.high * 100.0
            ));
        }
    }
    let more = report.cases.iter().filter(known).count();
    if more > CLASSES {
        text.push_str(&format!("and {} more\n", more - CLASSES));
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

fn conclusion(conclusion: reports::model::Conclusion) -> &'static str {
    use reports::model::Conclusion;
    match conclusion {
        Conclusion::Conformant => "conformant",
        Conclusion::NotConformant => "not conformant",
        Conclusion::Flaky => "flaky",
        Conclusion::Infra => "infrastructure trouble",
        Conclusion::NothingRan => "nothing ran",
        Conclusion::ShardPassed => "shard passed",
    }
}

/// The reports hold all of a message; the terminal needs its beginning.
const SHOWN: usize = 2_000;

/// Text of a candidate must not steer the terminal, nor fill it.
fn clean(text: &str) -> String {
    let end = text.floor_char_boundary(SHOWN);
    let more = if end < text.len() { " ..." } else { "" };
    let plain: String = text[..end]
        .chars()
        .map(|c| match c {
            '\n' => c,
            // Marks that turn the direction of text make it read as something else.
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                '\u{fffd}'
            }
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect();
    plain.replace('\n', "\n        ") + more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_cannot_steer_the_terminal() {
        assert_eq!(
            clean("a\x1b[2Jb\r\u{202e}c\nd"),
            "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\n        d"
        );
        assert!(clean(&"\u{e9}".repeat(SHOWN)).len() <= SHOWN + 4);
    }
}
