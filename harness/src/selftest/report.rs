//! What a selftest found: `selftest.json`, `selftest.md` and the terminal's text.

use std::{collections::BTreeMap, fmt::Write as _};

use reports::event::AttemptFinished;
use serde::Serialize;

use super::{Mutant, Trial};
use crate::plan::Planned;

/// An attempt that a known-bad proxy failed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kill {
    /// The scenario.
    pub scenario: String,
    /// The case.
    pub case: String,
    /// The requirements that the scenario names.
    pub requirements: Vec<String>,
    /// What was wrong first.
    pub message: String,
}

impl Kill {
    /// The kill that a failed attempt is.
    pub(super) fn of(case: &Planned, finished: &AttemptFinished) -> Option<Self> {
        let first = finished.failures.first()?;
        Some(Self {
            scenario: case.document.header.id.clone(),
            case: finished.case.clone(),
            requirements: case.document.header.requirement.clone(),
            message: first.message.lines().next().unwrap_or_default().to_owned(),
        })
    }
}

/// What became of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// A scenario that names one of its requirements failed.
    Killed,
    /// Only scenarios that name none of its requirements failed.
    KilledElsewhere,
    /// Nothing failed.
    Survived,
    /// No scenario names one of its requirements.
    Untested,
}

impl Fate {
    fn word(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::KilledElsewhere => "killed elsewhere",
            Self::Survived => "SURVIVED",
            Self::Untested => "UNTESTED",
        }
    }
}

/// A mutant's trial.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MutantResult {
    /// The mutant.
    #[serde(flatten)]
    pub mutant: Mutant,
    /// What became of it.
    pub fate: Fate,
    /// Attempts that passed or failed.
    pub attempts: u32,
    /// Scenarios of which at least one attempt was made.
    pub tried: Vec<String>,
    /// The failed attempts.
    pub kills: Vec<Kill>,
    /// Attempts that said nothing, and why.
    pub infra: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

impl MutantResult {
    /// Judges a trial.
    pub fn new(mutant: Mutant, trial: Trial, has_cases: bool, seconds: f64) -> Self {
        let noticed = |kill: &Kill| mutant.concerns(&kill.requirements);
        let fate = if trial.kills.iter().any(noticed) {
            Fate::Killed
        } else if !trial.kills.is_empty() {
            Fate::KilledElsewhere
        } else if has_cases {
            Fate::Survived
        } else {
            Fate::Untested
        };
        Self {
            mutant,
            fate,
            attempts: trial.attempts,
            tried: trial.tried,
            kills: trial.kills,
            infra: trial.infra,
            seconds,
        }
    }

    /// One line for a terminal.
    pub fn line(&self) -> String {
        let mut by: Vec<&str> = Vec::new();
        for kill in &self.kills {
            if !by.contains(&kill.scenario.as_str()) {
                by.push(&kill.scenario);
            }
        }
        let detail = if by.is_empty() {
            match self.fate {
                Fate::Untested => {
                    format!("no scenario names {}", self.mutant.requirements.join(", "))
                }
                _ => format!("tried {}", self.tried.join(", ")),
            }
        } else {
            let more = by.len().saturating_sub(3);
            by.truncate(3);
            let more = if more > 0 {
                format!(" +{more}")
            } else {
                String::new()
            };
            format!("by {}{more}", by.join(", "))
        };
        let infra = match self.infra.len() {
            0 => String::new(),
            n => format!(", {n} infra"),
        };
        format!(
            "{:<16} {:>3}/{:<3} {:>6.1}s  {}  {detail}{infra}",
            self.fate.word(),
            self.kills.len(),
            self.attempts,
            self.seconds,
            self.mutant.name
        )
    }
}

/// How the proxy as it should be fared.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferenceResult {
    /// How often each case was to be run.
    pub runs: u32,
    /// Attempts that passed or failed.
    pub attempts: u32,
    /// The failed ones: false alarms.
    pub alarms: Vec<Kill>,
    /// Attempts that said nothing, and why.
    pub infra: Vec<String>,
    /// False alarms per attempt.
    pub rate: f64,
    /// The exact upper 95 % bound of that rate.
    pub upper_bound: f64,
}

