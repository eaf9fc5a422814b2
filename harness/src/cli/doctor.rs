//! `harness doctor`.

use clap::Args;

use super::{Exit, Failed, machine, print};

/// Say what this kernel and machine can do, what is missing and how to get it.
#[derive(Debug, Args)]
pub struct Doctor {}

impl Doctor {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        let machine = machine::describe();
        print(&format!(
            "kernel {} ({}), {}, {} CPUs, {} MiB\n\n",
            machine.kernel,
            machine.arch,
            machine.os,
            machine.cpus,
            machine.memory_bytes >> 20
        ));
        let findings = netlab::doctor();
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        for finding in &findings {
            table.add_row([
                status(finding).to_owned(),
                finding.id.to_owned(),
                text(finding),
            ]);
        }
        for tool in ["nft", "iptables", "conntrack", "kubectl", "kind"] {
            let (status, text) = match crate::candidate::find_on_path(tool) {
                Some(path) => ("ok", path.display().to_string()),
                None => ("missing", optional_tool(tool).to_owned()),
            };
            table.add_row([status.to_owned(), tool.to_owned(), text]);
        }
        print(&format!("{table}\n"));
        let blocked: Vec<&str> = findings
            .iter()
            .filter(|finding| blocks(finding))
            .map(|finding| finding.id)
            .collect();
        if blocked.is_empty() {
            print("\nready: `harness certify` can run here\n");
            Ok(Exit::Ok)
        } else {
            print(&format!(
                "\nnot ready: {} is needed and missing\n",
                blocked.join(", ")
            ));
            Ok(Exit::Infra)
        }
    }
}

fn blocks(finding: &netlab::Finding) -> bool {
    finding.required && finding.missing.is_some()
}

fn status(finding: &netlab::Finding) -> &'static str {
    match (&finding.missing, finding.required) {
        (None, _) => "ok",
        (Some(_), true) => "NEEDED",
        (Some(_), false) => "missing",
    }
}

fn text(finding: &netlab::Finding) -> String {
    match &finding.missing {
        None => finding.what.to_owned(),
        Some(why) => {
            let remedy = finding
                .remedy
                .as_ref()
                .map_or(String::new(), |remedy| format!("; {remedy}"));
            format!(
                "{}: {why}{remedy} (needed for {})",
                finding.what, finding.needed_for
            )
        }
    }
}

fn optional_tool(tool: &str) -> &'static str {
    match tool {
        "nft" => {
            "optional: candidates that call it (kube-proxy's nftables mode), and nft listings in evidence; Debian package nftables"
        }
        "iptables" => {
            "optional: candidates that call it (kube-proxy's iptables mode); Debian package iptables"
        }
        "conntrack" => "optional: older candidates call it; Debian package conntrack",
        "kubectl" => "optional: for `harness cluster up`",
        _ => "optional: for the provider kind, which comes later",
    }
}
