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

use crate::sequential::Claim;
use crate::shard::Shard;
use crate::waiver::Waiver;

/// Version of the log format written by this crate; readers accept this one and lower ones.
///
/// 2 added `runResumed`, after which attempts may start again and a run that ended may go on, and `experimentFinished`.
/// 3 added `canaryFinished`. 4 added `setupFinished`.
pub const EVENT_FORMAT_VERSION: u32 = 4;

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
    /// The run goes on after its process ended, in whatever way. Attempts that had started and not finished are void: what the
    /// log says of them counts for nothing, and they are made again under the same numbers and with the same seeds.
    RunResumed(RunResumed),
    /// A world for one attempt of one case is about to be built.
    AttemptStarted {
        /// Id of the case.
        case: String,
        /// Number of the attempt, counted from 1.
        attempt: u32,
        /// Seed from which everything random in this attempt is derived.
        seed: u64,
        /// What made life harder for it, with the dose, such as `cpu: 2 busy loops`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stress: Option<String>,
        /// In what its world differs from the one of the document, such as `one more node`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shape: Option<String>,
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
    /// A case that failed was rerun under chosen conditions. These reruns are no attempts of the case: they never count into its verdict,
    /// its failure rate or the exit code.
    ExperimentFinished(ExperimentFinished),
    /// A proxy that is known to be bad met a case. It is no attempt: it says whether the harness would have noticed.
    CanaryFinished(CanaryFinished),
    /// Something was done to the cluster that all attempts share, before the first or after the last of them.
    SetupFinished(SetupFinished),
    /// The last event, unless the run is resumed later; a log without it comes from a run that was killed.
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
            EventBody::RunStarted(_)
            | EventBody::RunResumed(_)
            | EventBody::ExperimentFinished(_)
            | EventBody::CanaryFinished(_)
            | EventBody::SetupFinished(_)
            | EventBody::RunFinished { .. } => None,
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
    /// What the run needs to find again if it is resumed; absent where it cannot be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<Invocation>,
    /// Every case of the plan, also those that will be skipped.
    pub cases: Vec<PlannedCase>,
    /// Every requirement of the catalogue, also those that no planned case covers.
    pub requirements: Vec<RequirementInfo>,
    /// What is known to fail, and what becomes of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waivers: Vec<Waiver>,
    /// The runs that this log was merged from; absent in a log that a runner wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<Merged>,
}

/// What a merged log was made from, see [`crate::merge`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Merged {
    /// The runs, by their start.
    pub sources: Vec<MergedSource>,
    /// Attempts that were left out because the same attempt with the same seed is there already.
    pub dropped: u64,
}

/// One run of a merged log: a shard, or what was left of one that was killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MergedSource {
    /// Names the run among all others.
    pub run_id: String,
    /// When it started: RFC 3339, UTC.
    pub started: String,
    /// The part of the attempts that it made; absent when that was all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// The machine it ran on.
    pub machine: Machine,
    /// Worlds at a time.
    pub jobs: u32,
    /// Attempts in its log, whether they were counted or left out.
    pub attempts: u64,
    /// Why it ended; absent when it was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<FinishReason>,
    /// Whether lines of its log are missing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub holes: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// The run goes on in another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunResumed {
    /// The machine that it goes on on; after a reboot its kernel may be another one.
    pub machine: Machine,
    /// Worlds at a time from here on.
    pub jobs: u32,
    /// Bytes of a torn last line that were cut off the log.
    #[serde(default)]
    pub torn_bytes: u64,
}

/// How the run was called, as far as its options do not say it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Invocation {
    /// The command, such as `certify`.
    pub command: String,
    /// The candidate as it was named; the path of a manifest is absolute.
    pub candidate: String,
    /// Digest of the candidate's manifest, as `algorithm:hex`.
    pub manifest_digest: String,
    /// Absolute paths of scenario documents, where the embedded catalogue was not used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
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
    /// How fast it was when the run began, beside whatever else it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
}

/// How fast a machine is at a moment: for whoever wonders whether two runs can be compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Calibration {
    /// SHA-256 by one thread, in MiB per second of the clock on the wall.
    pub sha256_mib_per_s: u64,
    /// How late the latest of some timers of a millisecond was, in microseconds.
    pub timer_late_us: u64,
    /// The load average of the last minute, in hundredths.
    pub load_hundredths: u64,
}

impl std::fmt::Display for Calibration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let late = self.timer_late_us as f64 / 1e3;
        let load = self.load_hundredths as f64 / 1e2;
        write!(
            f,
            "SHA-256 {} MiB/s, timers {late:.1} ms late, load {load:.2}",
            self.sha256_mib_per_s
        )
    }
}

