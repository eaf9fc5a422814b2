//! Options of commands that find out what kind of failure a failing case has, and the experiments after a run.

use std::{sync::atomic::AtomicBool, time::Duration};

use clap::Args;
use reports::{directory::Writing, event::EventBody};

use super::Failed;
use crate::{
    candidate::Candidate,
    experiment::{self, Budget, Subjects},
    plan::Cases,
    run,
    scenario::Span,
};

/// Whether failures are looked into, and for how long.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Classify {
    /// Time for experiments with cases that fail, as in 90s; by default as long as the run took, between 10s and 5m.
    ///
    /// One case of each kind of failure is rerun alone, under contention, against the reference proxy, without a proxy and with longer
    /// deadlines, until it is known what it is (docs/verdicts.md). It changes no verdict and no exit code.
    #[arg(long, value_name = "TIME", conflicts_with = "no_classify")]
    classify_budget: Option<Span>,
    /// No experiments with cases that fail.
    #[arg(long)]
    no_classify: bool,
}

/// Experiments that can be made.
pub(super) struct Experiments {
    cases: Cases,
    subjects: Subjects,
    /// The time that was asked for.
    budget: Option<Duration>,
}

impl Classify {
    /// No experiments.
    pub(super) fn off() -> Self {
        Self {
            no_classify: true,
            ..Self::default()
        }
    }

    /// The experiments of a run; `None` where there are to be none.
    pub(super) fn experiments(
        &self,
        cases: &Cases,
        candidate: &Candidate,
    ) -> Result<Option<Experiments>, Failed> {
        // Nobody wants to look at the worlds of reruns.
        if self.no_classify || run::pause::requested() {
            return Ok(None);
        }
        let reference = match candidate.source.name.as_str() {
            "reference" => None,
            _ => Some(Candidate::load("reference")?),
        };
        Ok(Some(Experiments {
            cases: cases.clone(),
            subjects: Subjects::new(candidate.clone(), reference),
            budget: self.classify_budget.map(|Span(time)| time),
        }))
    }
}

impl Experiments {
    /// Makes experiments with what failed so far, in a run that took so long, and records them.
    ///
    /// # Errors
    ///
    /// What `record` says.
    pub(super) async fn make(
        self,
        writing: &mut Writing,
        took: Duration,
        stop: &AtomicBool,
        mut record: impl FnMut(&mut Writing, EventBody) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let report = writing.so_far().clone().finish();
        let Some(report) = report.ok().filter(|report| !report.causes.is_empty()) else {
            return Ok(());
        };
        let budget = match self.budget {
            Some(time) => Budget::of(time),
            None => Budget::for_run(took),
        };
        let tell = |finished| record(writing, EventBody::ExperimentFinished(finished));
        let case = |id: &str| self.cases.by_id(id);
        experiment::classify(&report, case, &self.subjects, budget, stop, tell).await?;
        Ok(())
    }
}
