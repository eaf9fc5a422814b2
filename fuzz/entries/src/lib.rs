//! Everything that reads what others wrote, as functions of bytes: for the libFuzzer targets of the directory above, and for the tests
//! beside this file, which drive the same functions with a stable compiler.
//!
//! A function does what the commands do with such a file. What is refused is an error with a message; what is accepted has to hold
//! what is asserted here. Anything else is a bug: a panic, memory or time out of proportion to the input.

mod forms;

use std::fmt::Display;

use harness::candidate::Candidate;
use harness::plan::{Filter, Requirements};
use harness::scenario::{Feature, read_documents, rehearse};
use reports::log::EventReader;
use reports::status::Tally;
use reports::{Report, ReportBuilder};

/// Cases of a document that are looked at; a fuzzer gets further with more documents than with more cases.
const CASES: usize = 4;

/// Why an input was refused.
pub type Refused = String;

/// A run's log, as it is read after a crash, into a report and all of its forms.
///
/// # Errors
/// When it is no log of a run.
pub fn log(bytes: &[u8]) -> Result<(), Refused> {
    let mut reader = EventReader::from_bytes("events.jsonl", bytes.to_vec());
    let mut builder = ReportBuilder::default();
    let mut tally = Tally::default();
    for event in reader.by_ref() {
        let event = event.map_err(said)?;
        tally.push(&event);
        builder.push(event).map_err(said)?;
    }
    if reader.truncated() {
        builder.truncated();
    }
    builder.unfinished();
    let active = builder.active_ms().map_err(said)?;
    tally.status(active, None);
    let report = builder.finish().map_err(said)?;
    forms::check(&report);
    Ok(())
}

/// A finished report, as `compare`, `history` and `verify` read it.
///
/// # Errors
/// When it is no report.
pub fn report(bytes: &[u8]) -> Result<(), Refused> {
    let report: Report = reports::json::parse(text(bytes)?).map_err(said)?;
    forms::check(&report);
    Ok(())
}

/// Scenario documents, up to the rehearsal.
///
/// # Errors
/// When a document is refused.
pub fn scenario(bytes: &[u8]) -> Result<(), Refused> {
    let documents = read_documents("hostile.yaml", text(bytes)?).map_err(said)?;
    for document in documents.iter().take(CASES) {
        for key in document.cases.iter().take(CASES) {
            let case = document.resolve(key).map_err(said)?;
            rehearse(&case).map_err(said)?;
            // What evidence holds of a case is that case again.
            let again = read_documents("again.yaml", &case.text).expect("a case that was read");
            let ids: Vec<&str> = again
                .iter()
                .flat_map(|document| &document.cases)
                .map(|case| case.id.as_str())
                .collect();
            assert_eq!(ids, [key.id.as_str()]);
        }
    }
    Ok(())
}

/// A candidate manifest, without starting anything.
///
/// # Errors
/// When the manifest is refused, or its program is not there.
pub fn manifest(bytes: &[u8]) -> Result<(), Refused> {
    let candidate = Candidate::from_text("hostile.yaml", text(bytes)?, None).map_err(said)?;
    for feature in [Feature::Sctp, Feature::NodePortAddresses, Feature::Cleanup] {
        candidate.lacks(feature);
    }
    let _ = candidate.stretched(10).process().ready.deadline();
    Ok(())
}

/// The list of requirements.
///
/// # Errors
/// When the list is refused.
pub fn requirements(bytes: &[u8]) -> Result<(), Refused> {
    Requirements::parse(&"hostile.yaml".into(), text(bytes)?)
        .map(drop)
        .map_err(said)
}

/// Files that a gate is asked with: waivers, and required cases.
///
/// # Errors
/// When it is neither.
pub fn gate(bytes: &[u8]) -> Result<(), Refused> {
    let text = text(bytes)?;
    let waivers = harness::cli::check_waivers(text).map_err(said);
    let required = harness::cli::check_required(text).map_err(said);
    waivers.or(required)
}

/// A filter expression.
///
/// # Errors
/// When it is none.
pub fn filter(bytes: &[u8]) -> Result<(), Refused> {
    text(bytes)?.parse::<Filter>().map(drop).map_err(said)
}

/// Files of text are refused by the readers of the standard library if they are none.
fn text(bytes: &[u8]) -> Result<&str, Refused> {
    std::str::from_utf8(bytes).map_err(said)
}

/// The message, which says something.
fn said(error: impl Display) -> Refused {
    let message = error.to_string();
    assert!(!message.trim().is_empty(), "an error without a message");
    message
}
