//! `harness verify`: what a result directory or a submission is worth.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use reports::{
    event::RunStarted,
    model::Report,
    sign::{
        self, Finding, Findings, Kind, Signature, Signed,
        files::{self, Entry, Listing},
        key::PublicKey,
    },
    submission::{self, Agreed},
    text::one_line,
};
use serde_json::json;

use super::{Exit, Failed, print, sign::quiet};
use crate::plan::{Catalogue, Requirements, accounted};

/// Findings of one kind of trouble that a terminal shows; `--format json` has all.
const MAX_SHOWN: usize = 50;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Check the signature of a result directory, or a submission as a reviewer would.
///
/// Of every directory: the signature, the digest of every file, and that log, report.json, junit.xml and report.md say the same (the log is
/// folded again). Of a submission (it has a README.md) also: the run is complete, every case of the profile of this suite's version is
/// accounted for, every skip has a typed reason that the case allows, seeds follow from the run's seed, the evidence of failures is there, and
/// the generated files are those that follow from the log.
///
/// Whether the candidate is conformant is said and changes nothing: a failed run can be an honest one.
///
/// Exit codes: 0 verified; 1 not verified: something was changed, added or is missing, does not agree, or the key is none of those that were
/// named; 2 usage or bad input; 4 cannot be checked by this version of the suite, or a file cannot be read; 5 unsigned, and nothing else is
/// wrong. The first that applies in the order 2, 1, 4, 5, 0 is taken.
#[derive(Debug, Args)]
pub struct VerifyCommand {
    /// Result directory of a run, or a submission.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Public key (PEM) of somebody whose results are believed; may be given several times. Without any, it is shown that nothing was changed since
    /// it was signed, and not who did that.
    #[arg(long = "key", value_name = "PUBLIC")]
    keys: Vec<PathBuf>,
    /// Check it as a submission, also without a README.md, which is missing then.
    #[arg(long)]
    submission: bool,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// For a terminal.
    #[default]
    Text,
    /// For a program.
    Json,
}

impl VerifyCommand {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        let keys = self.keys.iter().map(|file| PublicKey::read(file));
        let keys: Vec<PublicKey> = keys.collect::<Result<_, _>>()?;
        quiet(&self.dir)?;
        let examined = Examined::of(&self.dir, &keys, self.submission)?;
        print(&match self.format {
            Format::Text => examined.text(&self.dir),
            Format::Json => examined.json(),
        });
        Ok(examined.exit())
    }
}

/// A directory that was looked at.
pub(super) struct Examined {
    submission: bool,
    signature: Signature,
    report: Option<Report>,
    pub findings: Findings,
}

impl Examined {
    /// Looks at everything.
    pub fn of(dir: &Path, keys: &[PublicKey], submission: bool) -> Result<Self, Failed> {
        let files = files::list(dir).map_err(Failed::infra)?;
        let submission = submission || files.contains_key(submission::README);
        let mut findings = Findings::default();
        let Agreed {
            report,
            run,
            folded,
        } = submission::agree(dir, VERSION, &mut findings).map_err(Failed::infra)?;
        let manifest = run.as_ref().and_then(submission::manifest_digest);
        let derived = |name: &str| {
            submission
                && (name == submission::README
                    || (name == submission::MANIFEST && manifest.is_some()))
        };
        let signature = sign::check(dir, &files, report.as_ref(), keys, &derived, &mut findings)
            .map_err(Failed::infra)?;
        let truth = folded.or(report);
        if let Some(report) = &truth {
            if submission {
                submission::complete(report, &files, &mut findings);
                let requirements = Requirements::embedded()?;
                let catalogue = Catalogue::embedded(&requirements)?;
                accounted(report, &catalogue, &requirements, &mut findings);
            } else {
                for problem in &report.problems {
                    findings.note(Kind::Partial, format!("the run is incomplete: {problem}"));
                }
            }
        }
        if submission {
            check_manifest(dir, &files, manifest, &mut findings)?;
            check_readme(dir, &files, truth.as_ref(), run.as_ref(), &mut findings)?;
            for name in files::NO_RESULTS {
                let there = dir.join(name).symlink_metadata().is_ok();
                if there && name != sign::FILE_NAME {
                    findings.broken(Kind::Added, format!("{name}: no part of a submission"));
                }
            }
        }
        findings.once();
        Ok(Self {
            submission,
            signature,
            report: truth,
            findings,
        })
    }

