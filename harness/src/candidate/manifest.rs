//! The candidate manifest: how to run a proxy, and what it does not claim to do.
//!
//! ```yaml
//! name: my-proxy
//! version: v0.3.1
//! url: https://example.org/my-proxy
//! unsupported:
//!   - {feature: sctp, reason: not implemented}
//! process:
//!   command: ["$(ENV:MY_PROXY)", "--kubeconfig=$(KUBECONFIG)", "--node=$(NODE_NAME)"]
//!   ready: {http: {port: 10256, path: /healthz}}
//! ```

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{
    cluster::ClusterSpec,
    form::Form,
    install::{Installation, Part},
};
use crate::scenario::{Feature, Problem, Span, load};

/// A candidate manifest as written.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// Name shown in reports.
    pub name: String,
    /// Version shown in reports.
    #[serde(default)]
    pub version: Option<String>,
    /// Where the project lives.
    #[serde(default)]
    pub url: Option<String>,
    /// Features the candidate declares as unsupported: their cases become typed skips.
    #[serde(default)]
    pub unsupported: Vec<Unsupported>,
    /// How to run it as a process in each node's network namespace (provider `netns`).
    #[serde(default)]
    pub process: Option<ProcessSpec>,
    /// How to install it on a real cluster (providers `kind` and `kubeconfig`).
    #[serde(default)]
    pub cluster: Option<ClusterSpec>,
}

/// A feature that a candidate does not claim.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Unsupported {
    /// The feature.
    pub feature: Feature,
    /// Why, for the reader of the report.
    pub reason: String,
    /// The form in which it is so; both without this.
    #[serde(default)]
    pub form: Option<Form>,
}

/// A candidate as a process. Every string may use `$(KUBECONFIG)`, `$(NODE_NAME)`, `$(NODE_IP)`, `$(NODE_IPS)`,
/// `$(CLUSTER_CIDR)`, `$(SERVICE_CIDR)`, `$(NODEPORT_ADDRESSES)`, `$(DIR)` (a private directory of the process) and
/// `$(ENV:NAME)` (a variable of the harness's own environment, for paths of binaries).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProcessSpec {
    /// Program and arguments. An empty list runs nothing at all (the null candidate).
    pub command: Vec<String>,
    /// Appended to `command` when a scenario sets `proxy.nodeportAddresses`. Without it those scenarios are skipped.
    #[serde(default)]
    pub nodeport_addresses_args: Option<Vec<String>>,
    /// Arguments in place of those of `command` with which the same program removes all that it left in the kernel, and ends with 0.
    /// Without it, scenarios about that are skipped.
    #[serde(default)]
    pub cleanup_args: Option<Vec<String>>,
    /// Environment; nothing is inherited but `PATH`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Files written into `$(DIR)` before the start.
    #[serde(default)]
    pub files: Vec<FileSpec>,
    /// Programs that must be on `PATH` (such as `nft` or `iptables`); a missing one ends the run with exit code 4.
    #[serde(default)]
    pub needs: Vec<String>,
    /// When the process counts as started.
    #[serde(default)]
    pub ready: Ready,
}

/// A file of a candidate.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileSpec {
    /// Name below `$(DIR)`.
    pub name: String,
    /// Content; variables are substituted.
    pub content: String,
}

/// When a candidate counts as started. All given conditions must hold.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Ready {
    /// An HTTP GET from the node itself answers 200.
    pub http: Option<HttpReady>,
    /// These kinds are being watched.
    pub watching: Vec<String>,
    /// Until when; 60 s by default.
    pub deadline: Option<Span>,
}

impl Ready {
    /// How long a start may take: kube-proxy on a busy machine needs seconds, not minutes.
    pub fn deadline(&self) -> std::time::Duration {
        self.deadline
            .map_or(std::time::Duration::from_secs(60), |span| span.0)
    }
}

/// An HTTP readiness probe.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpReady {
    /// Port on the node's loopback address.
    pub port: u16,
    /// Path.
    pub path: String,
}

/// A candidate that can be started.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The manifest.
    pub manifest: Manifest,
    /// The form it is used in.
    pub form: Form,
    /// What it installs, in the form of cluster objects.
    pub installation: Option<Arc<Installation>>,
    /// The program, opened with the user's own rights before a world gives them up.
    pub binary: Option<Binary>,
    /// No condition is waited for longer than this, for candidates that are there to fail.
    pub patience: Option<Span>,
    /// The manifest as written, and where it was.
    pub source: Source,
    /// What an experiment changes about the attempt.
    pub treatment: Treatment,
    /// Where the clusters come from that it runs in.
    pub provider: Arc<dyn crate::cluster::Provider>,
}

