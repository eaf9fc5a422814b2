//! The requirements that scenarios prove (`scenarios/requirements.yaml`).

use std::sync::Arc;

use serde::Deserialize;

use crate::scenario::{Level, Problem, load};

/// One rule for service proxies.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Requirement {
    /// Stable id, such as `SVC-CIP-1`.
    pub id: String,
    /// Area, such as `clusterip`.
    pub area: String,
    /// Level.
    pub level: Level,
    /// The rule, with MUST or SHOULD.
    pub text: String,
    /// API fields, KEPs, upstream tests and issues it comes from.
    pub source: Vec<String>,
}

/// All requirements, in the order of the document.
#[derive(Clone, Debug)]
pub struct Requirements(Vec<Requirement>);

impl Requirements {
    /// The embedded requirements.
    pub fn embedded() -> Result<Self, Problem> {
        let file: Arc<str> = "scenarios/requirements.yaml".into();
        load::parse(&file, scenarios::REQUIREMENTS).map(Self)
    }

    /// A requirement by id.
    pub fn get(&self, id: &str) -> Option<&Requirement> {
        self.0.iter().find(|requirement| requirement.id == id)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Requirement> {
        self.0.iter()
    }

    /// The area a scenario is counted in: that of the first requirement it names.
    pub fn area(&self, requirements: &[String]) -> String {
        requirements
            .first()
            .and_then(|id| self.get(id))
            .map_or_else(|| "unknown".into(), |requirement| requirement.area.clone())
    }

    /// For the event log.
    pub fn events(&self) -> Vec<reports::event::RequirementInfo> {
        self.0
            .iter()
            .map(|requirement| reports::event::RequirementInfo {
                id: requirement.id.clone(),
                area: requirement.area.clone(),
                level: super::level_name(requirement.level).into(),
                text: requirement.text.clone(),
                source: requirement.source.join("; "),
            })
            .collect()
    }
}
