//! From the `cluster:` section of a manifest, and of those that it is installed together with, to YAML that is ready to be applied.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use ipnet::IpNet;
use rollout::{Object, ParseError};

use super::{
    CandidateError,
    cluster::{
        ClusterSpec, Condition, DEADLINE, ImageSource, ManifestSource, ObjectRef, Origin, OwnImage,
        PodsSpec, ProxyMode, Removal, VariablePolicy,
    },
    manifest::find_on_path,
    substitute::{Unknown, substitute},
};
use crate::scenario::Problem;

/// How long a command that prints manifests may take; fetching a chart is most of it.
const COMMAND_DEADLINE: Duration = Duration::from_mins(5);

/// All that a candidate installs on a cluster.
#[derive(Clone, Debug)]
pub struct Installation {
    /// In the order of their installation. The last one is the candidate itself.
    parts: Vec<Part>,
}

/// One manifest's share.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// The manifest as the user knows it.
    pub file: String,
    /// Its text, to find lines in.
    pub text: String,
    /// Where relative paths in it start from.
    pub directory: PathBuf,
    /// The section.
    pub spec: ClusterSpec,
}

/// An image to load into the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// A Docker or OCI archive, which exists.
    Archive(PathBuf),
    /// One of our own.
    Own(OwnImage),
}

/// YAML that is ready to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Where it comes from, for messages.
    pub source: String,
    /// How many lines of that are before it; nothing if that is not known.
    pub above: Option<u64>,
    /// Documents.
    pub text: String,
}

impl Rendered {
    /// Its objects, which know the lines that they are written in.
    ///
    /// # Errors
    /// When it is no YAML, or a document is no object with a name.
    pub fn objects(&self) -> Result<Vec<Object>, ParseError> {
        let moved = |line: Option<u64>| Some(line? + self.above?);
        match Object::parse(&self.source, &self.text) {
            Ok(mut objects) => {
                for object in &mut objects {
                    object.line = moved(object.line);
                }
                Ok(objects)
            }
            Err(error) => Err(ParseError {
                line: moved(error.line),
                ..error
            }),
        }
    }
}

/// What a cluster is, for the variables of manifests.
#[derive(Clone, Debug)]
pub struct ClusterVariables {
    /// `$(API_SERVER_HOST)`: name or address under which nodes reach the API server without any Service, and that its certificate has.
    pub api_server_host: String,
    /// `$(API_SERVER_PORT)`.
    pub api_server_port: u16,
    /// `$(CLUSTER_CIDR)`: ranges of Pod addresses, at most one for each family.
    pub cluster_cidrs: Vec<IpNet>,
    /// `$(SERVICE_CIDR)`: ranges of cluster IPs, at most one for each family, which are also the cluster's families, the primary one first.
    pub service_cidrs: Vec<IpNet>,
    /// `$(CLUSTER_NAME)`.
    pub cluster_name: String,
    /// `$(KUBERNETES_VERSION)`, such as `v1.36.2`.
    pub kubernetes_version: String,
    /// `$(IMAGE:NAME)`: references of our own images as the nodes know them.
    pub images: BTreeMap<OwnImage, String>,
}

impl ClusterVariables {
    /// Something for every variable: to check manifests.
    pub fn example() -> Self {
        let ranges = |texts: [&str; 2]| texts.map(|text| text.parse().expect("a range")).into();
        Self {
            api_server_host: "example-control-plane".into(),
            api_server_port: 6443,
            cluster_cidrs: ranges(["10.244.0.0/16", "fd00:10:244::/56"]),
            service_cidrs: ranges(["10.96.0.0/16", "fd00:10:96::/112"]),
            cluster_name: "example".into(),
            kubernetes_version: "v1.36.0".into(),
            images: [OwnImage::Probe, OwnImage::ReferenceProxy]
                .map(|image| (image, format!("example.invalid/{}:example", image.name())))
                .into(),
        }
    }

    /// `$(API_SERVER_URL)`.
    pub fn api_server_url(&self) -> String {
        match self.api_server_host.contains(':') {
            true => format!(
                "https://[{}]:{}",
                self.api_server_host, self.api_server_port
            ),
            false => format!("https://{}:{}", self.api_server_host, self.api_server_port),
        }
    }

    /// Substitutes the variables in a text that needs no files.
    ///
    /// # Errors
    /// When a `$(` means nothing, or has no value.
    pub fn substitute(&self, text: &str, policy: VariablePolicy) -> Result<String, Unknown> {
        substitute(text, policy, &|name| self.value(name, Path::new("")))
    }

