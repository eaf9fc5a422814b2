//! A comparison as text for a terminal and as Markdown for a pull request.

use std::fmt::Write as _;

use super::{Changed, Comparison, Gone, Side, Slower};
use crate::markdown::{code, prose};
use crate::model::Rate;
use crate::text::one_line;

/// Cases that are shown per part; JSON has them all.
const SHOWN: usize = 50;

/// A pace that is worth a word.
const NOTABLE_PACE: f64 = 1.25;

/// What a part of the comparison says.
struct Part {
    title: &'static str,
    /// A line per case: its id, and what is said of it.
    lines: Vec<(String, String)>,
}

impl Comparison {
    /// For a terminal.
    pub fn text(&self) -> String {
        let mut text = format!("{} against {}\n", name(&self.new), name(&self.base));
        for part in self.parts() {
            let _ = write!(text, "\n{} ({})\n", part.title, part.lines.len());
            for (case, words) in part.lines.iter().take(SHOWN) {
                let _ = writeln!(text, "  {}: {}", one_line(case), one_line(words));
            }
            if part.lines.len() > SHOWN {
                let _ = writeln!(text, "  ... and {} more", part.lines.len() - SHOWN);
            }
        }
        text.push('\n');
        for problem in self.problems() {
            let _ = writeln!(text, "{}", one_line(&problem));
        }
        let _ = writeln!(text, "{}", self.verdict());
        text
    }

    /// For a pull request.
    pub fn markdown(&self) -> String {
        let mark = match (self.is_worse(), self.is_incomplete()) {
            (true, _) => "❌",
            (false, true) => "⚠️",
            (false, false) => "✅",
        };
        let mut text = format!(
            "# {mark} {}\n\n{} against {}.\n",
            self.verdict(),
            prose(&name(&self.new)),
            prose(&name(&self.base))
        );
        for problem in self.problems() {
            let _ = write!(text, "\n{}\n", prose(&problem));
        }
        for part in self.parts() {
            let _ = write!(text, "\n## {} ({})\n\n", part.title, part.lines.len());
            for (case, words) in part.lines.iter().take(SHOWN) {
                let _ = writeln!(text, "- {}: {}", code(case), prose(words));
            }
            if part.lines.len() > SHOWN {
                let _ = writeln!(text, "- … and {} more", part.lines.len() - SHOWN);
            }
        }
        text
    }

    /// Whether everything takes longer than before, in words.
    pub(crate) fn pace_words(&self) -> Option<String> {
        (self.pace >= NOTABLE_PACE).then(|| {
            format!(
                "all cases together take {:.1} times as long, by a slower machine or a slower proxy; a case counts as slower beyond that",
                self.pace
            )
        })
    }

    fn verdict(&self) -> String {
        let compared = self.compared;
        match self.is_worse() {
            true => format!("Worse than before ({compared} cases compared)"),
            false if compared == 0 => "Nothing to compare".to_owned(),
            false => format!("Nothing is worse ({compared} cases compared)"),
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.base.catalogue != self.new.catalogue {
            all.push("the catalogues differ: a case may have changed".to_owned());
        }
        all.extend(self.pace_words());
        for (which, side) in [("earlier", &self.base), ("new", &self.new)] {
            for problem in &side.problems {
                all.push(format!("the {which} run is incomplete: {problem}"));
            }
        }
        all
    }

    fn parts(&self) -> Vec<Part> {
        let changed = |cases: &[Changed]| cases.iter().map(changed).collect();
        let parts = [
            ("New failures", changed(&self.new_failures)),
            ("Flakier", changed(&self.flakier)),
            ("Slower", self.slower.iter().map(slower).collect()),
            (
                "Not tried any more",
                self.newly_skipped.iter().map(gone).collect(),
            ),
            ("Flakier, perhaps by chance", changed(&self.maybe_flakier)),
            ("Fixed", changed(&self.fixed)),
        ];
        parts
            .into_iter()
            .map(|(title, lines): (_, Vec<_>)| Part { title, lines })
            .filter(|part| !part.lines.is_empty())
            .collect()
    }
}

fn name(side: &Side) -> String {
    let version = side
        .version
        .as_ref()
        .map(|v| format!(" {v}"))
        .unwrap_or_default();
    one_line(&format!("{}{version} ({})", side.candidate, side.run_id))
}

fn changed(case: &Changed) -> (String, String) {
    let was = case.base.map_or("not tried".to_owned(), rate);
    let mut words = format!("{was} -> {}", rate(case.new));
    if let Some(p) = case.p {
        let _ = write!(words, ", p {}", p_words(p));
    }
    if let Some(example) = &case.example {
        let _ = write!(words, "; {example}");
    }
    (case.case.clone(), words)
}

fn slower(case: &Slower) -> (String, String) {
    let words = format!(
        "median {:.1} ms -> {:.1} ms, slower in {:.0} % of pairs, p {}",
        case.base_ms,
        case.new_ms,
        case.superiority * 100.0,
        p_words(case.p)
    );
    (case.case.clone(), words)
}

fn gone(case: &Gone) -> (String, String) {
    (
        case.case.clone(),
        format!("was {}, now: {}", case.was, case.reason),
    )
}

fn rate(rate: Rate) -> String {
    format!("{}/{} failed", rate.failed, rate.of)
}

pub(crate) fn p_words(p: f64) -> String {
    if p >= 0.001 {
        format!("{p:.3}")
    } else {
        format!("{p:.0e}")
    }
}