    /// What the command ends with.
    pub fn exit(&self) -> Exit {
        let findings = &self.findings;
        match self.signature {
            _ if !findings.broken.is_empty() => Exit::NotConformant,
            Signature::Broken => Exit::NotConformant,
            _ if !findings.unknown.is_empty() => Exit::Infra,
            Signature::None => Exit::NothingRan,
            Signature::Good(_) => Exit::Ok,
        }
    }

    /// The exit code and its word.
    fn outcome(&self) -> (u8, &'static str) {
        match self.exit() {
            Exit::Ok => (0, "verified"),
            Exit::Infra => (4, "cannot-be-checked"),
            Exit::NothingRan => (5, "unsigned"),
            _ => (1, "not-verified"),
        }
    }

    /// What was found, for a terminal.
    pub fn text(&self, dir: &Path) -> String {
        let what = match self.submission {
            true => "submission",
            false => "result directory",
        };
        let heading = match self.exit() {
            Exit::Ok => "VERIFIED",
            Exit::Infra => "CANNOT BE CHECKED HERE",
            Exit::NothingRan => "UNSIGNED",
            _ => "NOT VERIFIED",
        };
        let mut text = format!("{heading}: {what} {}\n", dir.display());
        for finding in told(&self.findings.broken, MAX_SHOWN) {
            let _ = writeln!(text, "  {finding}");
        }
        for finding in told(&self.findings.unknown, MAX_SHOWN) {
            let _ = writeln!(text, "  cannot be checked: {finding}");
        }
        text.push_str(&self.who());
        if let Some(report) = &self.report {
            text.push_str(&about(report));
        }
        for finding in told(&self.findings.notes, MAX_SHOWN) {
            let _ = writeln!(text, "note: {finding}");
        }
        text
    }

    /// Who signed.
    fn who(&self) -> String {
        let signed = match &self.signature {
            Signature::None => {
                return "unsigned: nothing shows who made it, nor that nobody changed it\n".into();
            }
            Signature::Broken => return "signature: it shows nothing\n".into(),
            Signature::Good(signed) => signed,
        };
        let details = &signed.statement.predicate.service_proxy_conformance;
        let mut text = format!("signed by   {}", signed.keys.join(", "));
        if let Some(name) = &details.signer.name {
            let _ = write!(text, ", who goes by {:?}", one_line(name));
        }
        text.push_str(match signed.named {
            true => "\n            the key is one that you named\n",
            false => {
                "\n            the key is NOT one that you named (--key PUBLIC): nothing was changed since it was signed, and \
                 nobody knows by whom\n"
            }
        });
        let _ = writeln!(
            text,
            "signed      {} files, at {} by the signer's clock",
            signed.statement.subject.len(),
            one_line(&details.signed_at)
        );
        text
    }

    /// What was found, for a program.
    fn json(&self) -> String {
        let report = self.report.as_ref();
        let (code, outcome) = self.outcome();
        let value = json!({
            "outcome": outcome,
            "exitCode": code,
            "submission": self.submission,
            "signature": self.signed().map(|signed| {
                let details = &signed.statement.predicate.service_proxy_conformance;
                json!({
                    "keys": signed.keys,
                    "named": signed.named,
                    "signer": details.signer.name,
                    "signedAt": details.signed_at,
                    "files": signed.statement.subject.len(),
                    "result": signed.statement.predicate.result,
                })
            }),
            "suite": report.map(|report| &report.suite),
            "candidate": report.map(|report| &report.candidate),
            "runId": report.map(|report| &report.run_id),
            "conclusion": report.map(|report| report.conclusion),
            "broken": self.findings.broken,
            "unknown": self.findings.unknown,
            "notes": self.findings.notes,
        });
        format!("{value:#}\n")
    }