    /// The value of a variable; nothing if there is no such variable.
    fn value(&self, name: &str, directory: &Path) -> Result<Option<String>, String> {
        if let Some(variable) = name.strip_prefix("ENV:") {
            return match std::env::var(variable) {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(format!(
                    "the environment variable {variable} is not set (its value takes the place of '$(ENV:{variable})')"
                )),
            };
        }
        if let Some(image) = name.strip_prefix("IMAGE:") {
            let known = self.images.iter().find(|(own, _)| own.name() == image);
            return match known {
                Some((_, reference)) => Ok(Some(reference.clone())),
                None => Err(format!(
                    "there is no image '{image}' of the harness: write 'probe' or 'reference-proxy', and add it to 'images'"
                )),
            };
        }
        let of = |ranges: &[IpNet], v6: bool| {
            let range = ranges.iter().find(|range| is_ipv6(range) == v6);
            range.map(ToString::to_string).unwrap_or_default()
        };
        let has = |v6: bool| self.service_cidrs.iter().any(|range| is_ipv6(range) == v6);
        let joined = |texts: Vec<String>| texts.join(",");
        let all = |ranges: &[IpNet]| joined(ranges.iter().map(ToString::to_string).collect());
        Ok(Some(match name {
            "API_SERVER_HOST" => self.api_server_host.clone(),
            "API_SERVER_PORT" => self.api_server_port.to_string(),
            "API_SERVER_URL" => self.api_server_url(),
            "CLUSTER_CIDR" => all(&self.cluster_cidrs),
            "CLUSTER_CIDR_IPV4" => of(&self.cluster_cidrs, false),
            "CLUSTER_CIDR_IPV6" => of(&self.cluster_cidrs, true),
            "SERVICE_CIDR" => all(&self.service_cidrs),
            "SERVICE_CIDR_IPV4" => of(&self.service_cidrs, false),
            "SERVICE_CIDR_IPV6" => of(&self.service_cidrs, true),
            "IP_FAMILIES" => joined(
                self.service_cidrs
                    .iter()
                    .map(|range| if is_ipv6(range) { "IPv6" } else { "IPv4" }.to_owned())
                    .collect(),
            ),
            "IPV4" => has(false).to_string(),
            "IPV6" => has(true).to_string(),
            "CLUSTER_NAME" => self.cluster_name.clone(),
            "KUBERNETES_VERSION" => self.kubernetes_version.clone(),
            "DIR" => directory.display().to_string(),
            _ => return Ok(None),
        }))
    }
}

fn is_ipv6(range: &IpNet) -> bool {
    matches!(range, IpNet::V6(_))
}

impl Part {
    /// A mistake at the first line that has the words.
    fn problem(&self, words: &str, message: String) -> CandidateError {
        let line = self.text.lines().position(|line| {
            // Comments show what others write.
            line.contains(words) && !line.trim_start().starts_with('#')
        });
        Problem {
            file: self.file.as_str().into(),
            line: line.map_or(0, |at| at as u64 + 1),
            message,
        }
        .into()
    }

    /// How many lines of the manifest are before a text that is written in it as a block.
    fn above(&self, inline: &str) -> Option<u64> {
        let all: Vec<&str> = self.text.lines().map(str::trim).collect();
        let block: Vec<&str> = inline.lines().map(str::trim).collect();
        let mut windows = all.windows(block.len().max(1));
        windows
            .position(|window| window == block)
            .map(|at| at as u64)
    }

    fn unknown(&self, unknown: &Unknown) -> CandidateError {
        self.problem(&unknown.written, unknown.to_string())
    }

    fn strict(
        &self,
        text: &str,
        variables: &ClusterVariables,
        scratch: &Path,
    ) -> Result<String, CandidateError> {
        let lookup = |name: &str| variables.value(name, scratch);
        substitute(text, VariablePolicy::Strict, &lookup).map_err(|error| self.unknown(&error))
    }

