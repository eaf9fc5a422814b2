//! The container engine: `docker`, `podman` or `nerdctl`, by its command line, as kind uses it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::error::{KindError, Result, Warning};
use crate::run::{Cancel, Finished, Invocation, Runner};

/// A question that the engine answers from what it knows; a busy machine with two cores needed up to 4 s.
const ASK: Duration = Duration::from_secs(60);
/// Starting, stopping or removing containers; stopping a node waits 10 s for its processes.
const CHANGE: Duration = Duration::from_secs(120);

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// nerdctl, or finch, which is nerdctl by another name.
    Nerdctl,
}

/// The engine that kind uses.
#[derive(Debug, Clone)]
pub struct Engine {
    kind: EngineKind,
    /// The value of `KIND_EXPERIMENTAL_PROVIDER` that makes kind use it.
    name: String,
    program: PathBuf,
    pub(crate) runner: Runner,
}

/// What the engine says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// Its version.
    pub version: String,
    /// Whether the machine has cgroup v1.
    pub cgroup_v1: bool,
    /// Whether it runs as an ordinary user.
    pub rootless: bool,
    /// The operating system it runs on, which may be that of a virtual machine.
    pub system: String,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Whether it runs.
    pub running: bool,
    /// What else it does: `exited`, `created`, `paused` ...
    pub status: String,
    /// Its exit code, if it has exited.
    pub exit_code: Option<i64>,
    /// Whether the kernel killed it for want of memory.
    pub oom_killed: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The networks that it is in, with its addresses there.
    pub networks: BTreeMap<String, (Option<Ipv4Addr>, Option<Ipv6Addr>)>,
}

/// A volume, which is where labels are kept that kind would not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
}

impl Engine {
    /// The engine that kind would choose: the one that `provider` (`KIND_EXPERIMENTAL_PROVIDER`) names, and otherwise docker, nerdctl, finch or podman, the
    /// first one that is there.
    pub(crate) fn find(
        provider: Option<&str>,
        path: &std::ffi::OsStr,
        runner: &Runner,
    ) -> Result<(Self, Option<Warning>)> {
        let known = match provider {
            Some("docker") => Some(EngineKind::Docker),
            Some("podman") => Some(EngineKind::Podman),
            Some("nerdctl" | "finch" | "nerdctl.lima") => Some(EngineKind::Nerdctl),
            _ => None,
        };
        if let (Some(kind), Some(name)) = (known, provider) {
            let program = search(name, path).ok_or_else(|| KindError::NotInstalled {
                program: name.to_owned(),
                hint: "KIND_EXPERIMENTAL_PROVIDER asks for it: install it and put it into PATH, or unset the variable".to_owned(),
            })?;
            return Ok((Self::new(kind, name, program, runner), None));
        }
        let ignored = provider
            .filter(|name| !name.is_empty())
            .map(|name| Warning::UnknownProvider(name.to_owned()));
        for (kind, name, says) in [
            (EngineKind::Docker, "docker", "Docker version"),
            (EngineKind::Nerdctl, "nerdctl", "nerdctl version"),
            (EngineKind::Nerdctl, "finch", "finch version"),
            (EngineKind::Podman, "podman", "podman version"),
        ] {
            let Some(program) = search(name, path) else {
                continue;
            };
            // `docker` may be another program under this name, which kind does not take for Docker either.
            let version = Invocation::new(&program, format!("`{name} -v`"), ASK)
                .arg("-v")
                .run(runner)?;
            if version.text().starts_with(says) {
                return Ok((Self::new(kind, name, program, runner), ignored));
            }
        }
        Err(KindError::NotInstalled {
            program: "docker, podman or nerdctl".to_owned(),
            hint: "kind makes nodes out of containers: install one of them and put it into PATH"
                .to_owned(),
        })
    }