/// Where a candidate comes from, so that evidence can name it.
#[derive(Clone, Debug)]
pub struct Source {
    /// Name of one that is built in, or the path of the manifest as it was given.
    pub name: String,
    /// The manifest; nothing for those that are built in.
    pub text: Option<Arc<str>>,
    /// Directory that relative paths in the manifest start from.
    pub directory: PathBuf,
}

/// How attempts are made differently, to find out why a case fails (`docs/verdicts.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Treatment {
    /// Deadlines are this many times as long.
    pub stretch: u32,
    /// Without any proxy: endpoints are probed at their own addresses.
    pub direct: bool,
    /// On a cluster, Services are asked for where they are not, so that whatever proxy there is does not answer for them.
    pub elsewhere: Option<Elsewhere>,
}

/// Where Services are asked for that are somewhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// At ClusterIPs that no Service has.
    ClusterIp,
    /// At node ports that no Service has.
    NodePort,
}

impl Default for Treatment {
    fn default() -> Self {
        Self {
            stretch: 1,
            direct: false,
            elsewhere: None,
        }
    }
}

/// How long to wait for something that nobody does.
const FOR_NOTHING: Span = Span::millis(500);

/// An opened program.
#[derive(Clone, Debug)]
pub struct Binary {
    /// Path as found.
    pub path: PathBuf,
    /// Opened for execution.
    pub file: Arc<OwnedFd>,
    /// `sha256:...` of its content.
    pub digest: String,
}

/// Values of the variables for one node.
#[derive(Clone, Debug, Default)]
pub struct Variables(pub BTreeMap<&'static str, String>);

/// Why a candidate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CandidateError {
    /// The manifest is wrong.
    #[error(transparent)]
    Manifest(#[from] Problem),
    /// Something the manifest needs is not there.
    #[error("{file}: {message}")]
    Unusable {
        /// The manifest.
        file: String,
        /// What, and what to do.
        message: String,
    },
    /// A command that prints the candidate's objects failed.
    #[error("{file}: failed to run '{command}': {message}")]
    Command {
        /// The manifest.
        file: String,
        /// The command.
        command: String,
        /// What happened.
        message: String,
    },
    /// A program the candidate needs is missing on this machine.
    #[error(
        "candidate {candidate} needs '{tool}' on PATH, which is not there: install it (Debian package {tool}) and run again"
    )]
    MissingTool {
        /// Name of the candidate.
        candidate: String,
        /// The program.
        tool: String,
    },
}

const REFERENCE: &str = include_str!("../../../ci/candidates/reference.yaml");
const NULL: &str = include_str!("../../../ci/candidates/null.yaml");
const CANARY: &str = include_str!("../../../ci/candidates/canary.yaml");
const INSTALLED: &str = include_str!("../../../ci/candidates/installed.yaml");

/// The manifest of a candidate that is built in.
fn built_in(name: &str) -> Option<&'static str> {
    match name {
        "reference" => Some(REFERENCE),
        "null" => Some(NULL),
        "canary" => Some(CANARY),
        "installed" => Some(INSTALLED),
        _ => None,
    }
}

impl Candidate {
    /// Reads a candidate for the netns provider: the name of one that is built in, or the path of a manifest.
    pub fn load(reference: &str) -> Result<Self, CandidateError> {
        Self::load_as(reference, Form::Process)
    }

    /// Reads a candidate in the form that a provider needs.
    ///
    /// # Errors
    /// When the manifest is wrong, does not have that form, or needs what is not there.
    pub fn load_as(reference: &str, form: Form) -> Result<Self, CandidateError> {
        match built_in(reference) {
            Some(text) => Self::from_text_as(reference, text, None, form),
            None => Self::read(reference, None, form),
        }
    }

    /// Whether this is the name of a candidate that is built in: `reference`, `null`, `canary` or `installed`.
    pub fn is_built_in(reference: &str) -> bool {
        built_in(reference).is_some()
    }

    /// `sha256:...` of the manifest, which says what is run as much as the program does.
    pub fn manifest_digest(&self) -> String {
        let text = match &self.source.text {
            Some(text) => text.as_ref(),
            None => built_in(&self.source.name).unwrap_or(REFERENCE),
        };
        let mut digest = Sha256::new_with_prefix(text.as_bytes());
        for part in self.installation.iter().flat_map(|all| all.beside()) {
            digest.update(part.as_bytes());
        }
        let hex: String = digest
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("sha256:{hex}")
    }

