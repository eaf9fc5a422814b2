//! `harness status`.

use std::{fmt::Write as _, path::PathBuf};

use clap::{Args, ValueEnum};
use reports::{
    directory::{self, Writer},
    event::{FinishReason, Mode},
    model::at_most,
    status::{self, Status},
};

use super::{Exit, Failed, print};
use crate::scenario::Span;

/// Say how a running or ended run stands.
///
/// Exit codes: 0; 2 if there is no run.
#[derive(Debug, Args)]
pub struct StatusCommand {
    /// Directory of the run.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

impl StatusCommand {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        // Asked first: a run that ends between the two is then said to end, and not to have been killed.
        let writer = directory::writer(&self.directory)?;
        let status = status::read(&self.directory)?;
        print(&match self.format {
            Format::Text => text(&status, writer),
            Format::Json => {
                let mut value = serde_json::to_value(&status).map_err(Failed::infra)?;
                value["running"] = writer.is_some().into();
                value["pid"] = writer.and_then(|writer| writer.pid).into();
                format!(
                    "{}\n",
                    serde_json::to_string_pretty(&value).map_err(Failed::infra)?
                )
            }
        });
        Ok(Exit::Ok)
    }
}

fn text(status: &Status, writer: Option<Writer>) -> String {
    let mut out = String::new();
    let what = match status.options.mode {
        Mode::Certify => "run",
        Mode::Stress => "stress run",
        Mode::Soak => "soak",
    };
    let mut line = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    line(format!("{what} {} of {}", status.run_id, status.candidate));
    let seconds = |ms: f64| Span::millis((ms / 1e3).round() as u64 * 1_000);
    let mut time = format!("for {}", seconds(status.active_ms));
    if let Some(limit) = status.options.for_ms {
        time.push_str(&format!(" of {}", Span::millis(limit)));
    }
    if status.resumed > 0 {
        time.push_str(&format!(", resumed x {}", status.resumed));
    }
    line(match (writer, status.end) {
        (Some(Writer { pid: Some(pid) }), _) => format!("running, process {pid}, {time}"),
        (Some(Writer { pid: None }), _) => format!("running, {time}"),
        (None, Some(reason)) => format!("{}, {time}", ended(reason)),
        (None, None) => format!("killed, {time}; --resume goes on with it"),
    });
    if let Some(stress) = &status.stress
        && writer.is_some()
    {
        line(format!("stress now: {stress}"));
    }
    let attempts = &status.attempts;
    line(format!(
        "{} attempts: {} passed, {} failed, {} infra, {} skipped",
        attempts.total, attempts.pass, attempts.fail, attempts.infra, attempts.skip
    ));
    if let Some(rate) = &status.rate {
        line(format!("all cases together: {rate}"));
    }
    line(format!(
        "{} cases, {} of them not tried yet",
        status.cases, status.untried
    ));
    if let Some(worst) = &status.worst_core {
        line(format!(
            "worst upper bound of a core case: {} at 95 % ({})",
            at_most(worst.upper_bound),
            worst.case
        ));
    }
    if !status.failures.is_empty() {
        line("failures by what they have in common:".into());
        for group in &status.failures {
            let (case, attempt) = &group.first;
            line(format!(
                "{:>6} x {} (first {case} #{attempt}, last {} #{})",
                group.attempts,
                reports::text::one_line(&group.signature.to_string()),
                group.last.0,
                group.last.1
            ));
        }
    }
    line("least certain:".into());
    for case in &status.least_certain {
        line(format!(
            "  {}: {} of {} failed, below {}",
            case.case,
            case.failed,
            case.of,
            at_most(case.upper_bound)
        ));
    }
    out
}

fn ended(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Completed => "ended",
        FinishReason::Interrupted => "interrupted",
        FinishReason::FailFast => "ended at its first failure",
        FinishReason::Infra => "given up because of the machine or the harness",
    }
}
