//! `harness compare`: what is worse in a new run than in an earlier one.

use std::path::PathBuf;

use clap::Args;
use reports::compare::Comparison;

use super::{Exit, Failed, format::Format, print, results};

/// Say what is worse and what is better in a new run than in an earlier one, case by case.
///
/// Chance makes two runs of the same proxy differ. A case counts as flakier or slower only if that is significant (5 % for all
/// cases together: Fisher's exact test, Mann-Whitney with a median that grew by half and by 5 ms). A case that fails
/// always and did not before is a new failure.
///
/// Exit codes: 0 nothing is worse; 1 something is; 2 usage or bad input; 4 a run is incomplete; 5 no case is in both.
#[derive(Debug, Args)]
pub struct Compare {
    /// Result directory of the earlier run, or its report.json.
    #[arg(value_name = "BASE")]
    base: PathBuf,
    /// Result directory of the new run, or its report.json.
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Compare {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        let comparison = Comparison::of(&results::read(&self.base)?, &results::read(&self.new)?);
        print(
            &self
                .format
                .of(&comparison, || comparison.text(), || comparison.markdown())?,
        );
        Ok(if comparison.is_worse() {
            Exit::NotConformant
        } else if comparison.is_incomplete() {
            Exit::Infra
        } else if comparison.compared == 0 {
            Exit::NothingRan
        } else {
            Exit::Ok
        })
    }
}
