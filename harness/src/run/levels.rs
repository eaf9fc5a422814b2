//! What a finding weighs that no step of the scenario asked for: sweeps and audits look at everything in every case, and a rule that
//! decides no conformance must not decide it by being seen in a `core` case.

use std::{collections::BTreeMap, sync::LazyLock};

use crate::{plan::Requirements, scenario::Level};

static LEVELS: LazyLock<BTreeMap<String, Level>> = LazyLock::new(|| {
    let all = Requirements::embedded().expect("they were read before the first case was planned");
    all.iter().map(|one| (one.id.clone(), one.level)).collect()
});

/// Whom a finding blames, and whether it fails the case.
#[derive(Debug, PartialEq, Eq)]
pub struct Weight {
    /// The rules that are violated.
    pub requirements: Vec<String>,
    /// Whether a case of the level fails by it; otherwise it is a warning.
    pub fails: bool,
}

/// Weighs a finding in a case of a level by the rules that an expectation follows from.
///
/// The expectation stands only where all of its rules do, so the one of the least weight decides. Rules that are only recorded (`info`)
/// say what is left open, and can neither be violated nor excuse anything.
pub fn weigh(rules: &[String], case: Level) -> Weight {
    // A rule that is missing from the requirements must not excuse anything.
    let known = |id: &String| LEVELS.get(id).copied().unwrap_or(Level::Core);
    let rules: Vec<String> = rules
        .iter()
        .filter(|id| known(id) != Level::Info)
        .cloned()
        .collect();
    let least = rules.iter().map(known).max().unwrap_or(Level::Strict);
    if least <= case {
        return Weight {
            requirements: rules,
            fails: true,
        };
    }
    Weight {
        requirements: rules.into_iter().filter(|id| known(id) > case).collect(),
        fails: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lightest_rule_decides() {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        for (rules, case, blamed, fails) in [
            // All core.
            (
                &["SVC-CIP-1", "EP-1"][..],
                Level::Core,
                &["SVC-CIP-1", "EP-1"][..],
                true,
            ),
            // One strict.
            (&["SVC-CIP-1", "CP-14"], Level::Core, &["CP-14"], false),
            (
                &["SVC-CIP-1", "CP-14"],
                Level::Strict,
                &["SVC-CIP-1", "CP-14"],
                true,
            ),
            // What is only recorded says nothing.
            (&["SVC-CIP-5", "EP-1"], Level::Core, &["EP-1"], true),
            (&["SVC-CIP-5"], Level::Core, &[], false),
            // A rule that nobody wrote down weighs all.
            (&["SVC-NONE-1"], Level::Core, &["SVC-NONE-1"], true),
        ] {
            assert_eq!(
                weigh(&ids(rules), case),
                Weight {
                    requirements: ids(blamed),
                    fails
                },
                "{rules:?} in a case of level {case:?}"
            );
        }
    }
}
