//! Scenarios that no known-bad proxy fails, with the reason (`scenarios/unkilled.yaml`).

use std::{collections::BTreeMap, sync::Arc};

use crate::scenario::{Problem, load};

const TEXT: &str = include_str!("../../../scenarios/unkilled.yaml");

/// Scenario id to reason.
#[derive(Clone, Debug, Default)]
pub struct Unkilled(BTreeMap<String, String>);

impl Unkilled {
    /// The embedded list.
    ///
    /// # Errors
    ///
    /// It is not a map of texts.
    pub fn embedded() -> Result<Self, Problem> {
        let file: Arc<str> = "scenarios/unkilled.yaml".into();
        load::parse(&file, TEXT).map(Self)
    }

    /// Why nothing fails the scenario.
    pub fn reason(&self, scenario: &str) -> Option<&str> {
        self.0.get(scenario).map(String::as_str)
    }

    /// The scenarios in the list.
    pub fn scenarios(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Catalogue, Requirements};

    #[test]
    fn listed_scenarios_exist() {
        let requirements = Requirements::embedded().expect("requirements");
        let catalogue = Catalogue::embedded(&requirements).expect("catalogue");
        for scenario in Unkilled::embedded().expect("a map").scenarios() {
            assert!(
                catalogue.documents.iter().any(|d| d.header.id == scenario),
                "there is no scenario {scenario}"
            );
        }
    }
}
