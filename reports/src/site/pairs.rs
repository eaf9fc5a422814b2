//! What two candidates differ in, in both directions.

use super::matrix::{Area, Column, row};
use super::run::Run;
use crate::compare::{Changed, Comparison, p_words};
use crate::history::percent;
use crate::html::Mark;
use crate::html::text::Text;
use crate::model::{CaseVerdict, Rate, Report};

/// Pairs that are compared in advance; the script of the page compares any two.
pub(crate) const MAX_PAIRS: usize = 45;

/// Entries of one list.
const MAX_LIST: usize = 100;

/// Two columns, by their positions.
pub(crate) type Ends = (usize, usize);

/// What is different between two columns.
#[derive(Debug)]
pub(crate) struct Pair {
    pub ends: Ends,
    /// Cases that passed or failed in both.
    pub compared: u64,
    pub catalogues_differ: bool,
    pub rules: Vec<RuleDiffers>,
    pub more_rules: usize,
    /// What is worse in the second than in the first, and the other way round.
    pub worse: [Vec<Part>; 2],
    /// Whether everything takes longer in the second than in the first, and the other way round.
    pub pace: [Option<Text>; 2],
    pub choices: Vec<(Text, [Text; 2])>,
}

/// A rule with two verdicts.
#[derive(Debug)]
pub(crate) struct RuleDiffers {
    pub id: Text,
    pub text: Text,
    pub verdicts: [Option<Mark>; 2],
}

/// Cases in which one side is worse in the same way.
#[derive(Debug)]
pub(crate) struct Part {
    pub title: &'static str,
    pub count: usize,
    pub cases: Vec<(Text, Text)>,
    pub more: usize,
}

/// The pairs to compare: every two if they are few; else versions of a candidate that follow each other, and the newest of different
/// candidates.
pub(crate) fn choose(columns: &[Column], runs: &[Run]) -> Vec<Ends> {
    let count = columns.len();
    let every = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b)));
    if count * count.saturating_sub(1) / 2 <= MAX_PAIRS {
        return every.collect();
    }
    let candidate = |at: usize| runs[columns[at].run].candidate.as_str();
    let newest = |at: usize| (0..at).all(|other| candidate(other) != candidate(at));
    let follows = |a: usize, b: usize| {
        candidate(a) == candidate(b) && (a + 1..b).all(|c| candidate(c) != candidate(a))
    };
    let chosen = every.filter(|(a, b)| follows(*a, *b) || (newest(*a) && newest(*b)));
    chosen.take(MAX_PAIRS).collect()
}

impl Pair {
    /// Compares the runs of two columns.
    pub fn of(
        ends: Ends,
        columns: &[Column],
        runs: &[Run],
        areas: &[Area],
        reports: [&Report; 2],
    ) -> Self {
        let columns = [columns[ends.0].clone(), columns[ends.1].clone()];
        let (a, b) = (&runs[columns[0].run], &runs[columns[1].run]);
        let rules = areas.iter().flat_map(|area| &area.rules);
        let mut rules: Vec<RuleDiffers> = rules
            .filter_map(|rule| {
                let cells = row(&rule.id, &columns, runs);
                let said = [0, 1].map(|at| cells[at].filter(|cell| !cell.is_idle()));
                let verdicts = said.map(|cell| cell.map(|cell| cell.verdict));
                (verdicts[0] != verdicts[1]).then(|| RuleDiffers {
                    id: Text::new(&rule.id),
                    text: Text::short(&rule.text, 300),
                    verdicts: verdicts.map(|verdict| verdict.map(Mark::from)),
                })
            })
            .collect();
        let more_rules = rules.len().saturating_sub(MAX_LIST);
        rules.truncate(MAX_LIST);
        let there = Comparison::of(reports[0], reports[1]);
        let back = Comparison::of(reports[1], reports[0]);
        let mut ids: Vec<&String> = a.choices.keys().chain(b.choices.keys()).collect();
        ids.sort();
        ids.dedup();
        let choices = ids.into_iter().filter_map(|id| {
            let said = [a, b].map(|run| run.choices.get(id).map(|values| values.join(", ")));
            (said[0] != said[1]).then(|| {
                let words =
                    said.map(|said| Text::short(said.as_deref().unwrap_or("not seen"), 200));
                (Text::new(id), words)
            })
        });
        Self {
            ends,
            compared: there.compared,
            catalogues_differ: a.catalogue != b.catalogue,
            rules,
            more_rules,
            choices: choices.take(MAX_LIST).collect(),
            worse: [parts(&there), parts(&back)],
            pace: [&there, &back].map(|found| found.pace_words().as_deref().map(Text::new)),
        }
    }

    /// Whether nothing differs.
    pub fn is_same(&self) -> bool {
        self.rules.is_empty() && self.worse.iter().all(Vec::is_empty) && self.choices.is_empty()
    }
}

/// How many cases there are, and the first of them with what is said of each.
type Lines = (usize, Vec<(Text, Text)>);

fn parts(found: &Comparison) -> Vec<Part> {
    let changed = |cases: &[Changed]| {
        let line = |case: &Changed| (Text::new(&case.case), changed_words(case));
        (cases.len(), cases.iter().take(MAX_LIST).map(line).collect())
    };
    let slower = found.slower.iter().take(MAX_LIST).map(|case| {
        let words = format!(
            "median {:.1} ms, against {:.1} ms; later in {:.0} % of pairs, p {}",
            case.new_ms,
            case.base_ms,
            case.superiority * 100.0,
            p_words(case.p)
        );
        (Text::new(&case.case), Text::new(&words))
    });
    let gone = found.newly_skipped.iter().take(MAX_LIST).map(|case| {
        let words = format!("{}; {} in the other", case.reason, case.was);
        (Text::new(&case.case), Text::short(&words, 300))
    });
    let parts: [(&str, Lines); 5] = [
        ("Fails, and not in the other", changed(&found.new_failures)),
        ("Fails more often", changed(&found.flakier)),
        ("Converges later", (found.slower.len(), slower.collect())),
        (
            "Not tried, and tried in the other",
            (found.newly_skipped.len(), gone.collect()),
        ),
        (
            "Fails more often, perhaps by chance",
            changed(&found.maybe_flakier),
        ),
    ];
    parts
        .into_iter()
        .filter(|(_, (count, _))| *count > 0)
        .map(|(title, (count, cases))| Part {
            title,
            count,
            more: count - cases.len(),
            cases,
        })
        .collect()
}

fn changed_words(case: &Changed) -> Text {
    let base = case.base.map_or("not tried".to_owned(), rate_words);
    let mut words = format!("{}, against {base}", rate_words(case.new));
    if let Some(p) = case.p {
        words.push_str(&format!("; p {}", p_words(p)));
    }
    if let Some(example) = &case.example {
        words.push_str(&format!("; {example}"));
    }
    Text::short(&words, 400)
}

/// `3 of 20 failed, 15 % [3.2 %, 38 %]`.
pub(crate) fn rate_words(rate: Rate) -> String {
    format!(
        "{} of {} failed, {} [{}, {}]",
        rate.failed,
        rate.of,
        percent(rate.rate),
        percent(rate.low),
        percent(rate.high)
    )
}

/// How a verdict is written where a rule may not be in the catalogue at all.
pub(crate) fn verdict_word(verdict: Option<CaseVerdict>) -> &'static str {
    verdict.map_or("", CaseVerdict::as_str)
}
