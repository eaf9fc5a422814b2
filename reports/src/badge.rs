//! `badge.svg`: the conclusion as a small picture for a README.
//!
//! It is as careful as the report: a run that is a part of a whole (a shard, a filter, a run that broke off) gets no green badge.

use askama::Template;

use crate::markdown::plural;
use crate::model::{Conclusion, Report};

/// The left half of the picture.
const LABEL: &str = "service proxy conformance";

#[derive(Template)]
#[template(path = "badge.svg", escape = "html")]
pub(crate) struct Badge {
    pub label: &'static str,
    pub message: String,
    pub colour: &'static str,
    pub left: usize,
    pub width: usize,
}

/// What a badge says, and its colour.
fn words(report: &Report) -> (String, &'static str) {
    const GREEN: &str = "#2a7d3c";
    const RED: &str = "#b3261e";
    const AMBER: &str = "#8a5a00";
    const GREY: &str = "#5a6370";
    let cases = &report.totals.cases;
    let profile = match report.options.profile.as_str() {
        // The names of profiles, and nothing that a log could claim to be one.
        "core" => "core",
        "extended" => "core and extended",
        "all" => "all levels",
        _ => "other profile",
    };
    match report.conclusion {
        Conclusion::Conformant if report.options.filter.is_some() => (
            format!("{} of a part pass", plural(cases.pass, "case")),
            GREY,
        ),
        Conclusion::Conformant if report.options.canaries.is_empty() => {
            ("no canaries: not shown that it tests".to_owned(), GREY)
        }
        // Within the flake budget of the run, which a badge does not know.
        Conclusion::Conformant if cases.flaky > 0 => {
            let flaky = plural(cases.flaky, "flaky case");
            (format!("conformant, {profile}, {flaky}"), AMBER)
        }
        Conclusion::Conformant => (format!("conformant, {profile}"), GREEN),
        Conclusion::ShardPassed => ("shard passed (a part)".to_owned(), GREY),
        Conclusion::NotConformant => (
            format!("not conformant, {} failed", plural(cases.fail, "case")),
            RED,
        ),
        Conclusion::Flaky => (format!("flaky, {}", plural(cases.flaky, "case")), AMBER),
        Conclusion::Infra if !report.problems.is_empty() => ("incomplete".to_owned(), GREY),
        Conclusion::Infra => ("inconclusive".to_owned(), GREY),
        Conclusion::NothingRan => ("nothing ran".to_owned(), GREY),
    }
}

impl Badge {
    /// The badge of a report.
    pub fn of(report: &Report) -> Self {
        let (message, colour) = words(report);
        // 11 px of a usual sans-serif face; `textLength` makes every face take exactly this.
        let pixels = |text: &str| text.len() * 13 / 2 + 14;
        let left = pixels(LABEL);
        Self {
            label: LABEL,
            left,
            width: left + pixels(&message),
            message,
            colour,
        }
    }
}

/// The badge as SVG.
pub fn render(report: &Report) -> String {
    let badge = Badge::of(report);
    let mut text = badge
        .render()
        .expect("numbers and texts are always written");
    text.push('\n');
    text
}
