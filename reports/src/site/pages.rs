//! The pages of a site. Style, marks and texts are those of `report.html`.

use std::collections::HashMap;

use askama::Template;

use super::data;
use super::matrix::{self, Area, Column};
use super::pairs::{Pair, Part};
use super::run::{Cell, Run, Signed, slug, words};
use super::trends::Trends;
use crate::history::{CandidateTrend, minute};
use crate::html::areas::occurring;
use crate::html::head::looks;
use crate::html::text::{Text, plural};
use crate::html::{Mark, STYLE, digest};
use crate::model::Conclusion;

const SITE_STYLE: &str = include_str!("../../templates/site/site.css");
const INDEX_SCRIPT: &str = include_str!("../../templates/site/index.js");
const COMPARE_SCRIPT: &str = include_str!("../../templates/site/compare.js");

/// Entries of a list of limits or skips.
const MAX_LIST: usize = 50;

/// Everything that a site shows.
#[derive(Debug)]
pub(crate) struct Site {
    pub title: String,
    /// By their start, the oldest first.
    pub runs: Vec<Run>,
    pub columns: Vec<Column>,
    /// Versions without a column.
    pub left_out: usize,
    pub areas: Vec<Area>,
    pub pairs: Vec<Pair>,
    /// By the name of the candidate.
    pub trends: Vec<CandidateTrend>,
}

/// What all pages begin with.
struct Frame {
    site: Text,
    style: String,
    style_digest: String,
    script: &'static str,
    script_digest: String,
}

impl Frame {
    fn new(site: &Site, script: &'static str) -> Self {
        let style = format!("{STYLE}{SITE_STYLE}");
        Self {
            site: Text::new(&site.title),
            style_digest: digest(&style),
            style,
            script,
            script_digest: digest(script),
        }
    }
}