    /// Reads a manifest whose relative paths start from another directory than the current one.
    pub fn load_from(path: &str, directory: &Path) -> Result<Self, CandidateError> {
        Self::read(path, Some(directory), Form::Process)
    }

    fn read(path: &str, directory: Option<&Path>, form: Form) -> Result<Self, CandidateError> {
        let text = read_manifest(path, "--candidate takes")?;
        let mut candidate = Self::from_text_as(path, &text, directory, form)?;
        candidate.source.text = Some(text.into());
        Ok(candidate)
    }

    /// Reads a manifest out of a text; `file` is its name in messages. Relative paths in it start from `directory`, or from the current one.
    pub fn from_text(
        file: &str,
        text: &str,
        directory: Option<&Path>,
    ) -> Result<Self, CandidateError> {
        Self::from_text_as(file, text, directory, Form::Process)
    }

    /// The same, in the form that a provider needs.
    ///
    /// # Errors
    /// When the manifest is wrong, does not have that form, or needs what is not there.
    pub fn from_text_as(
        file: &str,
        text: &str,
        directory: Option<&Path>,
        form: Form,
    ) -> Result<Self, CandidateError> {
        let name: Arc<str> = file.into();
        let manifest: Manifest = load::parse(&name, text)?;
        let lacks_form = || load::at_key(&name, text, "name", form.missing().into());
        let source = Source {
            name: file.into(),
            text: None,
            directory: match directory {
                Some(directory) => directory.into(),
                // Only a directory that is gone has no name; relative paths mean nothing in it.
                None => std::env::current_dir().unwrap_or_default(),
            },
        };
        if form == Form::Cluster {
            if manifest.cluster.is_none() {
                return Err(lacks_form().into());
            }
            let parts = parts(file, text, &manifest, &source.directory, &mut Vec::new())?;
            let installation = Installation::new(parts)?;
            let runs_nothing = |process: &ProcessSpec| process.command.is_empty();
            let nothing =
                installation.is_empty() && manifest.process.as_ref().is_some_and(runs_nothing);
            return Ok(Self {
                manifest,
                form,
                installation: Some(Arc::new(installation)),
                binary: None,
                patience: nothing.then_some(FOR_NOTHING),
                source,
                treatment: Treatment::default(),
                provider: Arc::new(crate::cluster::Netns),
            });
        }
        let Some(process) = &manifest.process else {
            return Err(lacks_form().into());
        };
        let unusable = |message: String| CandidateError::Unusable {
            file: file.into(),
            message,
        };
        for tool in &process.needs {
            if find_on_path(tool).is_none() {
                return Err(CandidateError::MissingTool {
                    candidate: manifest.name.clone(),
                    tool: tool.clone(),
                });
            }
        }
        // Variables are checked here once, so that a typing error is bad input and not a failed start in every world.
        let known = Variables::example();
        let texts = process
            .command
            .iter()
            .chain(process.nodeport_addresses_args.iter().flatten())
            .chain(process.cleanup_args.iter().flatten())
            .chain(process.env.values())
            .chain(process.files.iter().map(|file| &file.content));
        for text in texts {
            known.substitute(text).map_err(&unusable)?;
        }
        if let Some(file) = process
            .files
            .iter()
            .find(|file| file.name.contains('/') || file.name.is_empty())
        {
            return Err(unusable(format!(
                "'{}' is not a file name: files are written into $(DIR)",
                file.name
            )));
        }
        let binary = match process.command.first() {
            None => None,
            Some(program) => {
                let program = known.substitute(program).map_err(&unusable)?;
                let program = match directory {
                    Some(directory) if program.contains('/') => {
                        directory.join(program).display().to_string()
                    }
                    _ => program,
                };
                Some(Binary::open(&program).map_err(unusable)?)
            }
        };
        let patience = binary.is_none().then_some(FOR_NOTHING);
        Ok(Self {
            manifest,
            form,
            installation: None,
            binary,
            patience,
            source,
            treatment: Treatment::default(),
            provider: Arc::new(crate::cluster::Netns),
        })
    }

    /// The same candidate with deadlines this many times as long, also that of its start.
    #[must_use]
    pub fn stretched(mut self, stretch: u32) -> Self {
        self.treatment.stretch = stretch;
        if let Some(process) = &mut self.manifest.process {
            process.ready.deadline = Some(Span(process.ready.deadline() * stretch));
        }
        self
    }

