//! A gate's answer as text for a terminal and as Markdown for a pull request.

use std::fmt::Write as _;

use super::{Finding, Gate, GateVerdict};
use crate::markdown::{code, prose};
use crate::text::one_line;

/// Findings and cases that are shown per part; JSON has them all.
const SHOWN: usize = 50;

impl Gate {
    /// For a terminal.
    pub fn text(&self) -> String {
        let mut text = format!("{}: {}\n", self.verdict.title(), one_line(&self.subject()));
        for finding in self.findings.iter().take(SHOWN) {
            let _ = writeln!(text, "  {:11}  {}", finding.rule.as_str(), line(finding));
        }
        more(&mut text, "  ", self.findings.len());
        if !self.tolerated.is_empty() {
            let _ = writeln!(text, "let through, failing ({}):", self.tolerated.len());
            for case in self.tolerated.iter().take(SHOWN) {
                let (id, why) = (one_line(&case.case), one_line(&case.why));
                let _ = writeln!(text, "  {}  {id}: {why}", case.verdict);
            }
            more(&mut text, "  ", self.tolerated.len());
        }
        if let Some(note) = self.pace() {
            let _ = writeln!(text, "{note}");
        }
        let _ = writeln!(text, "{}", self.counts());
        text
    }

    /// For a pull request.
    pub fn markdown(&self) -> String {
        let mark = match self.verdict {
            GateVerdict::Open => "✅",
            GateVerdict::Closed | GateVerdict::Flaky => "❌",
            GateVerdict::Infra | GateVerdict::TooFew => "⚠️",
        };
        let mut text = format!(
            "# {mark} {}\n\n{}. {}.\n",
            self.verdict.title(),
            prose(&self.subject()),
            self.counts()
        );
        if let Some(note) = self.pace() {
            let _ = write!(text, "\n{note}.\n");
        }
        if !self.findings.is_empty() {
            text.push('\n');
        }
        for finding in self.findings.iter().take(SHOWN) {
            let case = match &finding.case {
                Some(case) => format!("{}: ", code(case)),
                None => String::new(),
            };
            let (rule, message) = (finding.rule.as_str(), prose(&finding.message));
            let _ = writeln!(text, "- **{rule}** {case}{message}");
        }
        more(&mut text, "- ", self.findings.len());
        if !self.tolerated.is_empty() {
            let _ = write!(
                text,
                "\n<details><summary>Let through, failing ({})</summary>\n\n",
                self.tolerated.len()
            );
            for case in self.tolerated.iter().take(SHOWN) {
                let (verdict, why) = (case.verdict, prose(&case.why));
                let _ = writeln!(text, "- {} ({verdict}): {why}", code(&case.case));
            }
            more(&mut text, "- ", self.tolerated.len());
            text.push_str("\n</details>\n");
        }
        text
    }

    /// Whether everything takes longer than in the baseline.
    fn pace(&self) -> Option<String> {
        let comparison = self.comparison.as_ref()?;
        let words = comparison.pace_words();
        words.map(|words| format!("against the baseline {words}"))
    }

    fn subject(&self) -> String {
        let version = self.version.as_ref().map(|v| format!(" {v}"));
        let name = format!("{}{}", self.candidate, version.unwrap_or_default());
        match &self.baseline {
            Some(baseline) => format!("{name} ({}) against {baseline}", self.run_id),
            None => format!("{name} ({})", self.run_id),
        }
    }

    fn counts(&self) -> String {
        format!(
            "{} cases executed (at least {}), {} skipped (at most {}), {} required",
            self.executed, self.min_cases, self.skipped, self.skip_budget, self.required
        )
    }
}

fn line(finding: &Finding) -> String {
    let message = one_line(&finding.message);
    match &finding.case {
        Some(case) => format!("{}: {message}", one_line(case)),
        None => message,
    }
}

fn more(text: &mut String, lead: &str, all: usize) {
    if all > SHOWN {
        let _ = writeln!(text, "{lead}... and {} more", all - SHOWN);
    }
}
