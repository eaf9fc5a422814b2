//! What is signed: an in-toto Statement v1 with the test-result predicate v0.1.
//!
//! Sources: <https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md> and
//! <https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md>. Everything but the signer and the time follows from
//! the report and the files, so whoever has both can make the statement again and compare.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::files::Digests;
use crate::event::{CandidateInfo, Suite};
use crate::model::{CaseVerdict, Conclusion, Counts, Report};

/// DSSE's type of the payload.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// The type of the statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// The type of the predicate.
pub const PREDICATE_TYPE: &str = "https://in-toto.io/attestation/test-result/v0.1";

/// A statement about the files of a result directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    /// [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub statement_type: String,
    /// The files, by name.
    pub subject: Vec<Resource>,
    /// [`PREDICATE_TYPE`].
    pub predicate_type: String,
    /// What is said about them.
    pub predicate: Predicate,
}

/// A file, or something else with a digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// Its name; of a file relative to the directory, with `/` between its parts.
    pub name: String,
    /// Its digest, by algorithm.
    pub digest: BTreeMap<String, String>,
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Predicate {
    /// The result.
    pub result: TestResult,
    /// The catalogue that was run, and the candidate's program where it is known.
    pub configuration: Vec<Resource>,
    /// Ids of the cases that pass.
    pub passed_tests: Vec<String>,
    /// Ids of the cases that pass sometimes, where the run's flake budget covers that.
    pub warned_tests: Vec<String>,
    /// Ids of the cases that fail, or pass sometimes.
    pub failed_tests: Vec<String>,
    /// An extension field of this suite.
    pub service_proxy_conformance: Details,
}

/// The results that the predicate knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TestResult {
    /// The candidate is conformant.
    Passed,
    /// It is, within a flake budget that was used.
    Warned,
    /// The run does not show that it is, for whatever reason: a failure, a flake, trouble, or because it is a part of a run.
    Failed,
}

impl std::fmt::Display for TestResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Passed => "PASSED",
            Self::Warned => "WARNED",
            Self::Failed => "FAILED",
        })
    }
}

/// What the predicate has no field for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Names the run among all others.
    pub run_id: String,
    /// What the run says about the candidate.
    pub conclusion: Conclusion,
    /// Why the run is incomplete; empty when it is not.
    pub problems: Vec<String>,
    /// The suite that ran.
    pub suite: Suite,
    /// The proxy that was tested.
    pub candidate: CandidateInfo,
    /// How clusters were made.
    pub provider: String,
    /// Kernel release.
    pub kernel: String,
    /// The profile.
    pub profile: String,
    /// The seed of the run.
    pub seed: u64,
    /// Cases by verdict.
    pub cases: Counts,
    /// Who signs.
    pub signer: Signer,
    /// When: RFC 3339, UTC, by the signer's clock.
    pub signed_at: String,
}

/// Who signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signer {
    /// The name that the owner of the key goes by. Nobody has checked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The public key, SPKI in PEM: with it anybody can see that nothing was changed, and nobody can see whose it is.
    pub public_key: String,
}

impl Statement {
    /// The statement about a report and its files.
    pub fn new(report: &Report, files: &Digests, signer: Signer, signed_at: String) -> Self {
        let sha256 = |(name, digest): (&String, &String)| Resource {
            name: name.clone(),
            digest: BTreeMap::from([("sha256".to_owned(), digest.clone())]),
        };
        Self {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject: files.iter().map(sha256).collect(),
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate: Predicate::new(report, signer, signed_at),
        }
    }

    /// The statement as it is signed.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a statement is always valid JSON")
    }

    /// The files by name.
    ///
    /// # Errors
    /// The name of the first that is there twice or has no SHA-256.
    pub fn files(&self) -> Result<Digests, String> {
        let mut files = Digests::new();
        for Resource { name, digest } in &self.subject {
            let digest = digest.get("sha256").ok_or_else(|| name.clone())?;
            if files.insert(name.clone(), digest.clone()).is_some() {
                return Err(name.clone());
            }
        }
        Ok(files)
    }
}

impl Predicate {
    fn new(report: &Report, signer: Signer, signed_at: String) -> Self {
        let ids = |wanted: &[CaseVerdict]| {
            let cases = report.cases.iter();
            let cases = cases.filter(|case| wanted.contains(&case.verdict));
            cases.map(|case| case.id.clone()).collect()
        };
        let tolerated = report.flakes_tolerated();
        let (warned, failed): (&[_], &[_]) = match tolerated {
            true => (&[CaseVerdict::Flaky], &[CaseVerdict::Fail]),
            false => (&[], &[CaseVerdict::Fail, CaseVerdict::Flaky]),
        };
        let candidate = &report.candidate;
        let catalogue = resource("catalogue", &report.suite.catalogue_digest);
        let program = candidate.digest.as_deref();
        let program = program.map(|digest| resource(&candidate.name, digest));
        Self {
            result: match report.conclusion {
                Conclusion::Conformant if report.totals.cases.flaky > 0 => TestResult::Warned,
                Conclusion::Conformant => TestResult::Passed,
                _ => TestResult::Failed,
            },
            configuration: std::iter::once(catalogue).chain(program).collect(),
            passed_tests: ids(&[CaseVerdict::Pass]),
            warned_tests: ids(warned),
            failed_tests: ids(failed),
            service_proxy_conformance: Details {
                run_id: report.run_id.clone(),
                conclusion: report.conclusion,
                problems: report.problems.clone(),
                suite: report.suite.clone(),
                candidate: candidate.clone(),
                provider: report.provider.clone(),
                kernel: report.machine.kernel.clone(),
                profile: report.options.profile.clone(),
                seed: report.options.seed,
                cases: report.totals.cases,
                signer,
                signed_at,
            },
        }
    }
}

/// Something with a digest of the form `algorithm:hex`.
fn resource(name: &str, digest: &str) -> Resource {
    let (algorithm, hex) = digest.split_once(':').unwrap_or(("unknown", digest));
    Resource {
        name: name.to_owned(),
        digest: BTreeMap::from([(algorithm.to_owned(), hex.to_owned())]),
    }
}
