//! What a verification finds, for people and for programs.

use std::collections::HashSet;

use serde::Serialize;

/// What is wrong with a result directory or a submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub kind: Kind,
    /// What it is, in one line. Names of files and texts of the run are in it as they are.
    pub what: String,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The signature's file.
    Envelope,
    /// A signature that is none.
    Signature,
    /// The key of a signature.
    Key,
    /// A file that is not what was signed.
    Changed,
    /// A file that was not signed.
    Added,
    /// A file that was signed and is gone, or that has to be there.
    Missing,
    /// The signed statement, which says something else than the report.
    Statement,
    /// The event log.
    Log,
    /// `report.json`, which is not the log's.
    Report,
    /// `junit.xml`, which is not the log's.
    Junit,
    /// `report.md`, which is not the log's.
    Markdown,
    /// A run that is not all of a run.
    Partial,
    /// A case without a result.
    NotRun,
    /// A skip without a good reason.
    Skip,
    /// A case that the suite has and the run has not, or the other way round.
    Plan,
    /// The suite that ran.
    Suite,
    /// A seed that does not follow from the run's.
    Seed,
    /// Evidence of a failure.
    Evidence,
    /// The candidate's manifest.
    Manifest,
    /// The submission's README.
    Readme,
}

impl Kind {
    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Envelope => "envelope",
            Self::Signature => "signature",
            Self::Key => "key",
            Self::Changed => "changed",
            Self::Added => "added",
            Self::Missing => "missing",
            Self::Statement => "statement",
            Self::Log => "log",
            Self::Report => "report",
            Self::Junit => "junit",
            Self::Markdown => "markdown",
            Self::Partial => "partial",
            Self::NotRun => "not-run",
            Self::Skip => "skip",
            Self::Plan => "plan",
            Self::Suite => "suite",
            Self::Seed => "seed",
            Self::Evidence => "evidence",
            Self::Manifest => "manifest",
            Self::Readme => "readme",
        }
    }
}

/// Everything that a verification finds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// What is wrong.
    pub broken: Vec<Finding>,
    /// What cannot be checked by this version of the suite, or here.
    pub unknown: Vec<Finding>,
    /// What a reader should know and nobody can hold against the directory.
    pub notes: Vec<Finding>,
}

impl Findings {
    /// Notes something that is wrong.
    pub fn broken(&mut self, kind: Kind, what: impl Into<String>) {
        let what = what.into();
        self.broken.push(Finding { kind, what });
    }

    /// Notes something that cannot be checked.
    pub fn unknown(&mut self, kind: Kind, what: impl Into<String>) {
        let what = what.into();
        self.unknown.push(Finding { kind, what });
    }

    /// Notes something to know.
    pub fn note(&mut self, kind: Kind, what: impl Into<String>) {
        let what = what.into();
        self.notes.push(Finding { kind, what });
    }

    /// Notes something that is wrong, if it is the suite's own version that says so, and that cannot be told otherwise.
    pub fn broken_if(&mut self, sure: bool, kind: Kind, what: impl Into<String>) {
        if sure {
            self.broken(kind, what);
        } else {
            self.unknown(kind, what);
        }
    }

    /// Says once what was found twice, in the order in which it was found.
    pub fn once(&mut self) {
        for findings in [&mut self.broken, &mut self.unknown, &mut self.notes] {
            let mut seen = HashSet::new();
            findings.retain(|finding| seen.insert((finding.kind, finding.what.clone())));
        }
    }

    /// Whether something of this kind is wrong.
    pub fn has(&self, kind: Kind) -> bool {
        self.broken.iter().any(|finding| finding.kind == kind)
    }
}

/// Some of many in one line: `a, b, c and 7 more`.
pub fn listed<T: std::fmt::Display>(all: impl IntoIterator<Item = T>, at_most: usize) -> String {
    let all: Vec<T> = all.into_iter().collect();
    let shown: Vec<String> = all.iter().take(at_most).map(ToString::to_string).collect();
    match all.len().saturating_sub(at_most) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
