//! The event log's vocabulary: everything a run can say about itself, one JSON object per line of `events.jsonl`.
//!
//! The runner appends, every report is a pure function of what was appended. Nothing here decides anything: verdicts of
//! attempts come from the runner, verdicts of cases, requirements and runs are computed in [`crate::model`].
//!
//! Compatibility: fields may be added at any time and readers ignore those they do not know. A new kind of event, or a
//! field that changes its meaning, raises [`EVENT_FORMAT_VERSION`].

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Version of the log format written by this crate; readers accept this one and lower ones.
pub const EVENT_FORMAT_VERSION: u32 = 1;

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Position in the log, counted from 0 without gaps.
    pub seq: u64,
    /// When the event was appended: RFC 3339, UTC, microseconds (`2026-11-22T16:10:19.123456Z`).
    pub time: String,
    /// What happened; its fields lie beside `seq` and `time`, and `type` names the kind.
    #[serde(flatten)]
    pub body: EventBody,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
#[expect(
    clippy::large_enum_variant,
    reason = "events are passed one at a time; only the first of a log is large"
)]
pub enum EventBody {
    /// Always the first event, exactly once: what will be run, on what, by what.
    RunStarted(RunStarted),
    /// A world for one attempt of one case is about to be built.
    AttemptStarted {
        /// Id of the case.
        case: String,
        /// Number of the attempt, counted from 1.
        attempt: u32,
        /// Seed from which everything random in this attempt is derived.
        seed: u64,
    },
    /// One step of the scenario ended.
    StepFinished {
        /// Id of the case.
        case: String,
        /// Number of the attempt, counted from 1.
        attempt: u32,
        /// Position of the step in the scenario, counted from 0.
        index: u32,
        /// The step's verb, such as `apply` or `converge`.
        verb: String,
        /// The step in one line, for humans.
        summary: String,
        /// How long the step took, in milliseconds.
        duration_ms: f64,
        /// Whether everything the step asserts held.
        ok: bool,
    },
    /// A number was measured; numbers are reported, they do not decide a verdict.
    Measured {
        /// Id of the case.
        case: String,
        /// Number of the attempt, counted from 1.
        attempt: u32,
        /// What was measured: `convergence`, `blackout`, `misdelivered`, `connect-latency` and so on.
        name: String,
        /// Unit of `value`, such as `ms` or `packets`.
        unit: String,
        /// The measured value; always finite.
        value: f64,
    },
    /// What this candidate does where the Kubernetes API leaves a choice: recorded, never failed.
    Characteristic {
        /// Id of the case that observed it.
        case: String,
        /// Number of the attempt, counted from 1.
        attempt: u32,
        /// Id of the choice.
        id: String,
        /// What the candidate does.
        value: String,
        /// The choice in a sentence, for humans.
        text: String,
    },
    /// An attempt ended, in whatever way.
    AttemptFinished(AttemptFinished),
    /// Always the last event; a log without it comes from a run that was killed.
    RunFinished {
        /// Why the run ended.
        reason: FinishReason,
        /// More about the reason, for humans.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
}

impl EventBody {
    /// The case and attempt that the event belongs to; `None` for events of the run as a whole.
    pub fn attempt(&self) -> Option<(&str, u32)> {
        match self {
            EventBody::RunStarted(_) | EventBody::RunFinished { .. } => None,
            EventBody::AttemptStarted { case, attempt, .. }
            | EventBody::StepFinished { case, attempt, .. }
            | EventBody::Measured { case, attempt, .. }
            | EventBody::Characteristic { case, attempt, .. } => Some((case, *attempt)),
            EventBody::AttemptFinished(finished) => Some((&finished.case, finished.attempt)),
        }
    }
}

/// What will be run, on what, by what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunStarted {
    /// Names this run among all others.
    pub run_id: String,
    /// Format of the log, see [`EVENT_FORMAT_VERSION`].
    pub format_version: u32,
    /// The suite and the catalogue it carries.
    pub suite: Suite,
    /// The proxy under test.
    pub candidate: CandidateInfo,
    /// How clusters are made, such as `netns`.
    pub provider: String,
    /// The machine the run happens on.
    pub machine: Machine,
    /// The options of the run that change what it says.
    pub options: Options,
    /// Every case of the plan, also those that will be skipped.
    pub cases: Vec<PlannedCase>,
    /// Every requirement of the catalogue, also those that no planned case covers.
    pub requirements: Vec<RequirementInfo>,
}

/// The suite that ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Suite {
    /// Version of the harness.
    pub version: String,
    /// Digest over all scenario documents and requirements, as `algorithm:hex`.
    pub catalogue_digest: String,
}

/// The proxy under test, as its manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CandidateInfo {
    /// Name of the candidate.
    pub name: String,
    /// Its version, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where the project lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Digest of the binary or image that ran, as `algorithm:hex`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Features it declares not to have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features_unsupported: Vec<UnsupportedFeature>,
}

/// A feature that the candidate declares not to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnsupportedFeature {
    /// Name of the feature.
    pub feature: String,
    /// Why, in the candidate's words.
    pub reason: String,
}

