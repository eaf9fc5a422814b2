//! `harness render`, and `report.tap` where it is asked for.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use reports::{Report, badge, evidence, html, json, junit, markdown, tap};

use super::{Exit, Failed, print, results};

/// Print a report of an earlier run in another format.
///
/// `prove --exec 'harness render --format tap' DIR` shows a run as a test of prove.
///
/// Exit codes: 0, whatever the report says; 2 bad input.
#[derive(Debug, Args)]
pub struct RenderCommand {
    /// Result directory of a run, or its report.json.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The format.
    #[arg(long, value_enum)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Test Anything Protocol, version 14.
    Tap,
    /// JUnit, as `junit.xml`.
    Junit,
    /// For a pull request, as `report.md`.
    Markdown,
    /// For looking, as `report.html`.
    Html,
    /// For programs, as `report.json`.
    Json,
    /// A picture, as `badge.svg`.
    Badge,
}

impl RenderCommand {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        let report = results::read(&self.dir)?;
        print(&match self.format {
            Format::Tap => tap::render(&report),
            Format::Junit => junit::render(&report),
            Format::Markdown => markdown::render(&report),
            Format::Html => html::render(&report, &evidence::collect(&self.dir, &report)),
            Format::Json => json::render(&report),
            Format::Badge => badge::render(&report),
        });
        Ok(Exit::Ok)
    }
}

/// Writes `report.tap` into the directory of a run, if that is wanted; returns its path.
pub(super) fn tap(wanted: bool, dir: &Path, report: &Report) -> Result<Option<PathBuf>, Failed> {
    if !wanted {
        return Ok(None);
    }
    let path = dir.join(tap::FILE_NAME);
    reports::replace(&path, tap::render(report).as_bytes())
        .map_err(|error| Failed::infra(format!("{}: {error}", path.display())))?;
    Ok(Some(path))
}