/// A run as all pages show it.
struct RunView {
    slug: String,
    place: String,
    candidate: Text,
    page: String,
    version: Text,
    url: Option<Text>,
    day: Text,
    started: Text,
    profile: Text,
    id: Text,
    title: &'static str,
    mark: Mark,
    tone: &'static str,
    limits: Vec<(&'static str, Text)>,
    signed: SignedView,
    cases: String,
    took: String,
    attempts: u64,
    suite: Text,
    catalogue: Text,
    kernel: Text,
    provider: Text,
    levels: Vec<LevelView>,
    skips: Vec<(Text, u64)>,
    waived: Option<Text>,
    waivers: Vec<(Text, &'static str, Text)>,
}

struct SignedView {
    kind: &'static str,
    short: &'static str,
    words: Text,
}

struct LevelView {
    name: Text,
    mark: Mark,
    says: &'static str,
    passed: u64,
    of: u64,
    skipped: u64,
    supported: Vec<Text>,
}

impl RunView {
    fn of(run: &Run) -> Self {
        let whole = run.is_whole();
        let (tone, glyph) = looks(run.conclusion, !whole);
        let title = match run.conclusion {
            Conclusion::Conformant
                if run.limits.iter().all(|limit| limit.title == "No canaries") && !whole =>
            {
                "Passes, without canaries"
            }
            Conclusion::Conformant if !whole => "A part of it passes",
            conclusion => conclusion.title(),
        };
        // The words that have a colour.
        let word = match run.conclusion {
            Conclusion::Conformant if !whole => "undecided",
            Conclusion::Conformant => "pass",
            Conclusion::NotConformant => "fail",
            Conclusion::Flaky => "flaky",
            Conclusion::Infra => "infra",
            Conclusion::NothingRan => "skip",
            Conclusion::ShardPassed => "undecided",
        };
        let level = |level: &super::run::Level| LevelView {
            name: Text::new(&level.name),
            mark: level.verdict.into(),
            says: match (level.reached, whole) {
                (true, _) => "conformant",
                (false, true) => "not reached",
                (false, false) => "not shown by this run",
            },
            passed: level.cases.pass,
            of: level.cases.total,
            skipped: level.cases.skip,
            // What everybody has to have is no list of features.
            supported: match level.name.as_str() {
                "core" => Vec::new(),
                _ => level.supported.iter().map(|area| Text::new(area)).collect(),
            },
        };
        let limits = run.limits.iter().take(MAX_LIST);
        let mut limits: Vec<(&'static str, Text)> = limits
            .map(|limit| (limit.title, Text::short(&limit.text, 300)))
            .collect();
        let more = run.limits.len() - limits.len();
        if more > 0 {
            limits.push((
                "Incomplete",
                Text::new(&format!("and {more} more problems")),
            ));
        }
        let waivers = run
            .waivers
            .iter()
            .take(MAX_LIST)
            .map(|(about, state, words)| {
                (Text::short(about, 200), *state, Text::short(words, 400))
            });
        let skips = run.skips.iter().take(MAX_LIST);
        Self {
            slug: run.slug.clone(),
            place: run.place(),
            candidate: Text::new(&run.candidate),
            page: page_name(&run.candidate),
            version: Text::new(&run.version),
            url: run.url.as_deref().map(Text::new),
            day: run.day(),
            started: Text::new(&minute(&run.started)),
            profile: run.profile(),
            id: Text::new(&run.id),
            title,
            mark: Mark { word, glyph },
            tone,
            limits,
            signed: signed(&run.signed),
            cases: words(&run.cases),
            took: run.took.clone(),
            attempts: run.attempts.total,
            suite: Text::new(&run.suite),
            catalogue: Text::short(&run.catalogue, 26),
            kernel: Text::new(&run.kernel),
            provider: Text::new(&run.provider),
            levels: run.levels.iter().map(level).collect(),
            skips: skips
                .map(|(why, count)| (Text::short(why, 300), *count))
                .collect(),
            waived: run.waived.as_deref().map(Text::new),
            waivers: waivers.collect(),
        }
    }
}

fn signed(signed: &Signed) -> SignedView {
    let view = |kind, short, words: &str| SignedView {
        kind,
        short,
        words: Text::short(words, 400),
    };
    match signed {
        Signed::No => view(
            "unsigned",
            "unsigned",
            "nobody signed it: nothing shows who made it, nor that nobody changed it",
        ),
        Signed::Broken { why } => view(
            "broken",
            "signature broken",
            &format!("its signature does not hold: {why}"),
        ),
        Signed::Yes { key, name, known } => {
            let name = name.as_ref().map(|name| format!(", who goes by {name:?}"));
            let name = name.unwrap_or_default();
            match known {
                true => view(
                    "signed",
                    "signed",
                    &format!("signed by {key}{name}, a key that this site was told to trust"),
                ),
                false => view(
                    "unknown",
                    "signed, key unknown",
                    &format!(
                        "signed by {key}{name}: nothing was changed since, and this site was not told whose key that is"
                    ),
                ),
            }
        }
    }
}

/// The file of a candidate's page.
pub(crate) fn page_name(candidate: &str) -> String {
    format!("candidates/{}.html", slug(candidate))
}

/// A cell of the matrix.
struct CellView {
    mark: Mark,
    /// What a pass alone does not say.
    more: String,
}

impl CellView {
    fn of(cell: &Cell) -> Self {
        let occurring = occurring(&cell.cases);
        let plain = match occurring.as_slice() {
            [] => true,
            [(mark, _)] => mark.word == cell.verdict.as_str(),
            _ => false,
        };
        let words = occurring
            .iter()
            .map(|(mark, count)| format!("{count} {}", mark.word));
        let mut words: Vec<String> = match plain {
            true => Vec::new(),
            false => words.collect(),
        };
        if cell.waived > 0 {
            words.push(format!("{} waived", cell.waived));
        }
        Self {
            mark: cell.verdict.into(),
            more: words.join(", "),
        }
    }
}

struct AreaView {
    name: Text,
    cells: Vec<Option<CellView>>,
    rows: Vec<RowView>,
}

struct RowView {
    id: Text,
    level: Text,
    text: Text,
    source: Text,
    cells: Vec<Option<CellView>>,
    differs: bool,
    trouble: bool,
}

struct ColumnView {
    run: RunView,
    newer: Vec<RunView>,
}

#[derive(Template)]
#[template(path = "site/index.html", whitespace = "minimize")]
struct Index {
    frame: Frame,
    summary: String,
    columns: Vec<ColumnView>,
    left_out: usize,
    areas: Vec<AreaView>,
    idle: Vec<RowView>,
    rules: usize,
    /// Candidates of which only the history has runs: page, name.
    others: Vec<(String, Text)>,
}

#[derive(Template)]
#[template(path = "site/candidate.html", whitespace = "minimize")]
struct Candidate {
    frame: Frame,
    name: Text,
    newest: Option<RunView>,
    runs: Vec<HistoryRow>,
    trends: Trends,
    pooled: usize,
}

/// A run in the table of a candidate.
struct HistoryRow {
    when: String,
    version: Text,
    conclusion: Text,
    complete: bool,
    passed: u64,
    failed: u64,
    infra: u64,
    suite: Text,
    run: Option<RunView>,
}

struct PairView<'a> {
    id: String,
    names: [Text; 2],
    /// In what each of the two is worse than the other.
    worse: [(Text, &'a [Part], Option<&'a Text>); 2],
    runs: [&'a RunView; 2],
    pair: &'a Pair,
}

#[derive(Template)]
#[template(path = "site/compare.html", whitespace = "minimize")]
struct Compare<'a> {
    frame: Frame,
    columns: &'a [RunView],
    pairs: Vec<PairView<'a>>,
    all: usize,
    data: String,
}

impl Site {
    /// All pages: the name of the file, and what is in it.
    pub fn pages(&self) -> Vec<(String, String)> {
        let mut pages = vec![("index.html".to_owned(), self.index())];
        for trend in &self.trends {
            pages.push((page_name(&trend.candidate), self.candidate(trend)));
        }
        pages.push(("compare.html".to_owned(), self.compare()));
        pages
    }

    /// The names of the pages.
    pub fn page_names(trends: &[CandidateTrend]) -> impl Iterator<Item = String> {
        let candidates = trends.iter().map(|trend| page_name(&trend.candidate));
        ["index.html".to_owned(), "compare.html".to_owned()]
            .into_iter()
            .chain(candidates)
    }

    fn index(&self) -> String {
        let mut idle = Vec::new();
        let mut areas = Vec::new();
        let mut rules = 0;
        for area in &self.areas {
            let mut rows = Vec::new();
            for rule in &area.rules {
                let cells = matrix::row(&rule.id, &self.columns, &self.runs);
                let view = |cell: &Option<Cell>| cell.as_ref().map(CellView::of);
                let row = RowView {
                    id: Text::new(&rule.id),
                    level: Text::new(&rule.level),
                    text: Text::short(&rule.text, 1_000),
                    source: Text::short(&rule.source, 300),
                    cells: cells.iter().map(view).collect(),
                    differs: matrix::differs(&cells),
                    trouble: matrix::has_trouble(&cells),
                };
                match matrix::is_idle(&cells) {
                    true => idle.push(row),
                    false => rows.push(row),
                }
            }
            let cells = matrix::area_row(&area.name, &self.columns, &self.runs);
            if rows.is_empty() && matrix::is_idle(&cells) {
                continue;
            }
            rules += rows.len();
            areas.push(AreaView {
                name: Text::new(&area.name),
                cells: cells
                    .iter()
                    .map(|cell| cell.as_ref().map(CellView::of))
                    .collect(),
                rows,
            });
        }
        let without_runs = |trend: &&CandidateTrend| {
            let has = |run: &Run| run.candidate == trend.candidate;
            !self.runs.iter().any(has)
        };
        let others = self.trends.iter().filter(without_runs);
        let view = |at: &usize| RunView::of(&self.runs[*at]);
        let page = Index {
            frame: Frame::new(self, INDEX_SCRIPT),
            summary: self.summary(),
            columns: self
                .columns
                .iter()
                .map(|column| ColumnView {
                    run: view(&column.run),
                    newer: column.newer.iter().map(view).collect(),
                })
                .collect(),
            left_out: self.left_out,
            areas,
            idle,
            rules,
            others: others
                .map(|trend| (page_name(&trend.candidate), Text::new(&trend.candidate)))
                .collect(),
        };
        page.render().expect("texts and numbers are always written")
    }

    fn summary(&self) -> String {
        let mut names: Vec<&str> = self.runs.iter().map(|run| run.candidate.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let newest = self.runs.last().map(Run::day);
        format!(
            "{} of {}; the newest is of {}.",
            plural(self.runs.len() as u64, "run"),
            plural(names.len() as u64, "candidate"),
            newest.map_or_else(String::new, |day| day.to_string())
        )
    }

    fn candidate(&self, trend: &CandidateTrend) -> String {
        let by_id: HashMap<&str, &Run> =
            self.runs.iter().map(|run| (run.id.as_str(), run)).collect();
        let runs = trend.runs.iter().rev().map(|row| HistoryRow {
            when: minute(&row.started),
            version: Text::new(&row.version),
            conclusion: Text::new(&row.conclusion),
            complete: row.complete,
            passed: row.passed,
            failed: row.failed,
            infra: row.infra,
            suite: Text::new(&row.suite),
            run: by_id.get(row.run_id.as_str()).map(|run| RunView::of(run)),
        });
        let own = |column: &&Column| self.runs[column.run].candidate == trend.candidate;
        let newest = self.columns.iter().find(own);
        let page = Candidate {
            frame: Frame::new(self, ""),
            name: Text::new(&trend.candidate),
            newest: newest.map(|column| RunView::of(&self.runs[column.run])),
            runs: runs.collect(),
            trends: Trends::of(trend),
            pooled: trend.runs.len(),
        };
        page.render().expect("texts and numbers are always written")
    }

    fn compare(&self) -> String {
        let columns: Vec<RunView> = self
            .columns
            .iter()
            .map(|column| RunView::of(&self.runs[column.run]))
            .collect();
        let name = |at: usize| {
            let run = &self.runs[self.columns[at].run];
            Text::new(&format!("{} {}", run.candidate, run.version))
        };
        let pairs = self.pairs.iter().map(|pair| {
            let (a, b) = pair.ends;
            PairView {
                id: format!("{}..{}", columns[a].slug, columns[b].slug),
                names: [name(a), name(b)],
                worse: [(b, 0), (a, 1)]
                    .map(|(end, at)| (name(end), &pair.worse[at][..], pair.pace[at].as_ref())),
                runs: [&columns[a], &columns[b]],
                pair,
            }
        });
        let count = self.columns.len();
        let page = Compare {
            frame: Frame::new(self, COMPARE_SCRIPT),
            columns: &columns,
            pairs: pairs.collect(),
            all: count * count.saturating_sub(1) / 2,
            data: data::json(&self.columns, &self.runs, &self.areas),
        };
        page.render().expect("texts and numbers are always written")
    }
}