impl ReferenceResult {
    /// Judges a trial.
    pub fn new(runs: u32, trial: Trial) -> Self {
        let (alarms, attempts) = (trial.kills.len() as u64, u64::from(trial.attempts));
        Self {
            runs,
            attempts: trial.attempts,
            alarms: trial.kills,
            infra: trial.infra,
            rate: if attempts == 0 {
                0.0
            } else {
                alarms as f64 / attempts as f64
            },
            upper_bound: reports::model::upper_bound(alarms, attempts),
        }
    }
}

/// Who fails a scenario.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScenarioResult {
    /// The scenario.
    pub scenario: String,
    /// The requirements that it names.
    pub requirements: Vec<String>,
    /// The mutants that fail it.
    pub mutants: Vec<String>,
    /// Whether the null candidate, which does nothing, fails it; asked only where no mutant does.
    pub null: Option<bool>,
    /// Why none of its cases was run here, such as for want of SCTP in this kernel; then nothing is known about it.
    pub skip: Option<String>,
    /// Why nothing fails it, where that is known (`scenarios/unkilled.yaml`).
    pub reason: Option<String>,
}

impl ScenarioResult {
    /// Whether nothing is known to fail it and nobody says why.
    pub fn is_unexplained(&self) -> bool {
        self.mutants.is_empty()
            && self.null != Some(true)
            && self.skip.is_none()
            && self.reason.is_none()
    }

    fn text(&self) -> String {
        if let Some(skip) = &self.skip {
            return format!("not run: {skip}");
        }
        match (self.mutants.as_slice(), self.null, &self.reason) {
            ([], Some(true), _) => "null only".into(),
            ([], Some(false), Some(reason)) => format!("nothing: {reason}"),
            ([], Some(false), None) => "NOTHING".into(),
            ([], None, _) => "NOT ASKED".into(),
            (mutants, ..) => mutants.join(", "),
        }
    }
}

/// Everything that a selftest found.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Selftest {
    /// Unique among runs.
    pub id: String,
    /// Version of the harness.
    pub version: String,
    /// `sha256:...` of the catalogue.
    pub catalogue: String,
    /// `sha256:...` of the mutants' program.
    pub mutants_program: String,
    /// Which levels were run.
    pub profile: String,
    /// Seed of all choices.
    pub seed: u64,
    /// Whether mutants met all cases and not only those that name their requirements.
    pub exhaustive: bool,
    /// Whether a mutant's trial ended with its first kill.
    pub first_kill: bool,
    /// Whether it was interrupted.
    pub interrupted: bool,
    /// The mutants.
    pub mutants: Vec<MutantResult>,
    /// The reference, if it was tried.
    pub reference: Option<ReferenceResult>,
    /// The scenarios, if they were asked for.
    pub scenarios: Option<Vec<ScenarioResult>>,
    /// How long it took.
    pub seconds: f64,
}

impl Selftest {
    /// How many mutants had this fate.
    pub fn count(&self, fate: Fate) -> usize {
        self.mutants
            .iter()
            .filter(|mutant| mutant.fate == fate)
            .count()
    }

    /// Killed by a scenario that names one of their requirements, of all.
    pub fn kill_rate(&self) -> f64 {
        if self.mutants.is_empty() {
            return 0.0;
        }
        self.count(Fate::Killed) as f64 / self.mutants.len() as f64
    }

    /// Whether all is as it must be.
    pub fn is_good(&self) -> bool {
        self.count(Fate::Killed) == self.mutants.len()
            && self
                .reference
                .as_ref()
                .is_none_or(|reference| reference.alarms.is_empty())
            && !self
                .scenarios
                .iter()
                .flatten()
                .any(ScenarioResult::is_unexplained)
    }

    /// How many attempts ended with a verdict.
    pub fn attempts(&self) -> u64 {
        let mutants = self
            .mutants
            .iter()
            .map(|mutant| u64::from(mutant.attempts))
            .sum::<u64>();
        mutants
            + self
                .reference
                .as_ref()
                .map_or(0, |reference| u64::from(reference.attempts))
    }

    /// Requirement id -> mutants that violate it, with the number of kills by scenarios that name it.
    fn matrix(&self) -> BTreeMap<&str, Vec<(&str, usize)>> {
        let mut matrix: BTreeMap<&str, Vec<(&str, usize)>> = BTreeMap::new();
        for result in &self.mutants {
            for id in &result.mutant.requirements {
                let kills = result
                    .kills
                    .iter()
                    .filter(|kill| kill.requirements.contains(id));
                matrix
                    .entry(id)
                    .or_default()
                    .push((&result.mutant.name, kills.count()));
            }
        }
        matrix
    }