/// The options of a run that change what it says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Options {
    /// The profile: `core`, `extended` or `all`.
    pub profile: String,
    /// The filter expression, where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Attempts per case: as many as this, or at most as many where the run ends when a claim is decided. 0 where neither is said.
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
    /// How it is decided which attempts are made.
    #[serde(default)]
    pub mode: Mode,
    /// Each case is repeated until this is proven or refuted for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_confidence: Option<Claim>,
    /// The run ends after so many milliseconds, those before it was resumed included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    /// The part of the attempts that this run makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// The known-bad proxies that have to be noticed before anything is believed; none in a run without canaries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canaries: Vec<String>,
}

/// How it is decided which attempts a run makes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// Every case as often as every other, or until a claim about it is decided.
    #[default]
    Certify,
    /// Every case again and again.
    Stress,
    /// Cases by what is least certain and most suspicious, under changing conditions.
    Soak,
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

/// Something that was done to the cluster of all attempts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SetupFinished {
    /// What was done, such as `create the cluster` or `install the candidate`.
    pub what: String,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
    /// Why it did not work; absent when it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl std::fmt::Display for SetupFinished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.duration_ms / 1e3;
        match &self.failed {
            None => write!(f, "{}: {seconds:.1} s", self.what),
            Some(why) => write!(f, "{}: failed after {seconds:.1} s: {why}", self.what),
        }
    }
}

/// What became of a proxy that is known to be bad.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryFinished {
    /// The run that it was made for: a merged log has the canaries of all its parts.
    pub run_id: String,
    /// Name of the proxy, one of the options' `canaries`.
    pub canary: String,
    /// What is wrong with it.
    pub fault: String,
    /// Id of the case that it met.
    pub case: String,
    /// Seed of the attempt that decided.
    pub seed: u64,
    /// Attempts that were made, those that say nothing included.
    pub attempts: u32,
    /// What became of it.
    pub outcome: CanaryOutcome,
    /// What gave it away, or why it was not noticed.
    pub message: String,
    /// How long all attempts took, in milliseconds.
    pub duration_ms: f64,
}

/// Whether a known-bad proxy was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CanaryOutcome {
    /// It failed, by what is wrong with it.
    Caught,
    /// It passed, or failed by something else: what passes in this run proves nothing.
    Missed,
    /// The machine or the harness got in the way every time.
    Unclear,
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

impl AttemptFinished {
    /// The verdict that counts. A pass has to be earned, whatever the log calls it: with a failure it is none, and one that asserted
    /// nothing says nothing about the candidate.
    pub fn judged(&self) -> Verdict {
        match self.verdict {
            Verdict::Pass if !self.failures.is_empty() => Verdict::Fail,
            Verdict::Pass if self.checks == 0 => Verdict::Infra,
            verdict => verdict,
        }
    }
}

/// What reruns of a failing case under one condition came to. Several of one case and experiment add up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentFinished {
    /// Id of the case.
    pub case: String,
    /// The condition.
    pub experiment: Experiment,
    /// Reruns that were made. None at all where the experiment is not possible; `what` says why.
    pub attempts: u32,
    /// Those of them that failed.
    pub failed: u32,
    /// Those of them that the machine or the harness got in the way of; the rest passed.
    pub infra: u32,
    /// What was done, for humans.
    pub what: String,
    /// What the first failed rerun says, if one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Conditions under which a failing case is rerun.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Experiment {
    /// The same attempt, one world at a time, nothing else running.
    Alone,
    /// Alone, while every CPU is kept busy.
    Contention,
    /// Alone, with the reference proxy in the candidate's place.
    Reference,
    /// The reference proxy, while every CPU is kept busy.
    ReferenceContention,
    /// Alone and without any proxy: the same sources probe the endpoints at their own addresses.
    Direct,
    /// Alone, with every deadline multiplied.
    Patient,
}

impl Experiment {
    /// All of them, in the order reports show them.
    pub const ALL: [Self; 6] = [
        Self::Alone,
        Self::Contention,
        Self::Reference,
        Self::ReferenceContention,
        Self::Direct,
        Self::Patient,
    ];

    /// The word used in logs and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Contention => "contention",
            Self::Reference => "reference",
            Self::ReferenceContention => "reference-contention",
            Self::Direct => "direct",
            Self::Patient => "patient",
        }
    }
}

impl std::fmt::Display for Experiment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
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
