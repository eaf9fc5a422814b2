//! What makes a run believable, and what it is forgiven: the options about canaries and waivers, and the file of waivers.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use jiff::civil::Date;
use reports::waiver::{Known, Waiver};
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::Failed;
use crate::{
    plan::{Catalogue, Requirements},
    scenario::{Problem, load},
};

/// Options of commands that certify.
#[derive(Debug, Args)]
pub(super) struct Trust {
    /// No known-bad proxies that have to be noticed before the run is believed. No gate takes such a run.
    #[arg(long)]
    pub no_canary: bool,
    /// What is known to fail, as YAML: case or requirement, reason, issue, expires, owner.
    ///
    /// It changes no verdict and no exit code of this command: reports show what is waived, and `harness gate` lets it through.
    #[arg(long, value_name = "FILE")]
    pub waivers: Option<PathBuf>,
}

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    waivers: Vec<Spanned<Entry>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    case: Option<String>,
    requirement: Option<String>,
    reason: String,
    issue: String,
    expires: String,
    owner: String,
    #[serde(default)]
    may_pass: bool,
}

/// Everything that a waiver can name.
pub(super) fn known(catalogue: &Catalogue, requirements: &Requirements) -> Known {
    let documents = catalogue.documents.iter();
    Known {
        cases: documents
            .flat_map(|document| document.cases.iter().map(|key| key.id.clone()))
            .collect(),
        requirements: requirements.iter().map(|rule| rule.id.clone()).collect(),
    }
}

/// A waiver, and where it is written.
pub(super) type Written = (Waiver, Problem);

/// Reads a file of waivers for a run that is about to begin: what they name has to be there.
pub(super) fn read(file: &Path, known: &Known) -> Result<Vec<Waiver>, Failed> {
    let written = parse(file)?;
    for (waiver, place) in &written {
        let missing =
            |id: &Option<String>, ids: &BTreeSet<String>| id.clone().filter(|id| !ids.contains(id));
        let case = missing(&waiver.case, &known.cases).map(|id| ("case", "list", id));
        let requirement = missing(&waiver.requirement, &known.requirements)
            .map(|id| ("requirement", "coverage", id));
        if let Some((what, command, id)) = case.or(requirement) {
            let message = format!(
                "there is no {what} '{id}' in this catalogue ('harness {command}' shows them): correct it or remove the waiver"
            );
            let place = place.clone();
            return Err(Problem { message, ..place }.into());
        }
    }
    Ok(written.into_iter().map(|(waiver, _)| waiver).collect())
}

/// Reads a file of waivers, whatever they name.
pub(super) fn parse(file: &Path) -> Result<Vec<Written>, Failed> {
    let text = load::read_text(file)
        .map_err(|error| Failed::usage(format!("{}: cannot be read: {error}", file.display())))?;
    Ok(of_text(&file.display().to_string().into(), &text)?)
}

/// Reads waivers out of a text.
pub(super) fn of_text(file: &Arc<str>, text: &str) -> Result<Vec<Written>, Problem> {
    let read: File = load::parse(file, text)?;
    let mut written: Vec<Written> = Vec::new();
    for entry in read.waivers {
        let line = entry.referenced.line();
        let at = |line: u64, message: String| Problem {
            file: file.clone(),
            line,
            message,
        };
        let place = at(line, String::new());
        let Entry {
            case,
            requirement,
            reason,
            issue,
            expires,
            owner,
            may_pass,
        } = entry.value;
        if case.is_some() == requirement.is_some() {
            let message = "a waiver is about one 'case' or about one 'requirement'".to_owned();
            return Err(at(line, message));
        }
        if reason.trim().is_empty() || owner.trim().is_empty() {
            let message = "'reason' and 'owner' say why it is let through and who answers for it: they may not be empty".to_owned();
            return Err(at(line, message));
        }
        if !(issue.starts_with("https://") || issue.starts_with("http://")) {
            let message =
                format!("'issue' is the link of the issue that will end it, not '{issue}'");
            return Err(at(line, message));
        }
        let expires: Date = expires.parse().map_err(|_| {
            let message = format!("'expires' is a day such as 2027-01-31, not '{expires}'");
            at(line, message)
        })?;
        let waiver = Waiver {
            case,
            requirement,
            reason,
            issue,
            expires,
            owner,
            may_pass,
        };
        let subject = waiver.subject();
        if let Some((_, first)) = written.iter().find(|(w, _)| w.subject() == subject) {
            let message = format!("{subject} is waived in line {} already", first.line);
            return Err(at(line, message));
        }
        written.push((waiver, place));
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "waivers:
  - case: udp-basic[ipv4]
    reason: entries stay
    issue: https://example.org/1
    expires: 2027-01-31
    owner: somebody
  - {requirement: CP-14, reason: r, issue: 'https://example.org/2', expires: 2027-01-31, owner: o, mayPass: true}
";

    #[test]
    fn what_is_written_is_read() {
        let read = of_text(&"w.yaml".into(), GOOD).unwrap();
        let lines: Vec<u64> = read.iter().map(|(_, place)| place.line).collect();
        assert_eq!(lines, [2, 7]);
        let [(case, _), (requirement, _)] = read.as_slice() else {
            panic!("{read:?}")
        };
        assert_eq!(case.subject(), "case udp-basic[ipv4]");
        assert_eq!(case.expires, jiff::civil::date(2027, 1, 31));
        assert!(!case.may_pass);
        assert_eq!(requirement.subject(), "requirement CP-14");
        assert!(requirement.may_pass);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (from, to, line, part) in [
            (
                "case: udp-basic[ipv4]",
                "requirement: ''\n    case: a",
                2,
                "one 'case'",
            ),
            (
                "  - case: udp-basic[ipv4]\n    reason",
                "  - reason",
                2,
                "one 'case'",
            ),
            ("reason: entries stay", "reason: ''", 2, "empty"),
            ("issue: https://example.org/1", "issue: '#12'", 2, "link"),
            (
                "expires: 2027-01-31",
                "expires: 2027-02-30",
                2,
                "2027-02-30",
            ),
            ("expires: 2027-01-31", "expires: tomorrow", 2, "such as"),
            (
                "owner: somebody",
                "owner: somebody\n    until: 1",
                7,
                "until",
            ),
            ("    owner: somebody\n", "", 5, "owner"),
            (
                "requirement: CP-14",
                "case: 'udp-basic[ipv4]'",
                7,
                "line 2 already",
            ),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from}");
            let problem = of_text(&"w.yaml".into(), &text).unwrap_err();
            assert_eq!(problem.line, line, "{problem}");
            assert!(problem.message.contains(part), "{problem}");
        }
    }

    #[test]
    fn a_run_takes_only_what_is_in_the_catalogue() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("w.yaml");
        std::fs::write(&file, GOOD).unwrap();
        let mut known = Known::default();
        known.cases.insert("udp-basic[ipv4]".into());
        let refused = read(&file, &known).unwrap_err().message;
        assert!(
            refused.contains("w.yaml:7: there is no requirement 'CP-14'"),
            "{refused}"
        );
        known.requirements.insert("CP-14".into());
        assert_eq!(read(&file, &known).unwrap().len(), 2);
    }
}