    fn new(kind: EngineKind, name: &str, program: PathBuf, runner: &Runner) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            program,
            runner: runner.clone(),
        }
    }

    /// The same, run in another way.
    pub(crate) fn with(&self, runner: &Runner) -> Self {
        Self {
            runner: runner.clone(),
            ..self.clone()
        }
    }

    pub(crate) fn under(&self, cancel: &Cancel) -> Self {
        Self {
            runner: self.runner.under(cancel),
            ..self.clone()
        }
    }

    /// Which program it is.
    pub fn kind(&self) -> EngineKind {
        self.kind
    }

    /// Its name, as in `KIND_EXPERIMENTAL_PROVIDER`.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn call(&self, args: &[&str], what: impl Into<String>, deadline: Duration) -> Invocation {
        Invocation::new(&self.program, what, deadline).args(args)
    }

    /// A command that is not waited for, such as the client of a container that is talked to.
    pub(crate) fn command(&self, args: &[OsString]) -> Command {
        self.runner.command(&self.program, args)
    }

    pub(crate) fn info(&self) -> Result<EngineInfo> {
        let finished = self
            .call(
                &["info", "--format", "{{json .}}"],
                format!("`{} info`", self.name),
                ASK,
            )
            .run(&self.runner)?
            .success()?;
        let value: Value = json(&finished)?;
        if self.kind == EngineKind::Podman {
            let host = &value["host"];
            return Ok(EngineInfo {
                version: text(&value["version"]["Version"]),
                cgroup_v1: host["cgroupVersion"] == "v1",
                rootless: host["security"]["rootless"] == true,
                system: text(&host["distribution"]["distribution"]),
            });
        }
        // `docker info` exits with 0 in some versions though the daemon is not there, and says so in the answer.
        if let Some(errors) = value["ServerErrors"]
            .as_array()
            .filter(|errors| !errors.is_empty())
        {
            return Err(crate::classify::classify(&crate::classify::Transcript {
                argv: finished.argv.clone(),
                ended: finished.ended,
                stdout: String::new(),
                stderr: errors.iter().map(text).collect::<Vec<_>>().join("\n"),
            }));
        }
        let options = value["SecurityOptions"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        Ok(EngineInfo {
            version: text(&value["ServerVersion"]),
            cgroup_v1: value["CgroupVersion"] == "1",
            rootless: options
                .iter()
                .any(|option| text(option).contains("name=rootless")),
            system: text(&value["OperatingSystem"]),
        })
    }

    /// The names of all containers with this label (`key` or `key=value`), running or not.
    pub(crate) fn ps(&self, label: &str) -> Result<Vec<String>> {
        let filter = format!("label={label}");
        Ok(self
            .call(
                &["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"],
                "listing containers",
                ASK,
            )
            .run(&self.runner)?
            .success()?
            .lines())
    }

    /// The containers of these names that exist.
    pub(crate) fn inspect(&self, names: &[String]) -> Result<Vec<Container>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let finished = self
            .call(
                &["inspect", "--type", "container"],
                "looking at containers",
                ASK,
            )
            .args(names)
            .run(&self.runner)?;
        // If one of them is missing, the others are described nevertheless, and the exit code is 1.
        match serde_json::from_slice::<Vec<Value>>(&finished.stdout) {
            Ok(values) if !values.is_empty() || is_missing(&finished) => {
                Ok(values.iter().map(container).collect())
            }
            _ if is_missing(&finished) => Ok(Vec::new()),
            _ => {
                let finished = finished.success()?;
                Err(strange(&finished, "it is no list of containers"))
            }
        }
    }

    /// Runs a command in a container, with all privileges that the container has.
    pub(crate) fn exec(
        &self,
        container: &str,
        argv: &[String],
        stdin: Option<Vec<u8>>,
        deadline: Duration,
    ) -> Result<Finished> {
        let what = format!("`{}` in {container}", crate::log::quoted(argv));
        let mut call = self.call(&["exec", "--privileged"], what, deadline);
        if let Some(bytes) = stdin {
            call = call.arg("-i").stdin(bytes);
        }
        call.arg(container).args(argv).run(&self.runner)
    }

    /// Copies a file into a container.
    pub(crate) fn copy_into(&self, from: &Path, container: &str, to: &str) -> Result<()> {
        self.call(
            &["cp"],
            format!("copying {} to {container}", from.display()),
            CHANGE,
        )
        .arg(from)
        .arg(format!("{container}:{to}"))
        .run(&self.runner)?
        .success()?;
        Ok(())
    }

    /// Whether privileged containers can be started. Needs an image that is there and has a `true`.
    pub(crate) fn probe_privileged(&self, image: &str) -> Result<()> {
        let finished = self
            .call(
                &["run", "--rm", "--privileged", "--entrypoint", "true"],
                "starting a privileged container",
                CHANGE,
            )
            .arg(image)
            .run(&self.runner)?;
        match finished.success() {
            Ok(_) => Ok(()),
            // Whatever the engine says of it: nodes are started in the same way.
            Err(KindError::Other { detail, .. }) => Err(KindError::NoPrivileged {
                engine: self.name.clone(),
                detail,
            }),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn remove(&self, containers: &[String]) -> Result<()> {
        if containers.is_empty() {
            return Ok(());
        }
        let finished = self
            .call(&["rm", "-f", "-v"], "removing containers", CHANGE)
            .args(containers)
            .run(&self.runner)?;
        if is_missing(&finished)
            || String::from_utf8_lossy(&finished.stderr).contains("already in progress")
        {
            return Ok(());
        }
        finished.success()?;
        Ok(())
    }

    pub(crate) fn stop(&self, container: &str) -> Result<()> {
        self.change("stop", container)
    }

    pub(crate) fn start(&self, container: &str) -> Result<()> {
        self.change("start", container)
    }

    fn change(&self, verb: &str, container: &str) -> Result<()> {
        self.call(
            &[verb, container],
            format!("`{} {verb} {container}`", self.name),
            CHANGE,
        )
        .run(&self.runner)?
        .success()?;
        Ok(())
    }

    /// Waits until a container ends, in whatever way.
    pub(crate) fn wait(&self, container: &str, deadline: Duration) -> Result<Finished> {
        self.call(
            &["wait", container],
            format!("the end of {container}"),
            deadline,
        )
        .run(&self.runner)
    }

    pub(crate) fn load(&self, archive: &Path) -> Result<()> {
        self.call(
            &["load", "-i"],
            format!("loading {} into {}", archive.display(), self.name),
            Duration::from_secs(600),
        )
        .arg(archive)
        .run(&self.runner)?
        .success()?;
        Ok(())
    }

    pub(crate) fn has_image(&self, reference: &str) -> Result<bool> {
        let finished = self
            .call(
                &["image", "inspect", reference],
                format!("looking for image {reference}"),
                ASK,
            )
            .run(&self.runner)?;
        match finished.success() {
            Ok(_) => Ok(true),
            Err(KindError::ImageMissing { .. } | KindError::NodeGone { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The references of the images with this label.
    pub(crate) fn images(&self, label: &str) -> Result<Vec<String>> {
        let filter = format!("label={label}");
        let format = "{{.Repository}}:{{.Tag}}";
        Ok(self
            .call(
                &["images", "--filter", &filter, "--format", format],
                "listing images",
                ASK,
            )
            .run(&self.runner)?
            .success()?
            .lines())
    }

    pub(crate) fn remove_image(&self, reference: &str) -> Result<()> {
        self.call(
            &["rmi", reference],
            format!("removing image {reference}"),
            CHANGE,
        )
        .run(&self.runner)?
        .success()?;
        Ok(())
    }

    pub(crate) fn create_volume(&self, name: &str, labels: &[(&str, String)]) -> Result<()> {
        let mut call = self.call(&["volume", "create"], "marking a cluster", ASK);
        for (key, value) in labels {
            call = call.arg("--label").arg(format!("{key}={value}"));
        }
        call.arg(name).run(&self.runner)?.success()?;
        Ok(())
    }

    /// The volumes with this label (`key` or `key=value`).
    pub(crate) fn volumes(&self, label: &str) -> Result<Vec<Volume>> {
        let filter = format!("label={label}");
        let names = self
            .call(
                &["volume", "ls", "-q", "--filter", &filter],
                "listing volumes",
                ASK,
            )
            .run(&self.runner)?
            .success()?
            .lines();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let finished = self
            .call(&["volume", "inspect"], "looking at volumes", ASK)
            .args(&names)
            .run(&self.runner)?;
        // Volumes that went away in between are no matter, and the others are described nevertheless.
        let Ok(values) = serde_json::from_slice::<Vec<Value>>(&finished.stdout) else {
            let finished = finished.success()?;
            return Err(strange(&finished, "it is no list of volumes"));
        };
        Ok(values
            .iter()
            .map(|value| Volume {
                name: text(&value["Name"]),
                labels: labels(&value["Labels"]),
            })
            .collect())
    }

    pub(crate) fn remove_volumes(&self, names: &[String]) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let finished = self
            .call(&["volume", "rm", "-f"], "removing volumes", ASK)
            .args(names)
            .run(&self.runner)?;
        if String::from_utf8_lossy(&finished.stderr)
            .to_lowercase()
            .contains("no such volume")
        {
            return Ok(());
        }
        finished.success()?;
        Ok(())
    }
}

/// The file that a shell would run for this name.
pub(crate) fn search(name: &str, path: &std::ffi::OsStr) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    std::env::split_paths(path)
        .map(|directory| directory.join(name))
        .find(|file| {
            file.metadata()
                .is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
        })
}

fn is_missing(finished: &Finished) -> bool {
    let stderr = String::from_utf8_lossy(&finished.stderr).to_lowercase();
    [
        "no such object",
        "no such container",
        "no container with name or id",
        "not found",
    ]
    .iter()
    .any(|words| stderr.contains(words))
}

fn json<T: serde::de::DeserializeOwned>(finished: &Finished) -> Result<T> {
    serde_json::from_slice(&finished.stdout).map_err(|error| strange(finished, &error.to_string()))
}

fn strange(finished: &Finished, why: &str) -> KindError {
    KindError::Strange {
        command: crate::log::quoted(&finished.argv),
        why: why.to_owned(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn labels(value: &Value) -> BTreeMap<String, String> {
    value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), text(value)))
        .collect()
}

fn container(value: &Value) -> Container {
    let state = &value["State"];
    let networks = value["NetworkSettings"]["Networks"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, network)| {
            let v4 = text(&network["IPAddress"]).parse().ok();
            let v6 = text(&network["GlobalIPv6Address"]).parse().ok();
            (name.clone(), (v4, v6))
        })
        .collect();
    let running = state["Running"] == true;
    Container {
        name: text(&value["Name"]).trim_start_matches('/').to_owned(),
        running,
        status: text(&state["Status"]),
        exit_code: state["ExitCode"].as_i64().filter(|_| !running),
        oom_killed: state["OOMKilled"] == true,
        labels: labels(&value["Config"]["Labels"]),
        networks,
    }
}

impl Container {
    /// What became of it, as in "has exited with code 137".
    pub fn state(&self) -> String {
        match (self.running, self.exit_code) {
            (true, _) => "is running".to_owned(),
            (false, _) if self.oom_killed => "was killed for want of memory".to_owned(),
            (false, Some(code)) if self.status == "exited" => {
                format!("has exited with code {code}")
            }
            (false, _) => format!(
                "is {}",
                if self.status.is_empty() {
                    "not running"
                } else {
                    &self.status
                }
            ),
        }
    }
}
