//! How verdicts combine: attempts into a case, cases into a requirement, everything into a conclusion and an exit code.
//!
//! Two rules run through all of it. Nothing but passing makes a pass: infra, skipped and unknown stay what they are. And
//! nothing is retried to green: one failed attempt among any number of passed ones makes the case flaky.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::Verdict;

/// Verdict of a case over all its attempts, and of a requirement or a group over its cases.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum CaseVerdict {
    /// Every attempt passed.
    Pass,
    /// At least one attempt failed and none passed.
    Fail,
    /// Some attempts passed and some failed.
    Flaky,
    /// No attempt failed, but the machine or the harness got in the way of at least one.
    Infra,
    /// Every attempt passed, but there were too few of them to prove what the run was to prove.
    Undecided,
    /// Not run, for a stated reason.
    Skip,
    /// Planned and never finished, or (for a requirement) not proven by anything that ran.
    NotRun,
}

impl CaseVerdict {
    /// All verdicts, in the order reports show them.
    pub const ALL: [CaseVerdict; 7] = [
        CaseVerdict::Pass,
        CaseVerdict::Fail,
        CaseVerdict::Flaky,
        CaseVerdict::Infra,
        CaseVerdict::Undecided,
        CaseVerdict::Skip,
        CaseVerdict::NotRun,
    ];

    /// The word used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            CaseVerdict::Pass => "pass",
            CaseVerdict::Fail => "fail",
            CaseVerdict::Flaky => "flaky",
            CaseVerdict::Infra => "infra",
            CaseVerdict::Undecided => "undecided",
            CaseVerdict::Skip => "skip",
            CaseVerdict::NotRun => "not-run",
        }
    }

    /// The verdict of a case from those of its attempts.
    ///
    /// Attempts that pass beside others that are skipped make no pass: whatever was missing was missing only sometimes,
    /// which is trouble with the machine.
    pub fn of_attempts(attempts: impl IntoIterator<Item = Verdict>) -> Self {
        let mut seen = [false; 4];
        for verdict in attempts {
            seen[verdict as usize] = true;
        }
        let has = |verdict: Verdict| seen[verdict as usize];
        let (pass, fail) = (has(Verdict::Pass), has(Verdict::Fail));
        let (infra, skip) = (has(Verdict::Infra), has(Verdict::Skip));
        match (pass, fail) {
            (true, true) => CaseVerdict::Flaky,
            (false, true) => CaseVerdict::Fail,
            _ if infra || (pass && skip) => CaseVerdict::Infra,
            (true, false) => CaseVerdict::Pass,
            (false, false) if skip => CaseVerdict::Skip,
            (false, false) => CaseVerdict::NotRun,
        }
    }
}

impl std::fmt::Display for CaseVerdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// How many cases have which verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// All cases.
    pub total: u64,
    /// Cases that pass.
    pub pass: u64,
    /// Cases that fail.
    pub fail: u64,
    /// Cases that pass sometimes.
    pub flaky: u64,
    /// Cases that the machine or the harness got in the way of.
    pub infra: u64,
    /// Cases that passed too few times to prove what they were to prove.
    #[serde(default)]
    pub undecided: u64,
    /// Cases that were skipped for a stated reason.
    pub skip: u64,
    /// Cases that were planned and never finished.
    pub not_run: u64,
}

impl Counts {
    /// Counts one more case.
    pub fn add(&mut self, verdict: CaseVerdict) {
        self.total += 1;
        *self.slot(verdict) += 1;
    }

    fn slot(&mut self, verdict: CaseVerdict) -> &mut u64 {
        match verdict {
            CaseVerdict::Pass => &mut self.pass,
            CaseVerdict::Fail => &mut self.fail,
            CaseVerdict::Flaky => &mut self.flaky,
            CaseVerdict::Infra => &mut self.infra,
            CaseVerdict::Undecided => &mut self.undecided,
            CaseVerdict::Skip => &mut self.skip,
            CaseVerdict::NotRun => &mut self.not_run,
        }
    }

    /// How many cases have this verdict.
    pub fn get(&self, verdict: CaseVerdict) -> u64 {
        let mut copy = *self;
        *copy.slot(verdict)
    }

    /// Cases that were tried at all.
    pub fn executed(&self) -> u64 {
        self.pass + self.fail + self.flaky + self.infra + self.undecided
    }

    /// The verdict of the whole group: the worst there is, where skipped cases do not spoil those that pass.
    pub fn verdict(&self) -> CaseVerdict {
        let worst_first = [
            CaseVerdict::Fail,
            CaseVerdict::Flaky,
            CaseVerdict::Infra,
            CaseVerdict::Undecided,
            CaseVerdict::NotRun,
            CaseVerdict::Pass,
            CaseVerdict::Skip,
        ];
        let worst = worst_first
            .into_iter()
            .find(|verdict| self.get(*verdict) > 0);
        worst.unwrap_or(CaseVerdict::NotRun)
    }
}

impl FromIterator<CaseVerdict> for Counts {
    fn from_iter<I: IntoIterator<Item = CaseVerdict>>(verdicts: I) -> Self {
        let mut counts = Counts::default();
        verdicts.into_iter().for_each(|verdict| counts.add(verdict));
        counts
    }
}

/// What a run says about the candidate as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Conclusion {
    /// Everything that could be run passed, within the flake budget.
    Conformant,
    /// At least one case fails in every attempt that says anything.
    NotConformant,
    /// More cases are flaky than the budget allows.
    Flaky,
    /// The run says too little to call the candidate conformant: a world could not be built, or the run is incomplete.
    Infra,
    /// Every case was skipped, or the plan was empty.
    NothingRan,
    /// The run is one shard of several, and everything in it passed. Only all of them together can show conformance.
    ShardPassed,
}