    /// Everything that can be known before there is a cluster.
    fn check(&self) -> Result<(), CandidateError> {
        let example = ClusterVariables::example();
        let strict = |text: &str| self.strict(text, &example, Path::new("/scratch"));
        for file in &self.spec.files {
            if file.name.contains('/') || file.name.is_empty() || file.name.starts_with('.') {
                return Err(self.problem(
                    &file.name,
                    format!(
                        "'{}' is not a file name: files are written into $(DIR)",
                        file.name
                    ),
                ));
            }
            strict(&file.content)?;
        }
        for image in self.images()? {
            if let Image::Archive(path) = image
                && !path.is_file()
            {
                return Err(self.problem(
                    "archive",
                    format!("there is no image archive '{}'", path.display()),
                ));
            }
        }
        for source in &self.spec.manifests {
            match &source.origin {
                Origin::File(path) | Origin::Kustomize(path) => {
                    let directory = matches!(source.origin, Origin::Kustomize(_));
                    let found = self.directory.join(strict(path)?);
                    // What a command or 'files' puts into the scratch directory is not there yet.
                    let later = found.starts_with("/scratch");
                    if !later
                        && !(if directory {
                            found.is_dir()
                        } else {
                            found.is_file()
                        })
                    {
                        let what = if directory { "directory" } else { "file" };
                        return Err(
                            self.problem(path, format!("there is no {what} '{}'", found.display()))
                        );
                    }
                    if directory {
                        self.kustomize()?;
                    } else if !later {
                        let name = found.display().to_string();
                        let text = self.text_of(&found)?;
                        let lookup = |name: &str| example.value(name, Path::new("/scratch"));
                        let text = substitute(&text, source.variables, &lookup)
                            .map_err(|error| self.unusable(format!("{name}: {error}")))?;
                        self.is_yaml(name, Some(0), text)?;
                    }
                }
                Origin::Command(command) => {
                    for text in command {
                        strict(text)?;
                    }
                    self.program(&strict(&command[0])?)?;
                }
                Origin::Inline(written) => {
                    let text = written;
                    let lookup = |name: &str| example.value(name, Path::new("/scratch"));
                    let text = substitute(text, source.variables, &lookup)
                        .map_err(|error| self.unknown(&error))?;
                    for image in [OwnImage::Probe, OwnImage::ReferenceProxy] {
                        let used = text.contains(&example.images[&image]);
                        if used && !self.spec.images.contains(&ImageSource::Name(image)) {
                            return Err(self.problem(
                                &format!("$(IMAGE:{})", image.name()),
                                format!(
                                    "'images' does not have '- name: {}', so no node would have it",
                                    image.name()
                                ),
                            ));
                        }
                    }
                    let above = self.above(written);
                    self.is_yaml(self.file.clone(), above, text)?;
                }
            }
        }
        if let Some(pods) = &self.spec.pods
            && (pods.selector.trim().is_empty() || pods.namespace.trim().is_empty())
        {
            return Err(self.problem(
                "pods",
                "'pods' needs a namespace and a selector: all Pods of a namespace are not one candidate".into(),
            ));
        }
        Ok(())
    }

    fn unusable(&self, message: String) -> CandidateError {
        CandidateError::Unusable {
            file: self.file.clone(),
            message,
        }
    }

    fn text_of(&self, path: &Path) -> Result<String, CandidateError> {
        std::fs::read_to_string(path)
            .map_err(|error| self.unusable(format!("'{}' cannot be read: {error}", path.display())))
    }

    /// Whether a text is objects, with some values for its variables.
    fn is_yaml(
        &self,
        source: String,
        above: Option<u64>,
        text: String,
    ) -> Result<(), CandidateError> {
        let rendered = Rendered {
            source,
            above,
            text,
        };
        match rendered.objects() {
            Ok(_) => Ok(()),
            Err(error) => Err(Problem {
                file: error.source_name.as_str().into(),
                line: error.line.unwrap_or_default(),
                message: error.message,
            }
            .into()),
        }
    }

    fn images(&self) -> Result<Vec<Image>, CandidateError> {
        let example = ClusterVariables::example();
        let image = |source: &ImageSource| {
            Ok(match source {
                ImageSource::Name(image) => Image::Own(*image),
                ImageSource::Archive(path) => {
                    let path = self.strict(path, &example, Path::new("/scratch"))?;
                    Image::Archive(self.directory.join(path))
                }
            })
        };
        self.spec.images.iter().map(image).collect()
    }

    /// The program as it is run in the manifest's directory.
    fn program(&self, program: &str) -> Result<PathBuf, CandidateError> {
        let missing = || CandidateError::MissingTool {
            candidate: self.file.clone(),
            tool: program.to_owned(),
        };
        if program.contains('/') {
            let path = self.directory.join(program);
            return match path.is_file() || path.starts_with("/scratch") {
                true => Ok(path),
                false => Err(missing()),
            };
        }
        find_on_path(program).ok_or_else(missing)
    }

