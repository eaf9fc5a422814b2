//! Proxies with known faults: the tests of the tests.
//!
//! A suite that finds nothing wrong with a proxy may be right or blind. Each mutant here breaks one rule the way a real proxy once did, as a
//! small decorator at one of the [`Seams`]; `harness selftest` demands that a scenario which names that rule notices. The real code knows
//! nothing of this module.
//!
//! A mutant that nobody can tell from the proxy from outside is none: it would only teach the suite to look at what does not matter.

mod conntrack;
mod desired_state;
mod events;
mod flakes;
mod health;
mod memory;
mod raw;
mod ruleset;
mod transaction;

use std::{ffi::OsString, process::ExitCode};

use serde::Serialize;

use crate::{cli, seams::Plain, seams::Seams};

/// Where a mutant is put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seam {
    /// Between the watches and the state.
    Events,
    /// Between the state and the elements.
    DesiredState,
    /// The rules around the elements.
    Ruleset,
    /// Between the ruleset and the kernel.
    Transaction,
    /// The removal of stale connection tracking entries.
    Conntrack,
    /// The health server.
    Health,
}

impl Seam {
    /// All of them, in the order in which a change passes them.
    pub const ALL: [Self; 6] = [
        Self::Events,
        Self::DesiredState,
        Self::Ruleset,
        Self::Transaction,
        Self::Conntrack,
        Self::Health,
    ];

    fn faults(self) -> Vec<Fault> {
        match self {
            Self::Events => events::all(),
            Self::DesiredState => desired_state::all(),
            Self::Ruleset => ruleset::all(),
            Self::Transaction => transaction::all(),
            Self::Conntrack => conntrack::all(),
            Self::Health => health::all(),
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::DesiredState => "desired-state",
            Self::Ruleset => "ruleset",
            Self::Transaction => "transaction",
            Self::Conntrack => "conntrack",
            Self::Health => "health",
        }
    }
}

/// A proxy with one fault.
#[derive(Clone, Debug, Serialize)]
pub struct Mutant {
    /// Its name.
    pub name: &'static str,
    /// Where it is put in.
    pub seam: Seam,
    /// What it does wrong, in one sentence.
    pub summary: &'static str,
    /// The bugs of real proxies that it stands for.
    pub bugs: &'static [&'static str],
    /// The requirements that it violates.
    pub requirements: &'static [&'static str],
    /// It shows in some worlds only: a test of what is said about flakes, and not of scenarios.
    pub flaky: bool,
    /// In which part of all worlds a flaky one shows; none if that depends on the machine.
    pub rate: Option<f64>,
    #[serde(skip)]
    make: fn() -> Box<dyn Seams>,
}

/// A mutant that does not know its seam.
struct Fault {
    name: &'static str,
    summary: &'static str,
    bugs: &'static [&'static str],
    requirements: &'static [&'static str],
    make: fn() -> Box<dyn Seams>,
}

/// Writes a [`Fault`] as a table row with the methods of [`Seams`] that it overrides, and what it has to remember for that.
macro_rules! fault {
    (
        $name:literal: $summary:literal;
        bugs [$($bug:literal),* $(,)?];
        violates [$($requirement:literal),* $(,)?];
        $(remembers { $($field:ident: $type:ty),* $(,)? })?
        does { $($methods:tt)* }
    ) => {{
        #[derive(Debug, Default)]
        struct Decorator {
            $($($field: $type,)*)?
        }
        impl $crate::seams::Seams for Decorator {
            fn reads_back(&self) -> bool {
                // It would repair what is broken here.
                false
            }
            $($methods)*
        }
        $crate::mutants::Fault {
            name: $name,
            summary: $summary,
            bugs: &[$($bug),*],
            requirements: &[$($requirement),*],
            make: || Box::new(Decorator::default()),
        }
    }};
}
use fault;

/// All mutants that every attempt has to notice, by seam.
pub fn all() -> Vec<Mutant> {
    Seam::ALL
        .into_iter()
        .flat_map(|seam| {
            seam.faults().into_iter().map(move |fault| Mutant {
                name: fault.name,
                seam,
                summary: fault.summary,
                bugs: fault.bugs,
                requirements: fault.requirements,
                flaky: false,
                rate: None,
                make: fault.make,
            })
        })
        .collect()
}

/// The planted flakes, which are no part of [`all`].
pub fn flakes() -> Vec<Mutant> {
    flakes::all()
        .into_iter()
        .map(|planted| Mutant {
            name: planted.fault.name,
            seam: Seam::DesiredState,
            summary: planted.fault.summary,
            bugs: planted.fault.bugs,
            requirements: planted.fault.requirements,
            flaky: true,
            rate: planted.rate,
            make: planted.fault.make,
        })
        .collect()
}

