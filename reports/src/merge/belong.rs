//! Whether two logs are parts of the same run.
//!
//! Everything has to be the same that decides which attempts are made, what they do and how they are judged: suite,
//! catalogue, candidate, provider, all options and the plan. Two options may differ, because they say how the work was
//! distributed: `jobs` and which shard it is. So may where the candidate's project lives (`url`).
//!
//! Machines of a fleet differ. What packets and candidates depend on has to be the same unless the caller allows
//! otherwise: architecture, kernel release, and the versions of `nft` and `iptables`. CPUs, memory and the distribution are
//! never compared; the report lists all machines.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::event::{PlannedCase, RunStarted};

/// Fields of `options` and `candidate` that may differ.
const FREE: [&str; 3] = ["options.jobs", "options.shard.index", "candidate.url"];

/// What parts of one run have in common, and what is compared between machines.
#[derive(Debug)]
pub(super) struct Identity {
    fields: BTreeMap<String, String>,
    machine: BTreeMap<String, String>,
}

impl Identity {
    pub fn of(run: &RunStarted) -> Self {
        let mut fields = BTreeMap::new();
        let mut add = |name: &str, value: Value| flatten(name, value, &mut fields);
        add("suite", json(&run.suite));
        add("candidate", json(&run.candidate));
        add("provider", json(&run.provider));
        add("options", json(&run.options));
        add("waivers", json(&run.waivers));
        if let Some(merged) = &run.merged {
            // All of its sources are parts of as many, or they would not have been merged.
            let shard = merged.sources.iter().find_map(|source| source.shard);
            add("options.shard", shard.map_or(Value::Null, |s| json(&s)));
        }
        for free in FREE {
            fields.remove(free);
        }
        let machine = &run.machine;
        let tool = |version: &Option<String>| version.clone().unwrap_or_default();
        let machine = [
            ("machine.arch", machine.arch.clone()),
            ("machine.kernel", machine.kernel.clone()),
            ("machine.nft", tool(&machine.nft)),
            ("machine.iptables", tool(&machine.iptables)),
        ];
        let machine = machine
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        Self { fields, machine }
    }

    /// What differs from `other`, as `name is A and not B`; empty when they belong together.
    pub fn differences(&self, other: &Self, machines_may_differ: bool) -> Vec<String> {
        let mut found = differences(&self.fields, &other.fields);
        if !machines_may_differ {
            found.extend(differences(&self.machine, &other.machine));
        }
        found
    }

    /// Whether only the machines differ.
    pub fn only_machines_differ(&self, other: &Self) -> bool {
        self.fields == other.fields && self.machine != other.machine
    }
}

fn json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// Every leaf by its path, so that a difference can be named.
fn flatten(name: &str, value: Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (field, value) in fields {
                flatten(&format!("{name}.{field}"), value, into);
            }
        }
        Value::String(text) => {
            into.insert(name.to_owned(), text);
        }
        other => {
            into.insert(name.to_owned(), other.to_string());
        }
    }
}

fn differences(mine: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> Vec<String> {
    let mut names: Vec<&String> = mine.keys().chain(other.keys()).collect();
    names.sort();
    names.dedup();
    let shown = |value: Option<&String>| value.map_or("absent".to_owned(), |v| format!("{v:?}"));
    names
        .into_iter()
        .filter(|name| mine.get(*name) != other.get(*name))
        .map(|name| {
            let (is, not) = (shown(mine.get(name)), shown(other.get(name)));
            format!("{name} is {is} and not {not}")
        })
        .collect()
}

/// What differs between two plans of one catalogue. Whether a case is skipped is left to the machines.
pub(super) fn plan_difference(mine: &[PlannedCase], other: &[PlannedCase]) -> Option<String> {
    if mine.len() != other.len() {
        return Some(format!(
            "it plans {} cases and not {}",
            mine.len(),
            other.len()
        ));
    }
    let same = |a: &PlannedCase, b: &PlannedCase| {
        (
            &a.id,
            &a.scenario,
            &a.area,
            &a.level,
            &a.requirements,
            &a.axes,
        ) == (
            &b.id,
            &b.scenario,
            &b.area,
            &b.level,
            &b.requirements,
            &b.axes,
        )
    };
    let (a, b) = mine.iter().zip(other).find(|(a, b)| !same(a, b))?;
    Some(match a.id == b.id {
        true => format!("it plans case {:?} with other properties", a.id),
        false => format!("it plans case {:?} where {:?} is expected", a.id, b.id),
    })
}

/// Takes the skips out of `plan` that `other` does not share: what some machines can run is not skipped by the fleet, and
/// its missing attempts have to show.
pub(super) fn keep_common_skips(plan: &mut [PlannedCase], other: &[PlannedCase]) {
    for (case, other) in plan.iter_mut().zip(other) {
        let kind = |case: &PlannedCase| case.skip.as_ref().map(|skip| skip.kind);
        if kind(case) != kind(other) {
            case.skip = None;
        }
    }
}