    fn kustomize(&self) -> Result<(PathBuf, &'static str), CandidateError> {
        let kubectl = self.program("kubectl").map(|path| (path, "kustomize"));
        kubectl.or_else(|missing| match self.program("kustomize") {
            Ok(path) => Ok((path, "build")),
            Err(_) => Err(missing),
        })
    }

    async fn render(
        &self,
        variables: &ClusterVariables,
        out: &mut Vec<Rendered>,
    ) -> Result<(), CandidateError> {
        let unusable = |message: String| self.unusable(message);
        let scratch = tempfile::tempdir().map_err(|error| {
            unusable(format!("a directory for its files cannot be made: {error}"))
        })?;
        let scratch = scratch.path();
        for file in &self.spec.files {
            let content = self.strict(&file.content, variables, scratch)?;
            std::fs::write(scratch.join(&file.name), content)
                .map_err(|error| unusable(format!("'{}' cannot be written: {error}", file.name)))?;
        }
        for source in &self.spec.manifests {
            let (name, text) = self.read(source, variables, scratch).await?;
            let lookup = |name: &str| variables.value(name, scratch);
            let text =
                substitute(&text, source.variables, &lookup).map_err(|error| {
                    match source.origin {
                        Origin::Inline(_) => self.unknown(&error),
                        _ => unusable(format!("{name}: {error}")),
                    }
                })?;
            let above = match &source.origin {
                Origin::Inline(text) => self.above(text),
                _ => Some(0),
            };
            out.push(Rendered {
                source: name,
                above,
                text,
            });
        }
        Ok(())
    }

    /// Name and text of a source before anything is substituted in it.
    async fn read(
        &self,
        source: &ManifestSource,
        variables: &ClusterVariables,
        scratch: &Path,
    ) -> Result<(String, String), CandidateError> {
        match &source.origin {
            Origin::Inline(text) => Ok((self.file.clone(), text.clone())),
            Origin::File(path) => {
                let path = self.directory.join(self.strict(path, variables, scratch)?);
                let text = self.text_of(&path)?;
                Ok((path.display().to_string(), text))
            }
            Origin::Kustomize(path) => {
                let path = self.directory.join(self.strict(path, variables, scratch)?);
                let (program, verb) = self.kustomize()?;
                let path = path.display().to_string();
                self.run(&program, &[verb.into(), path]).await
            }
            Origin::Command(command) => {
                let words = command
                    .iter()
                    .map(|word| self.strict(word, variables, scratch))
                    .collect::<Result<Vec<_>, _>>()?;
                let program = self.program(&words[0])?;
                self.run(&program, &words[1..]).await
            }
        }
    }

    /// Runs a program for its output. It gets the user's environment, for proxies and caches, but no cluster.
    async fn run(
        &self,
        program: &Path,
        arguments: &[String],
    ) -> Result<(String, String), CandidateError> {
        let name = [program.display().to_string()]
            .iter()
            .chain(arguments)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" ");
        let failed = |message: String| CandidateError::Command {
            file: self.file.clone(),
            command: name.clone(),
            message,
        };
        let output = tokio::process::Command::new(program)
            .args(arguments)
            .current_dir(&self.directory)
            .env("KUBECONFIG", "/dev/null")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(COMMAND_DEADLINE, output)
            .await
            .map_err(|_| failed(format!("did not end within {COMMAND_DEADLINE:?}")))?
            .map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(10)..].join("\n");
            return Err(failed(format!("{}:\n{last}", output.status)));
        }
        let text =
            String::from_utf8(output.stdout).map_err(|_| failed("its output is no text".into()))?;
        if text.trim().is_empty() {
            return Err(failed("it printed nothing".into()));
        }
        Ok((name, text))
    }
}

impl Installation {
    pub(super) fn new(parts: Vec<Part>) -> Result<Self, CandidateError> {
        for part in &parts {
            part.check()?;
        }
        let installation = Self { parts };
        let modes: BTreeSet<&str> = installation
            .specs()
            .map(|spec| spec.proxy_mode.name())
            .filter(|mode| *mode != ProxyMode::None.name())
            .collect();
        if modes.len() > 1 {
            let last = installation.own();
            return Err(last.problem(
                "also",
                format!("those installed together want kube-proxy in different modes: {modes:?}"),
            ));
        }
        Ok(installation)
    }

    fn own(&self) -> &Part {
        self.parts.last().expect("the candidate is a part")
    }

    fn specs(&self) -> impl DoubleEndedIterator<Item = &ClusterSpec> {
        self.parts.iter().map(|part| &part.spec)
    }

