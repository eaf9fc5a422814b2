//! Whether the files of a result directory say the same: the log is folded again, and what comes out has to be what lies there.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use quick_junit::{NonSuccessKind, Report as Document, TestCaseStatus};

use crate::event::{EventBody, RunStarted};
use crate::json::JsonError;
use crate::model::{ModelError, Report};
use crate::sign::files::FilesError;
use crate::sign::{Findings, Kind, listed};
use crate::{json, junit, log, markdown};

/// No report is longer, in bytes; a soak of a week has one of some hundred million.
const MAX_REPORT: u64 = 1 << 30;

/// Differences that are told of one file.
const MAX_TOLD: usize = 5;

/// What was read.
#[derive(Debug, Default)]
pub struct Agreed {
    /// `report.json`, if it is one.
    pub report: Option<Report>,
    /// The beginning of the log.
    pub run: Option<RunStarted>,
    /// The report that the log makes.
    pub folded: Option<Report>,
}

/// Compares the log of a directory with its `report.json`, `junit.xml` and `report.md`. `version` is the suite's own: only of its own reports
/// it can say what they have to look like to the byte.
///
/// # Errors
/// When a file cannot be read. Everything else is a finding.
pub fn agree(dir: &Path, version: &str, findings: &mut Findings) -> Result<Agreed, FilesError> {
    let mut agreed = Agreed::default();
    let text = text(dir, "report.json", findings)?;
    if let Some(text) = &text {
        match json::parse(text) {
            Ok(report) => agreed.report = Some(report),
            Err(error @ JsonError::FormatVersion { .. }) => {
                findings.unknown(Kind::Report, format!("report.json: {error}"));
            }
            Err(error) => findings.broken(Kind::Report, format!("report.json: {error}")),
        }
    }
    fold(&dir.join(log::FILE_NAME), &mut agreed, findings);
    let (Some(folded), Some(report), Some(text)) = (&agreed.folded, &agreed.report, &text) else {
        return Ok(agreed);
    };
    let sure = folded.suite.version == version;
    compare_json(text, report, folded, sure, findings);
    compare_junit(dir, folded, sure, findings)?;
    compare_markdown(dir, folded, sure, findings)?;
    Ok(agreed)
}

/// A file of the directory as text, if it is there and is one.
fn text(
    dir: &Path,
    name: &'static str,
    findings: &mut Findings,
) -> Result<Option<String>, FilesError> {
    let path = dir.join(name);
    if !path.symlink_metadata().is_ok_and(|kind| kind.is_file()) {
        findings.broken(Kind::Missing, name);
        return Ok(None);
    }
    let mut bytes = Vec::new();
    std::fs::File::open(&path)
        .and_then(|file| file.take(MAX_REPORT + 1).read_to_end(&mut bytes))
        .map_err(FilesError::at(&path))?;
    let kind = match name {
        "junit.xml" => Kind::Junit,
        "report.md" => Kind::Markdown,
        _ => Kind::Report,
    };
    if bytes.len() as u64 > MAX_REPORT {
        findings.broken(kind, format!("{name}: longer than {MAX_REPORT} bytes"));
        return Ok(None);
    }
    let text = String::from_utf8(bytes);
    if text.is_err() {
        findings.broken(kind, format!("{name}: it is not UTF-8"));
    }
    Ok(text.ok())
}

fn fold(path: &Path, agreed: &mut Agreed, findings: &mut Findings) {
    if !path.symlink_metadata().is_ok_and(|kind| kind.is_file()) {
        findings.broken(Kind::Missing, log::FILE_NAME);
        return;
    }
    let first = log::read(path).map(|mut reader| reader.next());
    if let Ok(Some(Ok(event))) = first
        && let EventBody::RunStarted(run) = event.body
    {
        agreed.run = Some(run);
    }
    match Report::from_log(path) {
        Ok(report) => agreed.folded = Some(report),
        Err(error @ ModelError::FormatVersion { .. }) => {
            findings.unknown(Kind::Log, format!("{}: {error}", log::FILE_NAME));
        }
        // Its text names the path that it was opened with.
        Err(error) => findings.broken(Kind::Log, error.to_string()),
    }
}

fn compare_json(text: &str, report: &Report, folded: &Report, sure: bool, findings: &mut Findings) {
    let rendered = json::render(folded);
    if rendered == text {
        return;
    }
    let value = |text: &str| serde_json::from_str(text).unwrap_or_default();
    let places = crate::sign::differences(&value(text), &value(&rendered));
    if places.is_empty() {
        // The same document with other spaces, or with a key twice.
        let what = "report.json: it is not written the way the suite writes it";
        if sure {
            findings.broken(Kind::Report, what);
        }
    } else if sure || report != folded {
        let what = format!(
            "report.json: it is not what the event log says, in {}",
            listed(places, MAX_TOLD)
        );
        findings.broken_if(sure, Kind::Report, what);
    }
}

fn compare_junit(
    dir: &Path,
    folded: &Report,
    sure: bool,
    findings: &mut Findings,
) -> Result<(), FilesError> {
    let Some(text) = text(dir, "junit.xml", findings)? else {
        return Ok(());
    };
    let rendered = junit::render(folded);
    if rendered == text {
        return Ok(());
    }
    let theirs = match Document::deserialize_from_str(&text) {
        Ok(document) => results(&document),
        Err(error) => {
            findings.broken(Kind::Junit, format!("junit.xml: {error}"));
            return Ok(());
        }
    };
    let ours = Document::deserialize_from_str(&rendered).map(|document| results(&document));
    let ours = ours.unwrap_or_default();
    let names = theirs.keys().chain(ours.keys());
    let differ: std::collections::BTreeSet<String> = names
        .filter(|name| theirs.get(*name) != ours.get(*name))
        .map(|name| {
            let word = |results: &BTreeMap<String, Vec<&'static str>>| {
                results
                    .get(name)
                    .map_or("absent".to_owned(), |all| all.join(" and "))
            };
            format!("{name} ({}, by the log {})", word(&theirs), word(&ours))
        })
        .collect();
    if !differ.is_empty() {
        let what = format!(
            "junit.xml: it does not say what the event log says of {}",
            listed(differ, MAX_TOLD)
        );
        findings.broken(Kind::Junit, what);
    } else if sure {
        let what = "junit.xml: it is not what the event log makes, though all results are the same";
        findings.broken(Kind::Junit, what);
    }
    Ok(())
}

/// The results of a JUnit document by the name of the test; a name may be there more than once.
fn results(document: &Document) -> BTreeMap<String, Vec<&'static str>> {
    let mut results: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
    for suite in &document.test_suites {
        for case in &suite.test_cases {
            let result = match &case.status {
                TestCaseStatus::Success { flaky_runs } if flaky_runs.is_empty() => "success",
                TestCaseStatus::Success { .. } => "flaky success",
                TestCaseStatus::NonSuccess { kind, .. } => match kind {
                    NonSuccessKind::Failure => "failure",
                    NonSuccessKind::Error => "error",
                },
                TestCaseStatus::Skipped { .. } => "skipped",
            };
            results
                .entry(case.name.to_string())
                .or_default()
                .push(result);
        }
    }
    results
}

fn compare_markdown(
    dir: &Path,
    folded: &Report,
    sure: bool,
    findings: &mut Findings,
) -> Result<(), FilesError> {
    let Some(text) = text(dir, "report.md", findings)? else {
        return Ok(());
    };
    if sure && text != markdown::render(folded) {
        let what = "report.md: it is not what the event log makes";
        findings.broken(Kind::Markdown, what);
    }
    Ok(())
}
