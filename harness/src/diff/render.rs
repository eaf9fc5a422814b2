//! A difference as text and Markdown.

use std::fmt::Write as _;

use reports::{
    event::CandidateInfo,
    model::CaseVerdict,
    text::{one_line, shortened},
};

use super::{Convergence, Difference};

/// Messages hold whole matrices; a comparison needs their beginning.
const SHOWN: usize = 160;
/// Cases named per requirement; the rest are counted. The JSON has all.
const CASES: usize = 12;

impl Difference {
    /// For a terminal.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.title());
        let _ = writeln!(text, "  {}", self.summary());
        for caveat in &self.caveats {
            let _ = writeln!(text, "  note: {caveat}");
        }
        if !self.requirements.is_empty() {
            text.push_str("\nRequirements\n");
        }
        for requirement in &self.requirements {
            let _ = writeln!(
                text,
                "  {} ({}, {}): {} -> {}\n    {}",
                requirement.id,
                requirement.area,
                requirement.level,
                requirement.against,
                requirement.candidate,
                requirement.text
            );
            for case in requirement.cases.iter().take(CASES) {
                let _ = writeln!(
                    text,
                    "    {} -> {}  {}",
                    case.against, case.candidate, case.id
                );
                if let Some(message) = &case.message {
                    let _ = writeln!(text, "        {}", short(message));
                }
            }
            if requirement.cases.len() > CASES {
                let _ = writeln!(text, "    and {} more", requirement.cases.len() - CASES);
            }
        }
        if !self.characteristics.is_empty() {
            text.push_str("\nCharacteristics: choices that every specification leaves open\n");
        }
        for choice in &self.characteristics {
            let _ = writeln!(
                text,
                "  {}: {} -> {}\n    {}",
                choice.id,
                one_line(&choice.against.join(", ")),
                one_line(&choice.candidate.join(", ")),
                short(&choice.text)
            );
        }
        if !self.convergence.is_empty() {
            let (against, candidate) = (name(&self.against), name(&self.candidate));
            let (first, second) = (against.len().max(9), candidate.len().max(9));
            let _ = writeln!(
                text,
                "\nConvergence, median over the cases of an area\n  {:<15} {:>5}  {against:>first$}  {candidate:>second$}",
                "", "cases"
            );
            for row in &self.convergence {
                let _ = writeln!(
                    text,
                    "  {:<15} {:>5}  {:>first$}  {:>second$}  {}",
                    row.area,
                    row.cases,
                    ms(row.against_ms),
                    ms(row.candidate_ms),
                    factor(row)
                );
            }
        }
        if !self.not_compared.is_empty() {
            text.push_str("\nNot compared\n");
        }
        for case in &self.not_compared {
            let _ = writeln!(
                text,
                "  {} -> {}  {}",
                word(case.against),
                word(case.candidate),
                case.id
            );
        }
        text
    }

    /// For a pull request.
    pub fn markdown(&self) -> String {
        let mut text = format!("# {}\n\n{}\n", code_free(&self.title()), self.summary());
        for caveat in &self.caveats {
            let _ = writeln!(text, "\n> {caveat}");
        }
        if !self.requirements.is_empty() {
            text.push_str("\n## Requirements\n");
        }
        for requirement in &self.requirements {
            let _ = writeln!(
                text,
                "\n### {} ({}, {}): {} → {}\n\n{}\n",
                requirement.id,
                requirement.area,
                requirement.level,
                requirement.against,
                requirement.candidate,
                code_free(&requirement.text)
            );
            for case in requirement.cases.iter().take(CASES) {
                let _ = write!(
                    text,
                    "- {} → {} `{}`",
                    case.against, case.candidate, case.id
                );
                if let Some(message) = &case.message {
                    let _ = write!(text, ": {}", code_free(&short(message)));
                }
                text.push('\n');
            }
            if requirement.cases.len() > CASES {
                let _ = writeln!(text, "- and {} more", requirement.cases.len() - CASES);
            }
        }
        if !self.characteristics.is_empty() {
            text.push_str("\n## Characteristics\n\n| Choice | Before | After |\n|---|---|---|\n");
        }
        for choice in &self.characteristics {
            let _ = writeln!(
                text,
                "| {}: {} | {} | {} |",
                choice.id,
                code_free(&short(&choice.text)),
                code_free(&one_line(&choice.against.join(", "))),
                code_free(&one_line(&choice.candidate.join(", ")))
            );
        }
        if !self.convergence.is_empty() {
            let _ = writeln!(
                text,
                "\n## Convergence\n\nMedian over the cases of an area.\n\n| Area | Cases | {} | {} |\n|---|--:|--:|--:|",
                code_free(&name(&self.against)),
                code_free(&name(&self.candidate))
            );
        }
        for row in &self.convergence {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} |",
                row.area,
                row.cases,
                ms(row.against_ms),
                ms(row.candidate_ms)
            );
        }
        if !self.not_compared.is_empty() {
            text.push_str("\n## Not compared\n\n");
        }
        for case in &self.not_compared {
            let _ = writeln!(
                text,
                "- {} → {} `{}`",
                word(case.against),
                word(case.candidate),
                case.id
            );
        }
        text
    }

    fn title(&self) -> String {
        format!(
            "What changes when {} takes the place of {}",
            name(&self.candidate),
            name(&self.against)
        )
    }

    fn summary(&self) -> String {
        let verdicts = match self.differing {
            0 => format!("none of {} cases differs", self.compared),
            1 => format!("1 of {} cases differs", self.compared),
            many => format!("{many} of {} cases differ", self.compared),
        };
        let choices = match self.characteristics.len() {
            0 => "no choice is made differently".to_owned(),
            1 => "1 choice is made differently".to_owned(),
            many => format!("{many} choices are made differently"),
        };
        let rest = match self.not_compared.len() {
            0 => String::new(),
            1 => "; 1 case could not be compared".to_owned(),
            many => format!("; {many} cases could not be compared"),
        };
        format!("{verdicts}, {choices}{rest}")
    }
}

/// Name and version of a candidate.
fn name(candidate: &CandidateInfo) -> String {
    let version = candidate
        .version
        .as_ref()
        .map_or(String::new(), |version| format!(" {version}"));
    one_line(&format!("{}{version}", candidate.name))
}

fn word(verdict: Option<CaseVerdict>) -> &'static str {
    verdict.map_or("absent", CaseVerdict::as_str)
}

fn short(text: &str) -> String {
    shortened(&one_line(text), SHOWN)
}

/// Text of a candidate must be nothing but text.
fn code_free(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '<' | '*' | '_' | '[' | ']' | '`' | '\\' | '|') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn ms(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.1} ms"),
        value if value < 10_000.0 => format!("{value:.0} ms"),
        value => format!("{:.0} s", value / 1e3),
    }
}

/// How many times longer or shorter, where it is worth a word.
fn factor(row: &Convergence) -> String {
    let (before, after) = (row.against_ms.max(0.1), row.candidate_ms.max(0.1));
    if after >= 2.0 * before {
        format!("{:.0} x slower", after / before)
    } else if before >= 2.0 * after {
        format!("{:.0} x faster", before / after)
    } else {
        String::new()
    }
}