    fn verdict(&self) -> String {
        let mut text = format!(
            "{} of {} mutants killed by scenarios that name their requirements ({:.1} %), {} killed elsewhere, {} survived, {} untested",
            self.count(Fate::Killed),
            self.mutants.len(),
            self.kill_rate() * 100.0,
            self.count(Fate::KilledElsewhere),
            self.count(Fate::Survived),
            self.count(Fate::Untested),
        );
        if let Some(reference) = &self.reference {
            let _ = write!(
                text,
                "; {} false alarms in {} attempts of the reference (rate below {:.3} % with 95 % confidence)",
                reference.alarms.len(),
                reference.attempts,
                reference.upper_bound * 100.0
            );
        }
        let _ = write!(text, "; {:.0} s", self.seconds);
        if self.interrupted {
            text.push_str("; interrupted");
        }
        text
    }

    fn lapses(&self) -> impl Iterator<Item = &MutantResult> {
        self.mutants
            .iter()
            .filter(|mutant| mutant.fate != Fate::Killed)
    }
}

/// For a terminal.
pub fn text(selftest: &Selftest) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "requirement",
        "mutants (kills by scenarios that name the requirement)",
    ]);
    for (id, mutants) in selftest.matrix() {
        let cells: Vec<String> = mutants
            .iter()
            .map(|(name, kills)| format!("{name} ({kills})"))
            .collect();
        table.add_row([id.to_owned(), cells.join(", ")]);
    }
    let mut text = format!("\n{table}\n\n");
    for result in selftest.lapses() {
        let _ = writeln!(text, "{}\n    {}", result.line(), result.mutant.summary);
        for kill in result.kills.iter().take(3) {
            let _ = writeln!(text, "    {}: {}", kill.case, kill.message);
        }
        for infra in result.infra.iter().take(3) {
            let _ = writeln!(text, "    infra: {infra}");
        }
    }
    if let Some(reference) = &selftest.reference {
        for alarm in &reference.alarms {
            let _ = writeln!(text, "FALSE ALARM {}: {}", alarm.case, alarm.message);
        }
        for infra in reference.infra.iter().take(5) {
            let _ = writeln!(text, "infra of the reference: {infra}");
        }
    }
    for scenario in selftest.scenarios.iter().flatten() {
        let _ = writeln!(text, "{:<44} {}", scenario.scenario, scenario.text());
    }
    let _ = writeln!(text, "{}", selftest.verdict());
    text
}

