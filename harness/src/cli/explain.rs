//! `harness explain`.

use std::fmt::Write as _;

use clap::Args;

use super::{Exit, Failed, print};
use crate::{
    plan::{Catalogue, Requirement, Requirements, level_name},
    run::summary,
    scenario::{Case, Document},
};

/// Explain a requirement, a scenario or a case.
#[derive(Debug, Args)]
pub struct Explain {
    /// Such as `SVC-CIP-1`, `udp-endpoint-replaced` or `udp-endpoint-replaced[ipv6,nodePort]`.
    id: String,
}

impl Explain {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        let requirements = Requirements::embedded()?;
        let catalogue = Catalogue::embedded(&requirements)?;
        if let Some(requirement) = requirements.get(&self.id) {
            let mut text = describe(requirement);
            let _ = writeln!(text, "\nProved by:");
            for document in &catalogue.documents {
                if document.header.requirement.contains(&requirement.id) {
                    let _ = writeln!(
                        text,
                        "  {} ({} cases): {}",
                        document.header.id,
                        document.cases.len(),
                        document.header.title
                    );
                }
            }
            print(&text);
            return Ok(Exit::Ok);
        }
        for document in &catalogue.documents {
            let key = if document.header.id == self.id {
                document.cases.first()
            } else {
                document.cases.iter().find(|key| key.id == self.id)
            };
            if let Some(key) = key {
                let case = document.resolve(key)?;
                print(&scenario(document, &case, &requirements));
                return Ok(Exit::Ok);
            }
        }
        Err(Failed::usage(format!(
            "'{}' is no requirement, scenario or case; `harness list` shows them",
            self.id
        )))
    }
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