    /// Whether anything of it can be told where the API server is: by a variable (not in a comment; what a `file` has in it counts), or because kind
    /// installs it, so that its kubeconfig is known.
    pub fn asks_for_api(&self) -> bool {
        if self.proxy_mode() != ProxyMode::None {
            return true;
        }
        const ASKED: &str = "$(API_SERVER_";
        let said = |text: &str| {
            let mut lines = text.lines();
            lines.any(|line| line.contains(ASKED) && !line.trim_start().starts_with('#'))
        };
        self.parts.iter().any(|part| {
            let mut files = part.spec.manifests.iter().filter_map(|source| {
                let Origin::File(path) = &source.origin else {
                    return None;
                };
                std::fs::read_to_string(part.directory.join(path)).ok()
            });
            said(&part.text) || files.any(|text| said(&text))
        })
    }

    /// Whether nothing is installed: the cluster is taken as it is.
    pub fn is_empty(&self) -> bool {
        self.specs().all(|spec| spec.manifests.is_empty())
    }

    /// Whether it says which workloads have to be rolled out, be they installed or there already.
    pub fn has_workloads(&self) -> bool {
        let is_http = |condition: &Condition| matches!(condition, Condition::Http(_));
        self.specs()
            .any(|spec| spec.ready.iter().any(|one| !is_http(one)))
    }

    /// kube-proxy's mode in a cluster made for this.
    pub fn proxy_mode(&self) -> ProxyMode {
        let mut modes = self.specs().map(|spec| spec.proxy_mode);
        modes
            .rfind(|mode| *mode != ProxyMode::None)
            .unwrap_or_default()
    }

    /// Whether a cluster made for this comes without a network plugin.
    pub fn disable_default_cni(&self) -> bool {
        self.specs().any(|spec| spec.disable_default_cni)
    }

    /// Patches of kubeadm's configuration.
    pub fn kubeadm_config_patches(&self) -> Vec<String> {
        self.specs()
            .flat_map(|spec| spec.kubeadm_config_patches.clone())
            .collect()
    }

    /// Feature gates of Kubernetes; the candidate's own word is the last one.
    pub fn feature_gates(&self) -> BTreeMap<String, bool> {
        self.specs()
            .flat_map(|spec| spec.feature_gates.clone())
            .collect()
    }

    /// What is removed before anything is installed.
    pub fn remove_first(&self) -> Vec<ObjectRef> {
        self.specs()
            .flat_map(|spec| spec.remove_first.iter().flat_map(Removal::objects))
            .collect()
    }

    /// What is loaded into the nodes, each once.
    ///
    /// # Errors
    /// When an environment variable in a path is no longer set.
    pub fn images(&self) -> Result<Vec<Image>, CandidateError> {
        let mut all = Vec::new();
        for part in &self.parts {
            for image in part.images()? {
                if !all.contains(&image) {
                    all.push(image);
                }
            }
        }
        Ok(all)
    }

    /// When it counts as installed.
    pub fn ready(&self) -> Vec<Condition> {
        self.specs().flat_map(|spec| spec.ready.clone()).collect()
    }

    /// Until when it must be ready: what the most patient one asks for.
    pub fn deadline(&self) -> Duration {
        let deadlines = self.specs().filter_map(|spec| spec.deadline);
        deadlines.map(|span| span.0).max().unwrap_or(DEADLINE)
    }

    /// The Pods that are the candidate.
    pub fn pods(&self) -> Option<&PodsSpec> {
        // Whoever is added may be no proxy; the first one of those installed together is.
        let own = self.own().spec.pods.as_ref();
        own.or_else(|| self.specs().find_map(|spec| spec.pods.as_ref()))
    }

    /// Whether the candidate answers HTTP about its own health.
    pub fn has_http(&self) -> bool {
        let is_http = |condition: &Condition| matches!(condition, Condition::Http(_));
        self.specs().any(|spec| spec.ready.iter().any(is_http))
    }

    /// The manifests of those installed together with the candidate.
    pub(super) fn beside(&self) -> impl Iterator<Item = &str> {
        let (_, beside) = self.parts.split_last().expect("the candidate is a part");
        beside.iter().map(|part| part.text.as_str())
    }

    /// Runs the commands, reads the files and substitutes the variables.
    ///
    /// # Errors
    /// When a command fails, or a variable has no value.
    pub async fn render(
        &self,
        variables: &ClusterVariables,
    ) -> Result<Vec<Rendered>, CandidateError> {
        let mut out = Vec::new();
        for part in &self.parts {
            part.render(variables, &mut out).await?;
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
