//! The requirements that scenarios prove (`scenarios/requirements.yaml`).

use std::{collections::BTreeSet, sync::Arc};

use serde::Deserialize;
use serde_saphyr::Spanned;

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
    /// Why it is so, where the text does not show it.
    #[serde(default)]
    pub rationale: Option<String>,
    /// The drawing of a packet path that shows it.
    #[serde(default)]
    pub path: Option<String>,
    /// Of level info: the characteristic under which reports show what a candidate does.
    #[serde(default)]
    pub characteristic: Option<String>,
    /// Of level info or strict: why no scenario proves it.
    #[serde(default)]
    pub unproven: Option<String>,
}

/// All requirements, in the order of the document.
#[derive(Clone, Debug)]
pub struct Requirements {
    file: Arc<str>,
    list: Vec<Spanned<Requirement>>,
}

impl Requirements {
    /// The embedded requirements.
    pub fn embedded() -> Result<Self, Problem> {
        Self::parse(
            &"scenarios/requirements.yaml".into(),
            scenarios::REQUIREMENTS,
        )
    }

    /// Reads requirements. Ids are unique.
    pub fn parse(file: &Arc<str>, text: &str) -> Result<Self, Problem> {
        let list: Vec<Spanned<Requirement>> = load::parse(file, text)?;
        let mut seen = BTreeSet::new();
        for requirement in &list {
            if !seen.insert(requirement.value.id.as_str()) {
                return Err(Problem {
                    file: file.clone(),
                    line: requirement.referenced.line(),
                    message: format!("the id '{}' is taken", requirement.value.id),
                });
            }
        }
        Ok(Self {
            file: file.clone(),
            list,
        })
    }

    /// Where they were read.
    pub fn file(&self) -> Arc<str> {
        self.file.clone()
    }

    /// The line of a requirement; 0 for an id that is not there.
    pub fn line(&self, id: &str) -> u64 {
        self.list
            .iter()
            .find(|requirement| requirement.value.id == id)
            .map_or(0, |requirement| requirement.referenced.line())
    }

    /// A requirement by id.
    pub fn get(&self, id: &str) -> Option<&Requirement> {
        self.iter().find(|requirement| requirement.id == id)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Requirement> {
        self.list.iter().map(|requirement| &requirement.value)
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
        self.iter()
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