    fn signed(&self) -> Option<&Signed> {
        match &self.signature {
            Signature::Good(signed) => Some(signed),
            _ => None,
        }
    }
}

/// Findings, each in a line that nothing in it can break out of.
pub(super) fn told(findings: &[Finding], at_most: usize) -> Vec<String> {
    let line =
        |finding: &Finding| format!("{}: {}", finding.kind.as_str(), one_line(&finding.what));
    let mut lines: Vec<String> = findings.iter().take(at_most).map(line).collect();
    if findings.len() > at_most {
        let more = findings.len() - at_most;
        lines.push(format!("and {more} more (--format json has all)"));
    }
    lines
}

fn about(report: &Report) -> String {
    let candidate = &report.candidate;
    let version = candidate.version.as_deref().unwrap_or("of unknown version");
    let digest = candidate.digest.as_deref().unwrap_or("of unknown digest");
    let cases = &report.totals.cases;
    let lines = [
        (
            "candidate",
            format!("{} {version}, program {digest}", candidate.name),
        ),
        (
            "suite",
            format!(
                "{}, catalogue {}",
                report.suite.version, report.suite.catalogue_digest
            ),
        ),
        (
            "result",
            format!(
                "{}: {} cases, {} pass, {} fail, {} flaky, {} skipped",
                report.conclusion.title(),
                cases.total,
                cases.pass,
                cases.fail,
                cases.flaky,
                cases.skip
            ),
        ),
        (
            "run",
            format!(
                "{} at {}, profile {}, seed {}, kernel {}",
                report.run_id,
                report.started,
                report.options.profile,
                report.options.seed,
                report.machine.kernel
            ),
        ),
    ];
    lines
        .iter()
        .map(|(name, value)| format!("{name:<12}{}\n", one_line(value)))
        .collect()
}

/// The manifest has to be the one whose digest the log has.
fn check_manifest(
    dir: &Path,
    files: &Listing,
    wanted: Option<&str>,
    findings: &mut Findings,
) -> Result<(), Failed> {
    let (name, there) = (submission::MANIFEST, files.get(submission::MANIFEST));
    match (wanted, there) {
        (Some(wanted), Some(Entry::File)) => {
            let digest = files::sha256(&dir.join(name)).map_err(Failed::infra)?;
            let digest = format!("sha256:{digest}");
            if digest != wanted {
                let what = format!("{name}: it is {digest}, and the run had {wanted}");
                findings.broken(Kind::Manifest, what);
            }
        }
        (Some(_), _) => findings.broken(Kind::Missing, name),
        (None, Some(_)) => {
            let what = format!("{name}: the log names no manifest that it could be");
            findings.broken(Kind::Manifest, what);
        }
        (None, None) => {}
    }
    Ok(())
}

/// The page has to be the one that follows from the log.
fn check_readme(
    dir: &Path,
    files: &Listing,
    report: Option<&Report>,
    run: Option<&RunStarted>,
    findings: &mut Findings,
) -> Result<(), Failed> {
    let name = submission::README;
    let path = dir.join(name);
    if files.get(name) != Some(&Entry::File) {
        findings.broken(Kind::Missing, name);
        return Ok(());
    }
    let (Some(report), Some(run)) = (report, run) else {
        return Ok(());
    };
    let wanted = submission::readme(report, run, files.contains_key(submission::MANIFEST));
    // Nothing longer than what is wanted is read.
    let length = path.metadata().map_err(Failed::infra)?.len();
    let same = length == wanted.len() as u64
        && std::fs::read(&path).map_err(Failed::infra)? == wanted.as_bytes();
    if !same {
        let what = format!("{name}: it is not the page that follows from the log");
        findings.broken_if(report.suite.version == VERSION, Kind::Readme, what);
    }
    Ok(())
}
