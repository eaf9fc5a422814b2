//! `harness explain`.

use std::fmt::Write as _;

use clap::Args;

use super::{Exit, Failed, print};
use crate::{
    coverage::{self, Accounts, Bug, Coverage, Occurrence, Row, UnknownSpec},
    nemesis,
    plan::{Catalogue, Requirement, Requirements, level_name},
    run::summary,
    scenario::{Case, Document},
};

/// The id that stands for all faults of scenarios.
const NEMESES: &str = "nemeses";

/// Explain a requirement, a scenario, a case, a bug, an upstream spec, or the faults of scenarios.
#[derive(Debug, Args)]
pub struct Explain {
    /// Such as `SVC-CIP-1`, `udp-endpoint-replaced`, `udp-endpoint-replaced[ipv6,nodePort]`, `bug:U13`,
    /// `Services should serve a basic endpoint from pods`, or `nemeses` for the faults of scenarios.
    #[arg(required_unless_present = "all")]
    id: Option<String>,
    /// All requirements as a document, in Markdown.
    #[arg(long, conflicts_with = "id")]
    all: bool,
}

impl Explain {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        let requirements = Requirements::embedded()?;
        let catalogue = Catalogue::embedded(&requirements)?;
        let Some(id) = self.id else {
            print(&coverage::specification(&requirements, &catalogue));
            return Ok(Exit::Ok);
        };
        let text = if id == NEMESES {
            nemesis::table::markdown()
        } else if let Some(rule) = requirements.get(&id) {
            requirement(rule, &catalogue)
        } else if let Some(text) = of_catalogue(&id, &catalogue, &requirements)? {
            text
        } else {
            of_accounts(&id, &catalogue, &requirements)?
        };
        print(&text);
        Ok(Exit::Ok)
    }
}

/// A scenario or a case.
fn of_catalogue(
    id: &str,
    catalogue: &Catalogue,
    requirements: &Requirements,
) -> Result<Option<String>, Failed> {
    for document in &catalogue.documents {
        let key = if document.header.id == id {
            document.cases.first()
        } else {
            document.cases.iter().find(|key| key.id == id)
        };
        if let Some(key) = key {
            let case = document.resolve(key)?;
            return Ok(Some(scenario(document, &case, requirements)));
        }
    }
    Ok(None)
}

/// A row of the bug catalogue or an upstream spec.
fn of_accounts(
    id: &str,
    catalogue: &Catalogue,
    requirements: &Requirements,
) -> Result<String, Failed> {
    let accounts = Accounts::embedded()?;
    let coverage = Coverage::of(&accounts, requirements, catalogue);
    if id.starts_with("bug:")
        && let Some(found) = accounts.bugs.get(id)
    {
        let row = coverage.bugs.row(&format!("bug:{}", found.id));
        return Ok(bug(found, row, requirements, catalogue));
    }
    match accounts.upstream.names().complete(id) {
        Ok(name) => {
            let row = coverage.upstream.row(name);
            Ok(format!("{name}\n{}", standing(row, catalogue)))
        }
        Err(error @ UnknownSpec::Ambiguous(..)) => Err(Failed::usage(error)),
        Err(UnknownSpec::Unknown(_)) => Err(Failed::usage(format!(
            "'{id}' is no requirement, scenario, case, bug or upstream spec; `harness list` and `harness coverage` show them"
        ))),
    }
}

fn requirement(rule: &Requirement, catalogue: &Catalogue) -> String {
    let mut text = describe(rule);
    if let Some(rationale) = &rule.rationale {
        let _ = writeln!(text, "\n{rationale}");
    }
    if let Some(characteristic) = &rule.characteristic {
        let _ = writeln!(text, "\nRecorded as: {characteristic}");
    }
    let proofs: Vec<_> = catalogue
        .documents
        .iter()
        .filter(|document| document.header.requirement.contains(&rule.id))
        .map(|document| document.header.id.clone())
        .collect();
    if proofs.is_empty() {
        let why = rule.unproven.as_deref().unwrap_or("yet");
        let _ = writeln!(text, "\nProved by no scenario: {why}");
    } else {
        let _ = write!(text, "\nProved by:\n{}", titles(&proofs, catalogue));
    }
    text
}

fn bug(bug: &Bug, row: Option<&Row>, requirements: &Requirements, catalogue: &Catalogue) -> String {
    let mut text = format!(
        "bug:{} ({}; {})\n  {}\n  to be seen: {}\n  {}\n",
        bug.id,
        bug.who,
        bug.places,
        bug.symptom,
        bug.seen,
        match bug.on {
            Occurrence::Always => "happens each time",
            Occurrence::Sometimes => "a race or a load: happens with a rate",
            Occurrence::Never => "cannot be made to happen on one machine",
        }
    );
    text.push_str(&standing(row, catalogue));
    let name = format!("bug:{}", bug.id);
    let rules: Vec<_> = requirements
        .iter()
        .filter(|rule| rule.source.contains(&name))
        .map(describe)
        .collect();
    if !rules.is_empty() {
        let _ = write!(text, "\nRequirements:\n{}", rules.concat());
    }
    text
}