/// The machine a run happens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Kernel release.
    pub kernel: String,
    /// Number of CPUs the run may use.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Processor architecture.
    pub arch: String,
    /// Operating system, such as the distribution's name and version.
    pub os: String,
    /// Version of the `nft` command, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nft: Option<String>,
    /// Version of the `iptables` command, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iptables: Option<String>,
}

/// The options of a run that change what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Options {
    /// The profile: `core`, `extended` or `all`.
    pub profile: String,
    /// The filter expression, where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Attempts per case.
    pub runs: u32,
    /// Worlds at a time.
    pub jobs: u32,
    /// The seed that all seeds of attempts come from.
    pub seed: u64,
    /// How many cases may be flaky before the run as a whole counts as flaky.
    #[serde(default)]
    pub flake_budget: u32,
    /// Whether the run stops at the first failure.
    #[serde(default)]
    pub fail_fast: bool,
}

/// A case of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedCase {
    /// Id that never changes, such as `udp-endpoint-replaced[ipv6,nodePort]`.
    pub id: String,
    /// Id of the scenario document.
    pub scenario: String,
    /// The scenario's title.
    pub title: String,
    /// Requirement area that the case is counted under.
    pub area: String,
    /// Level: `core`, `extended` or `provisional`.
    pub level: String,
    /// Ids of the requirements the case proves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requirements: Vec<String>,
    /// The matrix axes that make this case of the scenario, such as `family: ipv6`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub axes: BTreeMap<String, String>,
    /// Why the case will not be run, where that is known beforehand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<Skip>,
}

/// A requirement on service proxies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequirementInfo {
    /// Id of the requirement.
    pub id: String,
    /// Area it belongs to.
    pub area: String,
    /// Level: `core`, `extended` or `provisional`.
    pub level: String,
    /// The rule, with MUST or SHOULD.
    pub text: String,
    /// Where the rule comes from: API field, KEP, upstream test, issue number.
    pub source: String,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttemptFinished {
    /// Id of the case.
    pub case: String,
    /// Number of the attempt, counted from 1.
    pub attempt: u32,
    /// The attempt's verdict.
    pub verdict: Verdict,
    /// How long the attempt took, building of the world included, in milliseconds.
    pub duration_ms: f64,
    /// The longest convergence the attempt measured, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convergence_ms: Option<f64>,
    /// What did not hold; empty unless the verdict is `fail`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
    /// What did not hold of rules that weigh less than the case's level. They count for these rules and leave the verdict alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Failure>,
    /// Why the attempt was skipped, when the verdict is `skip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<Skip>,
    /// What was wrong with the machine or the harness, when the verdict is `infra`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infra: Option<String>,
    /// The last error or warning in the candidate's log, when there is one and the verdict is not `pass`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complaint: Option<String>,
    /// Directory of the evidence, relative to the directory of the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// Number of assertions that were evaluated. A `pass` without any is no pass.
    #[serde(default)]
    pub checks: u64,
    /// How many of them expected traffic to arrive (a positive control, not an absence).
    #[serde(default)]
    pub positive_checks: u64,
}

/// One assertion that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Ids of the requirements that are violated by it; empty when all of the case's are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requirements: Vec<String>,
    /// Position of the step in the scenario, counted from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// The step's verb.
    pub verb: String,
    /// Kind of the mismatch, in kebab case, such as `wrong-endpoint`.
    pub kind: String,
    /// The cell of the matrix, such as `pod client -> clusterIP TCP 10.96.0.10:80`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<String>,
    /// What had to happen.
    pub expected: String,
    /// What happened.
    pub actual: String,
    /// All of it in one sentence, for humans.
    pub message: String,
}

/// Verdict of one attempt.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every assertion held.
    Pass,
    /// At least one assertion about the candidate did not hold.
    Fail,
    /// The machine, the kernel, the topology or the harness got in the way; says nothing about the candidate.
    Infra,
    /// Not run, for a stated reason.
    Skip,
}

impl Verdict {
    /// The word used in logs and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Infra => "infra",
            Verdict::Skip => "skip",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why something was not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Skip {
    /// Kind of reason.
    pub kind: SkipKind,
    /// The reason, for humans.
    pub reason: String,
}

/// Kinds of reasons for not running something.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum SkipKind {
    /// The candidate declares not to have the feature.
    CandidateUnsupported,
    /// The kernel lacks something the scenario needs.
    KernelMissing,
    /// The cluster provider cannot do what a step asks.
    ProviderCannot,
    /// A command or file the scenario needs is not on this machine.
    ToolMissing,
}

impl SkipKind {
    /// The word used in logs and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            SkipKind::CandidateUnsupported => "candidate-unsupported",
            SkipKind::KernelMissing => "kernel-missing",
            SkipKind::ProviderCannot => "provider-cannot",
            SkipKind::ToolMissing => "tool-missing",
        }
    }
}

impl std::fmt::Display for SkipKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum FinishReason {
    /// Everything that was planned has been tried.
    Completed,
    /// Somebody stopped it.
    Interrupted,
    /// It was asked to stop at the first failure, and there was one.
    FailFast,
    /// The machine or the harness made going on pointless.
    Infra,
}
