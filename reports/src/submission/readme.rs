//! `README.md` of a submission: what was tested, by what, how to see it again and how to check it.
//!
//! It follows from the log alone, so that whoever checks a submission can make it again and compare.

use super::{MANIFEST, README, reproduce};
use crate::event::RunStarted;
use crate::markdown::{code, counted, prose};
use crate::model::Report;
use crate::sign::FILE_NAME;
use crate::text::one_line;

/// The page. `manifest` says whether the candidate's manifest lies beside it.
pub fn readme(report: &Report, run: &RunStarted, manifest: bool) -> String {
    let candidate = &report.candidate;
    let version = candidate.version.as_deref().map(prose).unwrap_or_default();
    let mut text = format!("# {} {version}", prose(&candidate.name))
        .trim_end()
        .to_owned();
    text.push_str(&format!(
        ": {}\n\nThe results of a conformance run of a Kubernetes service proxy, unmodified, as `harness submit` lays them out.\n\n",
        report.conclusion.title().to_lowercase()
    ));
    text.push_str("| | |\n|---|---|\n");
    for (name, value) in facts(report, run) {
        text.push_str(&format!("| {name} | {value} |\n"));
    }
    for problem in &report.problems {
        text.push_str(&format!("\n**Incomplete**: {}\n", prose(problem)));
    }
    text.push_str("\n## Files\n\n| | |\n|---|---|\n");
    for (name, what) in files(report, manifest) {
        text.push_str(&format!("| `{name}` | {what} |\n"));
    }
    text.push_str(&reproduction(report, run, manifest));
    text.push_str(&format!(
        "\n## Verify\n\n```sh\nharness verify . --key SIGNER.pub\n```\n\n\
         It says whether this submission is signed and by whom (`{FILE_NAME}`), whether a file was changed, added or removed since, and whether \
         everything in it follows from the event log: this page, too. Without `--key` it says the same without knowing whose key it was. \
         An unsigned submission is called so.\n"
    ));
    text
}

fn facts(report: &Report, run: &RunStarted) -> Vec<(&'static str, String)> {
    let (candidate, options) = (&report.candidate, &report.options);
    let mut facts = vec![
        ("Result", report.conclusion.title().to_owned()),
        ("Cases", counted(&report.totals.cases)),
        ("Profile", prose(&options.profile)),
    ];
    if let Some(filter) = &options.filter {
        facts.push(("Filter", code(filter)));
    }
    if let Some(digest) = &candidate.digest {
        facts.push(("Candidate's program", code(digest)));
    }
    if let Some(invocation) = &run.invocation {
        facts.push(("Candidate's manifest", code(&invocation.manifest_digest)));
    }
    if let Some(url) = &candidate.url {
        facts.push(("Candidate's home", code(url)));
    }
    for unsupported in &candidate.features_unsupported {
        let reason = prose(&unsupported.reason);
        let what = format!("{}: {reason}", code(&unsupported.feature));
        facts.push(("Declared unsupported", what));
    }
    facts.extend([
        ("Suite", prose(&report.suite.version)),
        ("Catalogue", code(&report.suite.catalogue_digest)),
        ("Provider", prose(&report.provider)),
        ("Kernel", code(&report.machine.kernel)),
        ("Seed", options.seed.to_string()),
        (
            "Run",
            format!("{}, {}", code(&report.run_id), prose(&report.started)),
        ),
    ]);
    facts
}

fn files(report: &Report, manifest: bool) -> Vec<(&'static str, &'static str)> {
    let mut files = vec![
        (README, "this page"),
        (
            "events.jsonl",
            "everything that happened; all reports are made from it",
        ),
        ("report.json", "the report, for programs"),
        ("junit.xml", "the report, for CI systems"),
        ("report.md", "the report, for people"),
    ];
    if manifest {
        files.push((MANIFEST, "the candidate's manifest"));
    }
    let mut attempts = report.cases.iter().flat_map(|case| &case.attempts);
    if attempts.any(|attempt| attempt.evidence.is_some()) {
        files.push(("cases/", "evidence of attempts that did not pass"));
    }
    files.push((
        FILE_NAME,
        "the signature over these files, where there is one",
    ));
    files
}

fn reproduction(report: &Report, run: &RunStarted, manifest: bool) -> String {
    let candidate = &report.candidate;
    // A line of its own cannot end the block, and nothing in it can act.
    let command = one_line(&reproduce(
        run,
        if manifest { MANIFEST } else { "MANIFEST" },
    ));
    let mut text = format!("\n## Reproduce\n\n```sh\n{command}\n```\n\n");
    text.push_str(&format!(
        "- Suite {} with catalogue {}: `harness --version` and `report.json` of the new run say both.\n",
        prose(&report.suite.version),
        code(&report.suite.catalogue_digest)
    ));
    text.push_str(&match &candidate.digest {
        Some(digest) => format!(
            "- The candidate's program has the digest {}. The manifest takes its path from the environment, or has it in it.\n",
            code(digest)
        ),
        None => "- The log does not say which program the candidate was.\n".to_owned(),
    });
    if !manifest && super::manifest_digest(run).is_some() {
        text.push_str("- The candidate's manifest is not part of this submission.\n");
    }
    text.push_str(&format!(
        "- It ran on kernel {}, {}, {} CPUs.\n",
        code(&report.machine.kernel),
        prose(&report.machine.arch),
        report.machine.cpus
    ));
    text.push_str(&format!(
        "- All random choices follow from seed {}. The exit code was {}.\n",
        report.options.seed, report.exit_code
    ));
    text
}
