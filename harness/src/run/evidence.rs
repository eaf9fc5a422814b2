//! What is kept of a failed attempt: everything somebody needs who was not there.

use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
};

use base64::Engine as _;
use probe::proto::DumpKind;
use serde_json::json;

use super::{
    attempt::Attempt,
    cells::Cell,
    round::{self, Shape, What},
};
use crate::scenario::doc::{OneOrMany, Target};

/// Directory of an attempt's evidence below the run's directory.
pub fn directory(case: &str, attempt: u32) -> PathBuf {
    Path::new("cases").join(case).join(attempt.to_string())
}

impl Attempt<'_> {
    /// Writes the evidence. What cannot be had is said in its place; only a disk that does not take it is an error.
    pub(super) async fn write_evidence(&mut self, directory: &Path) -> io::Result<()> {
        std::fs::create_dir_all(directory)?;
        let scenario = if self.case.scenario.seed.is_some() {
            self.case.text.clone()
        } else {
            format!("{}\nseed: {}\n", self.case.text.trim_end(), self.seed)
        };
        std::fs::write(directory.join("scenario.yaml"), scenario)?;
        // Packets first: the post-mortem probes below would push the interesting ones out.
        let captures = self.captures().await;
        let dumps = self.dumps().await;
        let matrix = self.post_mortem().await;
        std::fs::write(directory.join("matrix.txt"), matrix)?;
        std::fs::write(
            directory.join("story.txt"),
            self.findings.story.join("\n") + "\n",
        )?;
        std::fs::write(
            directory.join("failures.json"),
            serde_json::to_vec_pretty(&json!({
                "case": self.case.key.id,
                "infra": self.findings.infra,
                "failures": self.findings.failures,
            }))?,
        )?;
        std::fs::write(
            directory.join("objects.json"),
            serde_json::to_vec_pretty(&self.cluster.stage().api().history())?,
        )?;
        for (node, name, content) in captures.into_iter().chain(dumps) {
            let directory = directory.join("nodes").join(node);
            std::fs::create_dir_all(&directory)?;
            std::fs::write(directory.join(name), content)?;
        }
        for (node, log) in self.cluster.logs().await {
            let directory = directory.join("nodes").join(node);
            std::fs::create_dir_all(&directory)?;
            std::fs::write(directory.join("candidate.log"), log)?;
        }
        self.cluster.write_evidence(directory).await?;
        Ok(())
    }

    async fn captures(&self) -> Vec<(String, String, Vec<u8>)> {
        let mut files = Vec::new();
        for node in self.cluster.stage().nodes() {
            let Ok(agent) = self.cluster.agent(&node.name) else {
                continue;
            };
            match agent.capture_stop().await {
                Ok(capture) => {
                    let bytes = base64::engine::general_purpose::STANDARD
                        .decode(capture.pcap_base64)
                        .unwrap_or_default();
                    files.push((node.name.clone(), "packets.pcap".to_owned(), bytes));
                }
                Err(error) => files.push((
                    node.name.clone(),
                    "packets.missing.txt".to_owned(),
                    format!("no capture: {error}\n").into_bytes(),
                )),
            }
        }
        files
    }

    async fn dumps(&self) -> Vec<(String, String, Vec<u8>)> {
        let kinds = [
            (DumpKind::Ruleset, "ruleset.txt"),
            (DumpKind::Conntrack, "conntrack.txt"),
            (DumpKind::Routes, "routes.txt"),
            (DumpKind::Rules, "rules.txt"),
            (DumpKind::Addresses, "addresses.txt"),
            (DumpKind::Links, "links.txt"),
            (DumpKind::Sockets, "sockets.txt"),
        ];
        let tools: [(&[&str], &str); 3] = [
            (&["nft", "list", "ruleset"], "nft.txt"),
            (&["iptables-save"], "iptables.txt"),
            (&["ip6tables-save"], "ip6tables.txt"),
        ];
        let mut files = Vec::new();
        for node in self.cluster.stage().nodes() {
            let Ok(agent) = self.cluster.agent(&node.name) else {
                continue;
            };
            for (kind, name) in kinds {
                let text = match agent.dump(kind).await {
                    Ok(text) => text,
                    Err(error) => format!("not to be had: {error}\n"),
                };
                files.push((node.name.clone(), name.to_owned(), text.into_bytes()));
            }
            for (argv, name) in tools {
                if let Some(stdout) = self.cluster.tool(&node.name, argv).await
                    && !stdout.is_empty()
                {
                    files.push((node.name.clone(), name.to_owned(), stdout));
                }
            }
        }
        files
    }

    /// The whole matrix once more: expected and actual side by side.
    async fn post_mortem(&mut self) -> String {
        let everything: OneOrMany<Target> = OneOrMany::One(Target::default());
        let cells = match self.cells(&OneOrMany::One("all".into()), &everything) {
            Ok(cells) => cells,
            Err(stop) => return format!("no matrix: {stop:?}\n"),
        };
        let shape = Shape {
            count: 4,
            patience_ms: 1_000,
            what: What::Cells,
            ..Shape::default()
        };
        match self.round(&cells, &shape).await {
            Ok(seen) => render(&cells, &seen),
            Err(stop) => format!("no matrix: {stop:?}\n"),
        }
    }
}

fn render(cells: &[Cell], seen: &round::Seen) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["", "from", "to", "expected", "actual"]);
    for (cell, tries) in cells.iter().zip(&seen.tries) {
        let observations: Vec<_> = tries
            .iter()
            .map(|one| round::observation(cell, one))
            .collect();
        let right = oracle::check(&cell.expectation, &observations)
            .iter()
            .all(|mismatch| mismatch.kind.is_statistical());
        table.add_row([
            if right { "" } else { "X" }.to_owned(),
            cell.from.label.clone(),
            cell.to.label.clone(),
            cell.expectation.to_string(),
            actual(tries),
        ]);
    }
    let mut text = String::from(
        "The whole matrix after the failure, four new connections per line; X marks what is wrong.\n\n",
    );
    let _ = writeln!(text, "{table}");
    let mut reasons: Vec<String> = cells
        .iter()
        .map(|cell| {
            format!(
                "{}:\n    {}",
                cell.label(),
                cell.expectation.why.join("\n    ")
            )
        })
        .collect();
    reasons.sort();
    reasons.dedup();
    let _ = writeln!(text, "\nWhy:\n\n{}", reasons.join("\n"));
    text
}

fn actual(tries: &[probe::proto::Attempt]) -> String {
    let mut counts: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    for one in tries {
        let what = one
            .outcome
            .identity()
            .map_or_else(|| one.outcome.label(), |who| format!("answered by {who}"));
        *counts.entry(what).or_default() += 1;
    }
    counts
        .iter()
        .map(|(what, count)| format!("{count} x {what}"))
        .collect::<Vec<_>>()
        .join(", ")
}
