//! What the script of the comparison needs, as JSON in the page.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::matrix::{Area, Column};
use super::pairs::{rate_words, verdict_word};
use super::run::{Brief, Run};
use crate::html::Mark;
use crate::model::CaseVerdict;
use crate::text::{one_line, shortened};

#[derive(Serialize)]
struct Data {
    /// Word of a verdict -> its sign.
    signs: BTreeMap<&'static str, &'static str>,
    columns: Vec<DataColumn>,
    /// Id, text, then a word per column; empty where the rule is not in the catalogue or nothing was planned for it.
    rules: Vec<(String, String, Vec<&'static str>)>,
    /// Id, then a word and a key of `rates` per column; empty where the case is not planned.
    cases: Vec<(String, Vec<(&'static str, String)>)>,
    /// Failed and tried -> in words, with the interval.
    rates: BTreeMap<String, String>,
    /// Id, then what each column does.
    choices: Vec<(String, Vec<String>)>,
}

#[derive(Serialize)]
struct DataColumn {
    run: String,
    name: String,
    report: String,
    whole: bool,
    catalogue: String,
}

/// The data of all columns.
pub(crate) fn json(columns: &[Column], runs: &[Run], areas: &[Area]) -> String {
    let of: Vec<&Run> = columns.iter().map(|column| &runs[column.run]).collect();
    let signs = CaseVerdict::ALL.map(|verdict| (verdict.as_str(), Mark::from(verdict).glyph));
    let rules = areas.iter().flat_map(|area| &area.rules).map(|rule| {
        let said = of.iter().map(|run| {
            let cell = run
                .requirements
                .get(&rule.id)
                .filter(|cell| !cell.is_idle());
            verdict_word(cell.map(|cell| cell.verdict))
        });
        (
            one_line(&rule.id),
            shortened(&one_line(&rule.text), 300),
            said.collect(),
        )
    });
    let mut rates = BTreeMap::new();
    let ids: BTreeSet<&String> = of.iter().flat_map(|run| run.results.keys()).collect();
    let cases = ids.into_iter().map(|id| {
        let said = of.iter().map(|run| {
            let brief: Option<&Brief> = run.results.get(id);
            let rate = brief.and_then(|brief| brief.rate);
            let key = rate.map_or_else(String::new, |rate| format!("{}/{}", rate.failed, rate.of));
            if let Some(rate) = rate {
                rates.entry(key.clone()).or_insert_with(|| rate_words(rate));
            }
            (verdict_word(brief.map(|brief| brief.verdict)), key)
        });
        (one_line(id), said.collect())
    });
    let cases = cases.collect();
    let ids: BTreeSet<&String> = of.iter().flat_map(|run| run.choices.keys()).collect();
    let choices = ids.into_iter().map(|id| {
        let said = of.iter().map(|run| {
            let values = run.choices.get(id).map(|values| values.join(", "));
            one_line(&values.unwrap_or_default())
        });
        (one_line(id), said.collect())
    });
    let data = Data {
        signs: BTreeMap::from(signs),
        columns: of
            .iter()
            .map(|run| DataColumn {
                run: run.slug.clone(),
                name: one_line(&format!("{} {}", run.candidate, run.version)),
                report: format!("{}/report.html", run.place()),
                whole: run.is_whole(),
                catalogue: one_line(&run.catalogue),
            })
            .collect(),
        rules: rules.collect(),
        cases,
        rates,
        choices: choices.collect(),
    };
    let text = serde_json::to_string(&data).expect("texts are always JSON");
    // Nothing in it may end the element that it is in.
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}