/// `docs/mutants.md`.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Mutants\n\n\
         Proxies with known faults, with which `harness selftest` tests the suite. This file is made by\n\
         `cargo run -p reference-proxy --features mutants --bin reference-proxy-mutants -- --list --format markdown`; a test compares it.\n\
         Rules are those of `scenarios/requirements.yaml`; `bug:` rows those of the bug catalogue.\n",
    );
    let all = all();
    text.push_str(&format!("\n{} mutants.\n", all.len()));
    for seam in Seam::ALL {
        text.push_str(&format!(
            "\n## {}\n\n| mutant | what it does wrong | breaks | stands for |\n|---|---|---|---|\n",
            seam.text()
        ));
        for mutant in all.iter().filter(|mutant| mutant.seam == seam) {
            text.push_str(&format!(
                "| `{}` | {} | {} | {} |\n",
                mutant.name,
                mutant.summary,
                mutant.requirements.join(", "),
                mutant.bugs.join(", ")
            ));
        }
    }
    text.push_str(
        "\n## Planted flakes\n\nNot counted above: they show in some worlds only. `harness selftest --flakes` looks for them.\n\n\
         | mutant | what it does wrong | how often | breaks |\n|---|---|--:|---|\n",
    );
    for mutant in flakes() {
        let rate = mutant.rate.map_or("without a CPU".to_owned(), |rate| {
            format!("{} %", rate * 100.0)
        });
        text.push_str(&format!(
            "| `{}` | {} | {rate} | {} |\n",
            mutant.name,
            mutant.summary,
            mutant.requirements.join(", ")
        ));
    }
    text
}

const USAGE: &str = "usage: reference-proxy-mutants --list [--format json|markdown]\n\
                     \x20      reference-proxy-mutants [--mutant NAME] ARGUMENTS OF reference-proxy\n";

/// Runs the command with `args`, of which the first one is the program's name. Without `--mutant` it is the proxy as it should be.
///
/// The exit code is that of the proxy, 0 after a list, 2 for a wrong command line.
pub fn main_with_args(mut args: Vec<OsString>) -> ExitCode {
    let texts: Vec<Option<&str>> = args.iter().skip(1).map(|arg| arg.to_str()).collect();
    match texts.as_slice() {
        [Some("--list")] | [Some("--list"), Some("--format"), Some("json")] => {
            let list: Vec<Mutant> = all().into_iter().chain(flakes()).collect();
            let json = serde_json::to_string_pretty(&list).expect("names and texts");
            println!("{json}");
            ExitCode::SUCCESS
        }
        [Some("--list"), Some("--format"), Some("markdown")] => {
            print!("{}", markdown());
            ExitCode::SUCCESS
        }
        [Some("--list"), ..] | [Some("--mutant")] => {
            eprint!("{USAGE}");
            ExitCode::from(2)
        }
        [Some("--mutant"), name, ..] => {
            let named = |mutant: &Mutant| Some(mutant.name) == *name;
            let Some(mutant) = all().into_iter().chain(flakes()).find(named) else {
                eprintln!("error: there is no mutant of this name; --list shows all");
                return ExitCode::from(2);
            };
            args.drain(1..3);
            // It lives as long as the process.
            cli::main_with_seams(args, &*Box::leak((mutant.make)()))
        }
        _ => cli::main_with_seams(args, &Plain),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn requirement_ids() -> BTreeSet<String> {
        include_str!("../../../scenarios/requirements.yaml")
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("- id:"))
            .map(|id| id.trim().to_owned())
            .collect()
    }

    #[test]
    fn the_list_is_in_order() {
        let all = all();
        assert!(all.len() >= 60, "{} mutants", all.len());
        let names: BTreeSet<&str> = all.iter().map(|mutant| mutant.name).collect();
        assert_eq!(names.len(), all.len(), "two mutants of one name");
        let seams: BTreeSet<Seam> = all.iter().map(|mutant| mutant.seam).collect();
        assert_eq!(seams.into_iter().collect::<Vec<_>>(), Seam::ALL);
        let known = requirement_ids();
        assert!(known.len() > 100, "{} requirements", known.len());
        for mutant in all {
            let name = mutant.name;
            assert!(
                name.chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'),
                "{name}"
            );
            assert!(mutant.summary.ends_with('.'), "{name}: {}", mutant.summary);
            assert!(
                !mutant.summary.contains('|'),
                "{name}: a table cannot hold it"
            );
            assert!(!mutant.bugs.is_empty(), "{name} stands for nothing");
            assert!(!mutant.requirements.is_empty(), "{name} violates nothing");
            for id in mutant.requirements {
                assert!(known.contains(*id), "{name}: there is no requirement {id}");
            }
        }
    }

    #[test]
    fn flakes_are_apart() {
        let flakes = flakes();
        let rates: Vec<Option<f64>> = flakes.iter().map(|mutant| mutant.rate).collect();
        assert_eq!(rates, [Some(0.2), Some(0.05), Some(0.01), None]);
        let all = all();
        for flake in flakes {
            assert!(flake.flaky && !flake.requirements.is_empty(), "{flake:?}");
            assert!(flake.summary.ends_with('.'), "{flake:?}");
            assert!(
                all.iter()
                    .all(|mutant| mutant.name != flake.name && !mutant.flaky)
            );
        }
    }

    #[test]
    fn the_document_is_current() {
        let written = include_str!("../../../docs/mutants.md");
        assert!(
            written == markdown(),
            "docs/mutants.md is out of date: write it with reference-proxy-mutants --list --format markdown"
        );
    }
}
