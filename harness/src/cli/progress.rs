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
    event::{AttemptFinished, EventBody, RunStarted, Verdict},
    model::Report,
};

use super::certify::by_area;

/// How many running cases the bar names.
const NAMED: usize = 3;

/// Shows a run.
pub struct Progress {
    bar: ProgressBar,
    color: bool,
    terminal: bool,
    runs: u32,
    running: BTreeSet<String>,
    started: Instant,
    counts: BTreeMap<Verdict, u32>,
    skips: BTreeMap<String, u32>,
}

impl Progress {
    /// Shows the head of the run.
    pub fn new(run: &RunStarted, attempts: usize, color: bool) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let bar = ProgressBar::new(attempts as u64);
        bar.set_draw_target(if terminal {
            ProgressDrawTarget::stdout()
        } else {
            ProgressDrawTarget::hidden()
        });
        let template = if color {
            "{elapsed_precise} [{bar:30.cyan/blue}] {pos}/{len} {msg:.dim}"
        } else {
            "{elapsed_precise} [{bar:30}] {pos}/{len} {msg}"
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
            runs: run.options.runs,
            running: BTreeSet::new(),
            started: Instant::now(),
            counts: BTreeMap::new(),
            skips: BTreeMap::new(),
        };
        progress.line(&format!(
            "certify {} with {} cases x {} (profile {}, provider {}, {} at a time, seed {})",
            clean(&run.candidate.name),
            run.cases.len(),
            run.options.runs,
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

    /// Shows an event.
    pub fn event(&mut self, body: &EventBody) {
        match body {
            EventBody::AttemptStarted { case, .. } => {
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
                self.line(&self.status(finished));
                self.bar.inc(1);
                self.message();
            }
            _ => {}
        }
    }

    fn message(&self) {
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
        let attempt = if self.runs > 1 {
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

    /// The bar goes away.
    pub fn finish(&mut self) {
        self.bar.finish_and_clear();
    }

    /// The table per requirement area, the verdict, and where the reports are.
    pub fn summary(&self, report: &Report, files: &[PathBuf], flake_budget: u32) {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header(["area", "pass", "fail", "other"]);
        for (area, (pass, fail, other)) in by_area(report) {
            table.add_row([area, pass.to_string(), fail.to_string(), other.to_string()]);
        }
        let count = |verdict: Verdict| self.counts.get(&verdict).copied().unwrap_or(0);
        let mut text = format!("\n{table}\n\n");
        text.push_str(&causes(report));
        for (reason, times) in &self.skips {
            text.push_str(&format!("skipped {times} x {reason}\n"));
        }
        text.push_str(&format!(
            "{}: {} attempts passed, {} failed, {} infra, {} skipped in {:.1} s\n",
            conclusion(report.conclude(flake_budget)),
            count(Verdict::Pass),
            count(Verdict::Fail),
            count(Verdict::Infra),
            count(Verdict::Skip),
            self.started.elapsed().as_secs_f64()
        ));
        for file in files {
            text.push_str(&format!("  {}\n", file.display()));
        }
        super::print(&text);
    }
}

/// Groups of failures that are shown; the reports have them all.
const CAUSES: usize = 8;

/// What failures have in common, when there are several and they have.
fn causes(report: &Report) -> String {
    let groups = &report.failure_groups;
    let failed: u64 = groups.iter().map(|group| group.attempts).sum();
    if failed <= groups.len() as u64 {
        return String::new();
    }
    let mut text = format!("{failed} failed attempts by what they have in common:\n");
    for group in groups.iter().take(CAUSES) {
        text.push_str(&format!(
            "{:>6} x {} (such as {} #{})\n",
            group.attempts,
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

fn conclusion(conclusion: reports::model::Conclusion) -> &'static str {
    use reports::model::Conclusion;
    match conclusion {
        Conclusion::Conformant => "conformant",
        Conclusion::NotConformant => "not conformant",
        Conclusion::Flaky => "flaky",
        Conclusion::Infra => "infrastructure trouble",
        Conclusion::NothingRan => "nothing ran",
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