/// Where a row of a table stands, and what shows it.
fn standing(row: Option<&Row>, catalogue: &Catalogue) -> String {
    let Some(row) = row else {
        return String::new();
    };
    let mut text = format!("\n{}", row.standing.as_str());
    if let Some(group) = &row.group {
        let _ = write!(text, " ({group})");
    }
    if let Some(note) = &row.note {
        let _ = write!(text, ": {note}");
    }
    text.push('\n');
    text.push_str(&titles(&row.scenarios, catalogue));
    text
}

/// A line per scenario.
fn titles(ids: &[String], catalogue: &Catalogue) -> String {
    let mut text = String::new();
    for document in &catalogue.documents {
        if ids.contains(&document.header.id) {
            let _ = writeln!(
                text,
                "  {} ({} cases): {}",
                document.header.id,
                document.cases.len(),
                document.header.title
            );
        }
    }
    text
}

fn describe(requirement: &Requirement) -> String {
    format!(
        "{} ({}, {})\n  {}\n  source: {}\n",
        requirement.id,
        requirement.area,
        level_name(requirement.level),
        requirement.text,
        requirement.source.join("; ")
    )
}

fn scenario(document: &Document, case: &Case, requirements: &Requirements) -> String {
    let header = &document.header;
    let mut text = format!("{}: {}\n  {}\n", case.key.id, header.title, document.file);
    if let Some(description) = &header.description {
        let _ = writeln!(text, "\n{}", description.trim());
    }
    let _ = writeln!(text, "\nRequirements:");
    for id in &header.requirement {
        if let Some(requirement) = requirements.get(id) {
            let _ = write!(text, "{}", describe(requirement));
        }
    }
    if !header.covers.is_empty() {
        let _ = writeln!(text, "\nStands for:\n  {}", header.covers.join("\n  "));
    }
    let _ = writeln!(text, "\nTopology:\n{}", picture(case));
    let _ = writeln!(text, "Steps:");
    for (index, step) in case.scenario.steps.iter().enumerate() {
        if step.value.applies(&case.key) {
            let what = step
                .value
                .name
                .clone()
                .unwrap_or_else(|| summary::of(&step.value));
            let _ = writeln!(text, "  {:>2}. {:<9} {what}", index + 1, step.value.verb());
        }
    }
    if document.cases.len() > 1 {
        let ids: Vec<&str> = document.cases.iter().map(|key| key.id.as_str()).collect();
        let _ = writeln!(text, "\nCases:\n  {}", ids.join("\n  "));
    }
    text
}

/// The world as a drawing: the client beyond the router, the fabric, the nodes and their pods.
fn picture(case: &Case) -> String {
    let mut text = String::new();
    let topology = &case.scenario.topology;
    let mtu = topology
        .outside
        .mtu
        .map_or(String::new(), |mtu| format!(" (mtu {mtu})"));
    let _ = writeln!(text, "  outside{mtu}");
    let _ = writeln!(text, "     |");
    let _ = writeln!(text, "  router");
    let _ = writeln!(text, "     |");
    let _ = writeln!(
        text,
        "  ===+=== node network, API server {} ===",
        case.plan.api_server()
    );
    for client in topology
        .clients
        .iter()
        .filter(|client| client.network == "nodes")
    {
        let _ = writeln!(text, "     +-- client {}", client.name);
    }
    for node in &topology.nodes {
        let addresses = case
            .plan
            .node(&node.name)
            .map(|node| format!("{} {}", node.ipv4, node.ipv6))
            .unwrap_or_default();
        let zone = node
            .zone
            .as_ref()
            .map_or(String::new(), |zone| format!(", zone {zone}"));
        let _ = writeln!(
            text,
            "     +-- {} [{addresses}{zone}] (candidate)",
            node.name
        );
        for pod in topology.pods.iter().filter(|pod| pod.node == node.name) {
            let addresses = case
                .plan
                .pod(&pod.name)
                .map(|pod| format!("{} {}", pod.ipv4, pod.ipv6))
                .unwrap_or_default();
            let mut notes = Vec::new();
            if pod.host_network {
                notes.push("hostNetwork".to_owned());
            }
            if !pod.started {
                notes.push("starts later".to_owned());
            }
            if !pod.ready {
                notes.push("not ready".to_owned());
            }
            notes.extend(
                pod.labels
                    .iter()
                    .map(|(name, value)| format!("{name}={value}")),
            );
            let _ = writeln!(
                text,
                "     |     +-- pod {} [{addresses}] {}",
                pod.name,
                notes.join(" ")
            );
        }
    }
    text
}