/// For pull requests.
pub fn markdown(selftest: &Selftest) -> String {
    let mut text = format!(
        "# Selftest {}\n\n{}.\n\nProfile `{}`, seed {}, catalogue `{}`, mutants `{}`.\n",
        selftest.id,
        selftest.verdict(),
        selftest.profile,
        selftest.seed,
        selftest.catalogue,
        selftest.mutants_program
    );
    text.push_str("\n## Mutants\n\n| mutant | seam | fate | kills / attempts | killed by | violates |\n|---|---|---|--:|---|---|\n");
    for result in &selftest.mutants {
        let mut by: Vec<&str> = result
            .kills
            .iter()
            .map(|kill| kill.scenario.as_str())
            .collect();
        by.sort_unstable();
        by.dedup();
        let by = if by.is_empty() {
            format!("tried: {}", result.tried.join(", "))
        } else {
            by.join(", ")
        };
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} / {} | {by} | {} |",
            result.mutant.name,
            result.mutant.seam,
            result.fate.word(),
            result.kills.len(),
            result.attempts,
            result.mutant.requirements.join(", ")
        );
    }
    text.push_str("\n## Requirements\n\n| requirement | mutants (kills by scenarios that name it) |\n|---|---|\n");
    for (id, mutants) in selftest.matrix() {
        let cells: Vec<String> = mutants
            .iter()
            .map(|(name, kills)| format!("`{name}` ({kills})"))
            .collect();
        let _ = writeln!(text, "| {id} | {} |", cells.join(", "));
    }
    if let Some(reference) = &selftest.reference
        && !reference.alarms.is_empty()
    {
        text.push_str("\n## False alarms\n\n");
        for alarm in &reference.alarms {
            let _ = writeln!(text, "- `{}`: {}", alarm.case, alarm.message);
        }
    }
    if let Some(scenarios) = &selftest.scenarios {
        text.push_str("\n## Scenarios\n\n| scenario | failed by |\n|---|---|\n");
        for scenario in scenarios {
            let _ = writeln!(text, "| {} | {} |", scenario.scenario, scenario.text());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(name: &str, requirements: &[&str]) -> Mutant {
        Mutant {
            name: name.into(),
            seam: "events".into(),
            summary: "It is wrong.".into(),
            bugs: vec!["bug:X1".into()],
            requirements: requirements.iter().map(|id| (*id).to_owned()).collect(),
            flaky: false,
            rate: None,
        }
    }

    fn trial(kills: &[(&str, &[&str])]) -> Trial {
        Trial {
            kills: kills
                .iter()
                .map(|(scenario, requirements)| Kill {
                    scenario: (*scenario).to_owned(),
                    case: format!("{scenario}[ipv4]"),
                    requirements: requirements.iter().map(|id| (*id).to_owned()).collect(),
                    message: "nobody answered".into(),
                })
                .collect(),
            tried: vec!["other".into()],
            attempts: 4,
            infra: Vec::new(),
        }
    }

    fn example() -> Selftest {
        Selftest {
            id: "selftest-1".into(),
            version: "0.1.0".into(),
            catalogue: "sha256:c".into(),
            mutants_program: "sha256:m".into(),
            profile: "all".into(),
            seed: 7,
            exhaustive: true,
            first_kill: false,
            interrupted: false,
            mutants: vec![
                MutantResult::new(
                    mutant("noticed", &["A-1", "A-2"]),
                    trial(&[("basic", &["A-1"])]),
                    true,
                    0.5,
                ),
                MutantResult::new(
                    mutant("by-chance", &["A-2"]),
                    trial(&[("basic", &["A-1"])]),
                    true,
                    0.5,
                ),
                MutantResult::new(mutant("unseen", &["A-2"]), trial(&[]), true, 0.5),
                MutantResult::new(mutant("alone", &["B-9"]), Trial::default(), false, 0.0),
            ],
            reference: Some(ReferenceResult::new(2, trial(&[]))),
            scenarios: Some(vec![
                ScenarioResult {
                    scenario: "basic".into(),
                    requirements: vec!["A-1".into()],
                    mutants: vec!["noticed".into()],
                    null: None,
                    skip: None,
                    reason: None,
                },
                ScenarioResult {
                    scenario: "other".into(),
                    requirements: vec!["A-2".into()],
                    mutants: Vec::new(),
                    null: Some(false),
                    skip: None,
                    reason: None,
                },
                ScenarioResult {
                    scenario: "another-kernel".into(),
                    requirements: vec!["A-2".into()],
                    mutants: Vec::new(),
                    null: None,
                    skip: Some("this kernel has no SCTP sockets".into()),
                    reason: None,
                },
            ]),
            seconds: 3.0,
        }
    }

    #[test]
    fn a_mutant_is_killed_by_scenarios_that_name_its_requirements_only() {
        let example = example();
        let fates: Vec<Fate> = example.mutants.iter().map(|result| result.fate).collect();
        assert_eq!(
            fates,
            [
                Fate::Killed,
                Fate::KilledElsewhere,
                Fate::Survived,
                Fate::Untested
            ]
        );
        assert!((example.kill_rate() - 0.25).abs() < 1e-9);
    }

    #[test]
    fn it_is_good_only_if_everything_is() {
        let mut good = example();
        assert!(!good.is_good());
        good.mutants.truncate(1);
        assert!(!good.is_good(), "nothing fails the scenario 'other'");
        good.scenarios = None;
        assert!(good.is_good());
        good.reference = Some(ReferenceResult::new(1, trial(&[("basic", &["A-1"])])));
        assert!(!good.is_good(), "there is a false alarm");
    }

    #[test]
    fn texts_show_what_is_amiss() {
        insta::assert_snapshot!("selftest_text", text(&example()));
        insta::assert_snapshot!("selftest_markdown", markdown(&example()));
    }
}
