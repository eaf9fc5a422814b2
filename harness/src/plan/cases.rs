//! The cases of a run, each read, checked and rehearsed, from which attempts are made.

use std::sync::Arc;

use reports::event::Skip;

use super::{Planned, attempt_seed};
use crate::{
    run::Job,
    scenario::{Case, Problem, rehearse},
};

/// Cases that are ready to be run, in the order of the plan.
#[derive(Clone)]
pub struct Cases {
    entries: Arc<[Entry]>,
    seed: u64,
}

struct Entry {
    id: String,
    case: Result<Arc<Case>, Skip>,
    /// The document's own seed, as those of repros have.
    seed: Option<u64>,
}

impl Cases {
    /// Reads, checks and rehearses every case that is not skipped. All seeds follow from `seed`.
    ///
    /// # Errors
    ///
    /// Documents that cannot be used, each once.
    pub fn prepare(planned: &[Planned], seed: u64) -> Result<Self, Vec<Problem>> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let chunk = planned.len().div_ceil(threads).max(1);
        let resolved: Vec<Result<Entry, Problem>> = std::thread::scope(|scope| {
            let handles: Vec<_> = planned
                .chunks(chunk)
                .map(|chunk| scope.spawn(|| chunk.iter().map(entry).collect::<Vec<_>>()))
                .collect();
            handles
                .into_iter()
                .flat_map(|handle| handle.join().expect("preparing does not panic"))
                .collect()
        });
        let (mut entries, mut problems) = (Vec::new(), Vec::new());
        for result in resolved {
            match result {
                Ok(entry) => entries.push(entry),
                Err(problem) if problems.contains(&problem) => {}
                Err(problem) => problems.push(problem),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            entries: entries.into(),
            seed,
        })
    }

    /// Cases that a test has prepared, under other names.
    #[cfg(test)]
    pub(crate) fn named(
        cases: impl IntoIterator<Item = (String, Result<Arc<Case>, Skip>)>,
        seed: u64,
    ) -> Self {
        let entry = |(id, case)| Entry {
            id,
            case,
            seed: None,
        };
        Self {
            entries: cases.into_iter().map(entry).collect(),
            seed,
        }
    }

    /// How many there are, skipped ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Id of a case.
    pub fn id(&self, at: usize) -> &str {
        &self.entries[at].id
    }

    /// The case itself, unless it is skipped.
    pub fn case(&self, at: usize) -> Option<&Arc<Case>> {
        self.entries[at].case.as_ref().ok()
    }

    /// Whether a case is skipped. A skipped case has one attempt, which says so.
    pub fn is_skipped(&self, at: usize) -> bool {
        self.entries[at].case.is_err()
    }

    /// A case by its id, ready to be run; none that is skipped.
    pub fn by_id(&self, id: &str) -> Option<Arc<Case>> {
        let entry = self.entries.iter().find(|entry| entry.id == id)?;
        entry.case.as_ref().ok().cloned()
    }

    /// An attempt of a case, with the seed that follows from the run's seed, the case's id and the number, unless the document has one.
    pub fn job(&self, at: usize, attempt: u32) -> Job {
        let entry = &self.entries[at];
        let derived = || attempt_seed(self.seed, &entry.id, attempt);
        Job {
            case: entry.case.clone(),
            id: entry.id.clone(),
            attempt,
            seed: entry.seed.unwrap_or_else(derived),
            conditions: Default::default(),
        }
    }
}

fn entry(planned: &Planned) -> Result<Entry, Problem> {
    let case = match &planned.skip {
        Some(skip) => Err(skip.clone()),
        None => {
            let case = planned.document.resolve(&planned.key)?;
            rehearse(&case)?;
            Ok(Arc::new(case))
        }
    };
    Ok(Entry {
        id: planned.key.id.clone(),
        seed: planned.document.header.seed,
        case,
    })
}
