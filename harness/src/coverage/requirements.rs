//! Which scenarios prove which requirement.

use super::table::{Row, Standing, Table};
use crate::{
    plan::{Catalogue, Requirements, level_name},
    scenario::{Level, Problem},
};

/// The table of requirements. One of level core or extended without a scenario is a gap; so is one of level info that neither a
/// characteristic records nor a reason excuses. Those of level strict may say why nothing proves them.
pub fn requirements(requirements: &Requirements, catalogue: &Catalogue) -> Table {
    let mut rows = Vec::new();
    let mut gaps = Vec::new();
    for requirement in requirements.iter() {
        let mut scenarios: Vec<String> = catalogue
            .documents
            .iter()
            .filter(|document| document.header.requirement.contains(&requirement.id))
            .map(|document| document.header.id.clone())
            .collect();
        scenarios.sort();
        let recorded = requirement
            .characteristic
            .as_ref()
            .map(|id| format!("recorded as the characteristic {id}"));
        let standing = match (requirement.level, scenarios.is_empty()) {
            (_, false) => Standing::Covered,
            (Level::Info, true) if recorded.is_some() => Standing::Recorded,
            (Level::Info | Level::Strict, true) if requirement.unproven.is_some() => {
                Standing::OutOfScope
            }
            _ => {
                gaps.push(Problem {
                    file: requirements.file(),
                    line: requirements.line(&requirement.id),
                    message: format!(
                        "{} ({}) is proved by no scenario",
                        requirement.id,
                        level_name(requirement.level)
                    ),
                });
                Standing::Open
            }
        };
        rows.push(Row {
            id: requirement.id.clone(),
            text: requirement.text.clone(),
            group: Some(level_name(requirement.level).into()),
            standing,
            scenarios,
            note: recorded.or_else(|| requirement.unproven.clone()),
        });
    }
    Table {
        name: "requirements",
        of: "requirements".into(),
        rows,
        gaps,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::scenario::read_documents;

    #[test]
    fn what_nothing_proves_is_a_gap() {
        let file: Arc<str> = "r.yaml".into();
        let rules = Requirements::parse(
            &file,
            "\
- {id: A-1, area: a, level: core, text: t, source: [x]}
- {id: A-2, area: a, level: extended, text: t, source: [x]}
- {id: A-3, area: a, level: info, text: t, source: [x], characteristic: some-choice}
- {id: A-4, area: a, level: info, text: t, source: [x]}
- {id: A-5, area: a, level: strict, text: t, source: [x], unproven: takes a day}
- {id: A-6, area: a, level: strict, text: t, source: [x]}
",
        )
        .expect("requirements");
        let text = "id: one\ntitle: T\nrequirement: [A-1]\nsteps: []\n";
        let documents = read_documents("one.yaml", text).expect("a document");
        let catalogue = Catalogue {
            documents: documents.into_iter().map(Arc::new).collect(),
        };
        let table = requirements(&rules, &catalogue);
        let standings: Vec<_> = table.rows.iter().map(|row| row.standing).collect();
        assert_eq!(
            standings,
            [
                Standing::Covered,
                Standing::Open,
                Standing::Recorded,
                Standing::Open,
                Standing::OutOfScope,
                Standing::Open
            ]
        );
        let gaps: Vec<String> = table.gaps.iter().map(ToString::to_string).collect();
        assert_eq!(
            gaps,
            [
                "r.yaml:2: A-2 (extended) is proved by no scenario",
                "r.yaml:4: A-4 (info) is proved by no scenario",
                "r.yaml:6: A-6 (strict) is proved by no scenario"
            ]
        );
    }
}