    /// Nothing in the place of the candidate; endpoints are probed at their own addresses.
    #[must_use]
    pub fn absent(mut self) -> Self {
        self.binary = None;
        self.patience = None;
        self.treatment.direct = true;
        self
    }

    /// Why the candidate cannot do the feature in this form, if it says so.
    pub fn lacks(&self, feature: Feature) -> Option<String> {
        self.manifest
            .unsupported
            .iter()
            .find(|unsupported| {
                unsupported.feature == feature
                    && unsupported.form.is_none_or(|form| form == self.form)
            })
            .map(|unsupported| unsupported.reason.clone())
            .or_else(|| match self.form {
                Form::Process => self.process_lacks(feature),
                Form::Cluster => self.cluster_lacks(feature),
            })
    }

    fn process_lacks(&self, feature: Feature) -> Option<String> {
        let process = self.manifest.process.as_ref();
        let args = process.is_some_and(|process| {
            process.nodeport_addresses_args.is_some() || process.command.is_empty()
        });
        let cleanup = process
            .is_some_and(|process| process.cleanup_args.is_some() || process.command.is_empty());
        let healthz = process
            .is_some_and(|process| process.ready.http.is_some() || process.command.is_empty());
        match feature {
            Feature::NodePortAddresses if !args => {
                Some("the manifest has no nodeportAddressesArgs".into())
            }
            Feature::Cleanup if !cleanup => Some("the manifest has no cleanupArgs".into()),
            Feature::Healthz if !healthz => Some("the manifest has no ready.http to ask".into()),
            _ => None,
        }
    }

    fn cluster_lacks(&self, feature: Feature) -> Option<String> {
        let healthz = self.installation.as_ref().is_some_and(|all| all.has_http());
        match feature {
            Feature::NodePortAddresses => Some(
                "on a cluster, a candidate is installed once for all cases, with one choice of node port addresses".into(),
            ),
            Feature::Cleanup => Some(
                "on a cluster, a candidate is installed once for all cases, and cleaning up would take it from them".into(),
            ),
            Feature::Healthz if !healthz => {
                Some("the manifest has no cluster.ready.http to ask".into())
            }
            _ => None,
        }
    }

    /// How long its installation on a cluster may take.
    pub fn installation_deadline(&self) -> std::time::Duration {
        self.installation().deadline() * self.treatment.stretch
    }

    /// What is installed on a cluster.
    ///
    /// # Panics
    /// When the candidate was read in another form.
    pub fn installation(&self) -> &Arc<Installation> {
        self.installation
            .as_ref()
            .expect("a candidate read in its cluster form")
    }

    /// Whether it runs in a cluster already, and is nobody's business to start.
    pub fn is_installed(&self) -> bool {
        self.source.name == "installed"
    }

    /// Whether there is nothing to run: the candidate that does nothing.
    pub fn is_null(&self) -> bool {
        self.binary.is_none() && self.patience == Some(FOR_NOTHING)
    }

    /// The process section.
    pub fn process(&self) -> &ProcessSpec {
        self.manifest
            .process
            .as_ref()
            .expect("checked when the manifest was read")
    }
}

/// The text of a manifest; `takes` is what else could have been said in its place.
fn read_manifest(path: &str, takes: &str) -> Result<String, CandidateError> {
    load::read_text(Path::new(path)).map_err(|error| CandidateError::Unusable {
        file: path.into(),
        message: format!(
            "cannot be read: {error}; {takes} 'reference', 'null', 'canary', 'installed' or the path of a candidate manifest"
        ),
    })
}

/// The manifest's `cluster:` section, after those of `also`, whose own come before them. `above` are the manifests that led here.
fn parts(
    file: &str,
    text: &str,
    manifest: &Manifest,
    current: &Path,
    above: &mut Vec<String>,
) -> Result<Vec<Part>, CandidateError> {
    let Some(spec) = &manifest.cluster else {
        return Err(
            load::at_key(&file.into(), text, "name", Form::Cluster.missing().into()).into(),
        );
    };
    let directory = match built_in(file) {
        Some(_) => current.to_owned(),
        None => current.join(Path::new(file).parent().unwrap_or(Path::new(""))),
    };
    above.push(file.to_owned());
    let mut all = Vec::new();
    for also in &spec.also {
        let name = match built_in(also) {
            Some(_) => also.clone(),
            None => directory.join(also).display().to_string(),
        };
        if above.contains(&name) {
            let message = format!("'{also}' is installed together with itself");
            return Err(load::at_key(&file.into(), text, "cluster", message).into());
        }
        let text = match built_in(&name) {
            Some(text) => text.to_owned(),
            None => read_manifest(&name, "'also' takes")?,
        };
        let manifest: Manifest = load::parse(&name.as_str().into(), &text)?;
        all.extend(parts(&name, &text, &manifest, current, above)?);
    }
    above.pop();
    all.push(Part {
        file: file.to_owned(),
        text: text.to_owned(),
        directory,
        spec: spec.clone(),
    });
    Ok(all)
}