impl Conclusion {
    /// The conclusion from the cases' verdicts.
    ///
    /// `complete` is whether the run and its log are whole; an incomplete run can show non-conformance, never conformance.
    pub fn of(cases: &Counts, complete: bool, flake_budget: u32) -> Self {
        if cases.fail > 0 {
            Conclusion::NotConformant
        } else if cases.flaky > u64::from(flake_budget) {
            Conclusion::Flaky
        } else if cases.infra > 0 || cases.undecided > 0 || cases.not_run > 0 || !complete {
            Conclusion::Infra
        } else if cases.executed() == 0 {
            Conclusion::NothingRan
        } else {
            Conclusion::Conformant
        }
    }

    /// The exit code of the command: 0 conformant (or, of a shard, nothing against it), 1 not conformant, 3 flaky beyond the budget, 4 infrastructure trouble,
    /// 5 nothing ran. (2 is usage, which no report exists for.)
    pub fn exit_code(self) -> i32 {
        match self {
            Conclusion::Conformant | Conclusion::ShardPassed => 0,
            Conclusion::NotConformant => 1,
            Conclusion::Flaky => 3,
            Conclusion::Infra => 4,
            Conclusion::NothingRan => 5,
        }
    }

    /// The conclusion in words, as a heading begins.
    pub fn title(self) -> &'static str {
        match self {
            Conclusion::Conformant => "Conformant",
            Conclusion::NotConformant => "Not conformant",
            Conclusion::Flaky => "Flaky",
            Conclusion::Infra => "Inconclusive",
            Conclusion::NothingRan => "Nothing ran",
            Conclusion::ShardPassed => "Shard passed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Fail, Infra, Pass, Skip};

    #[test]
    fn attempts_combine_without_ever_retrying_to_green() {
        for (attempts, case) in [
            (&[][..], CaseVerdict::NotRun),
            (&[Pass], CaseVerdict::Pass),
            (&[Pass, Pass], CaseVerdict::Pass),
            (&[Fail], CaseVerdict::Fail),
            (&[Fail, Infra], CaseVerdict::Fail),
            (&[Fail, Skip], CaseVerdict::Fail),
            (&[Fail, Pass], CaseVerdict::Flaky),
            (&[Pass, Pass, Fail, Infra], CaseVerdict::Flaky),
            (&[Infra], CaseVerdict::Infra),
            (&[Infra, Pass], CaseVerdict::Infra),
            (&[Infra, Skip], CaseVerdict::Infra),
            (&[Pass, Skip], CaseVerdict::Infra),
            (&[Skip, Skip], CaseVerdict::Skip),
        ] {
            assert_eq!(
                CaseVerdict::of_attempts(attempts.iter().copied()),
                case,
                "{attempts:?}"
            );
        }
    }

    #[test]
    fn a_case_passes_only_if_every_attempt_passes() {
        // All sequences of up to four attempts.
        let mut sequences = vec![vec![]];
        for _ in 0..4 {
            let longer: Vec<Vec<Verdict>> = sequences
                .iter()
                .flat_map(|s| [Pass, Fail, Infra, Skip].map(|v| [s.as_slice(), &[v]].concat()))
                .collect();
            sequences.extend(longer);
        }
        for sequence in sequences {
            let verdict = CaseVerdict::of_attempts(sequence.iter().copied());
            let all_pass = !sequence.is_empty() && sequence.iter().all(|v| *v == Pass);
            assert_eq!(verdict == CaseVerdict::Pass, all_pass, "{sequence:?}");
            if sequence.contains(&Fail) {
                assert!(
                    matches!(verdict, CaseVerdict::Fail | CaseVerdict::Flaky),
                    "{sequence:?}"
                );
            }
        }
    }

    #[test]
    fn exit_codes() {
        use CaseVerdict as C;
        for (cases, complete, budget, exit) in [
            (&[C::Pass][..], true, 0, 0),
            (&[C::Pass, C::Skip], true, 0, 0),
            (&[C::Pass], false, 0, 4),
            (&[C::Fail], true, 9, 1),
            (&[C::Fail, C::Flaky, C::Infra, C::NotRun], false, 0, 1),
            (&[C::Flaky], true, 0, 3),
            (&[C::Flaky], true, 1, 0),
            (&[C::Flaky, C::Flaky, C::Pass], true, 1, 3),
            (&[C::Flaky, C::Infra], true, 0, 3),
            (&[C::Flaky, C::Infra], true, 1, 4),
            (&[C::Pass, C::Infra], true, 0, 4),
            (&[C::Pass, C::NotRun], true, 0, 4),
            (&[C::Pass, C::Undecided], true, 0, 4),
            (&[C::Undecided], true, 9, 4),
            (&[C::NotRun], false, 0, 4),
            (&[C::Skip], true, 0, 5),
            (&[], true, 0, 5),
            (&[], false, 0, 4),
        ] {
            let counts: Counts = cases.iter().copied().collect();
            let conclusion = Conclusion::of(&counts, complete, budget);
            assert_eq!(
                conclusion.exit_code(),
                exit,
                "{cases:?} complete={complete} budget={budget}"
            );
        }
    }

    #[test]
    fn counts_keep_their_sum() {
        let counts: Counts = CaseVerdict::ALL
            .into_iter()
            .chain([CaseVerdict::Fail])
            .collect();
        let sum: u64 = CaseVerdict::ALL
            .into_iter()
            .map(|verdict| counts.get(verdict))
            .sum();
        assert_eq!((counts.total, sum, counts.fail), (8, 8, 2));
    }
}