impl Binary {
    /// Opens a program: a path, a name on `PATH`, or `$(HARNESS)` for the harness itself. The error is a message for people.
    pub fn open(program: &str) -> Result<Self, String> {
        let path = if program == "$(HARNESS)" {
            std::env::current_exe()
                .map_err(|error| format!("the harness's own binary cannot be found: {error}"))?
        } else if program.contains('/') {
            PathBuf::from(program)
        } else {
            find_on_path(program).ok_or_else(|| format!("program '{program}' is not on PATH"))?
        };
        let open = || -> std::io::Result<Self> {
            let metadata = std::fs::metadata(&path)?;
            if !metadata.is_file() {
                return Err(std::io::Error::other("not a file"));
            }
            let mut file = std::fs::File::open(&path)?;
            nix::unistd::access(&path, nix::unistd::AccessFlags::X_OK)?;
            let mut hasher = Sha256::new();
            std::io::copy(&mut file, &mut hasher)?;
            let hex: String = hasher
                .finalize()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            Ok(Self {
                path: path.clone(),
                file: Arc::new(file.into()),
                digest: format!("sha256:{hex}"),
            })
        };
        open().map_err(|error| format!("program '{}' cannot be run: {error}", path.display()))
    }
}

/// Looks a program up in `PATH`, and in the directories where distributions keep administrators' tools.
pub fn find_on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
}

impl Variables {
    /// Every variable with some value: to check manifests.
    fn example() -> Self {
        Self(
            [
                "KUBECONFIG",
                "NODE_NAME",
                "NODE_IP",
                "NODE_IPS",
                "CLUSTER_CIDR",
                "SERVICE_CIDR",
                "NODEPORT_ADDRESSES",
                "DIR",
            ]
            .into_iter()
            .map(|name| (name, String::new()))
            .chain([("HARNESS", "$(HARNESS)".to_owned())])
            .collect(),
        )
    }

    /// Replaces every `$(NAME)`.
    pub fn substitute(&self, text: &str) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("$(") {
            out.push_str(&rest[..at]);
            let end = rest[at..]
                .find(')')
                .ok_or_else(|| format!("'$(' without ')' in '{text}'"))?;
            let name = &rest[at + 2..at + end];
            let value = match name.strip_prefix("ENV:") {
                Some(variable) => std::env::var(variable).map_err(|_| {
                    format!("the environment variable {variable} is not set: set it to the path of the candidate's binary")
                })?,
                None => self
                    .0
                    .get(name)
                    .cloned()
                    .ok_or_else(|| format!("unknown variable '$({name})' in '{text}'"))?,
            };
            out.push_str(&value);
            rest = &rest[at + end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_manifests_are_valid() {
        for name in ["reference", "null", "canary"] {
            let candidate = Candidate::load(name).expect(name);
            assert_eq!(candidate.manifest.name, name);
        }
    }

    #[test]
    fn messages_say_what_and_where() {
        let table = [
            ("name: x\nprocess:\n  comand: []\n", "m.yaml:3: "),
            ("name: x\n", "m.yaml:1: has no 'process'"),
            (
                "name: x\nprocess: {command: [\"$(ENV:HARNESS_TEST_UNSET)\"]}\n",
                "HARNESS_TEST_UNSET is not set",
            ),
            (
                "name: x\nprocess: {command: [sh, \"$(NODENAME)\"]}\n",
                "unknown variable '$(NODENAME)'",
            ),
            (
                "name: x\nprocess: {command: [/nonexistent/proxy]}\n",
                "/nonexistent/proxy' cannot be run",
            ),
            (
                "name: x\nprocess: {command: [], needs: [no-such-tool-here]}\n",
                "needs 'no-such-tool-here'",
            ),
        ];
        for (text, want) in table {
            let message = Candidate::from_text("m.yaml", text, None)
                .expect_err(text)
                .to_string();
            assert!(message.contains(want), "{message}\nshould contain: {want}");
        }
    }
}
