//! Where clusters come from: kind and a container engine on this machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rand::Rng;

use crate::classify::cause_in_log;
use crate::cluster::Cluster;
use crate::engine::{Engine, EngineInfo, search};
use crate::error::{KindError, Result, Warning};
use crate::inotify::Inotify;
use crate::kind::KindCommand;
use crate::log::CallLog;
use crate::off::off;
use crate::owned::{self, Life, Owned};
use crate::private::{self, Private};
use crate::remove::{KIND_LABEL, remove};
use crate::run::{Cancel, Runner};
use crate::spec::{ClusterSpec, valid_name};
use crate::version::Version;

/// Where to look for programs, and in which environment they run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where programs are looked for, as in `PATH`; that of this process if there is none.
    pub path: Option<OsString>,
    /// Which engine kind uses: `docker`, `podman`, `nerdctl` ...; the value of `KIND_EXPERIMENTAL_PROVIDER` if there is none.
    pub provider: Option<String>,
    /// Further environment variables of kind and the engine.
    pub env: Vec<(OsString, OsString)>,
    /// Where directories with kubeconfigs are made; that for temporary files if there is none.
    pub directory: Option<PathBuf>,
    /// Where calls are written down.
    pub log: CallLog,
}

/// kind and the container engine that it uses, both of which answer. Clones are the same.
#[derive(Debug, Clone)]
pub struct Kind {
    pub(crate) tools: Tools,
    version: Version,
    info: EngineInfo,
    warnings: Vec<Warning>,
    /// The image with which it was tried whether privileged containers start.
    privileged: Arc<OnceLock<String>>,
}

/// What clusters are made and removed with.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub(crate) kind: KindCommand,
    pub(crate) engine: Engine,
    pub(crate) directory: PathBuf,
    /// Images that were loaded into the engine, and are removed from it with the last cluster.
    loaded: Arc<Mutex<Vec<String>>>,
}

impl Tools {
    pub(crate) fn under(&self, cancel: &Cancel) -> Self {
        Self {
            kind: self.kind.under(cancel),
            engine: self.engine.under(cancel),
            directory: self.directory.clone(),
            loaded: self.loaded.clone(),
        }
    }

    /// The same for work that has to be done to its end.
    pub(crate) fn to_the_end(&self) -> Self {
        self.under(&Cancel::never())
    }

    pub(crate) fn remove(&self, name: &str, directory: &Path) -> Result<()> {
        let tools = self.to_the_end();
        remove(Some(&tools.kind), &tools.engine, name, Some(directory))?;
        self.remove_images();
        Ok(())
    }

    /// Removes the images that were loaded into the engine, unless a cluster is left whose harness may need them.
    fn remove_images(&self) {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let engine = self.engine.under(&Cancel::never());
        if loaded.is_empty()
            || owned::owned(&engine).map_or(true, |clusters| {
                clusters.iter().any(|cluster| cluster.life == Life::Alive)
            })
        {
            return;
        }
        // One that somebody's container uses stays, and that is right.
        loaded
            .drain(..)
            .for_each(|image| drop(engine.remove_image(&image)));
    }
}

/// The runner for these options, and the path in which programs are looked for.
pub(crate) fn runner(options: &Options, provider: Option<&str>) -> (Runner, OsString) {
    let path = options
        .path
        .clone()
        .or_else(|| std::env::var_os("PATH"))
        .unwrap_or_default();
    let mut env: Vec<(OsString, Option<OsString>)> = vec![
        // The user's own clusters are none of our business.
        ("KUBECONFIG".into(), None),
        ("KIND_CLUSTER_NAME".into(), None),
        (
            "KIND_EXPERIMENTAL_PROVIDER".into(),
            provider.map(OsString::from),
        ),
        ("PATH".into(), Some(path.clone())),
    ];
    env.extend(
        options
            .env
            .iter()
            .map(|(name, value)| (name.clone(), Some(value.clone()))),
    );
    let runner = Runner {
        log: options.log.clone(),
        env: Arc::new(env),
        cancel: Cancel::never(),
    };
    (runner, path)
}

/// The engine for these options.
pub(crate) fn engine(options: &Options, cancel: &Cancel) -> Result<(Engine, Option<Warning>)> {
    let provider = options
        .provider
        .clone()
        .or_else(|| std::env::var("KIND_EXPERIMENTAL_PROVIDER").ok());
    let (first, path) = runner(options, None);
    let (engine, warning) = Engine::find(provider.as_deref(), &path, &first.under(cancel))?;
    // Whatever was found is named to kind, so that both use the same.
    let (runner, _) = runner(options, Some(engine.name()));
    Ok((engine.with(&runner.under(cancel)), warning))
}

/// kind for these options and this engine.
pub(crate) fn kind(options: &Options, engine: &Engine) -> Result<KindCommand> {
    let (runner, path) = runner(options, Some(engine.name()));
    let program = search("kind", &path).ok_or_else(|| KindError::NotInstalled {
        program: "kind".to_owned(),
        hint: format!(
            "install kind {} or newer and put it into PATH",
            crate::version::OLDEST
        ),
    })?;
    Ok(KindCommand::new(
        program,
        &runner.under(&engine.runner.cancel),
    ))
}

impl Kind {
    /// Looks for kind and for the engine that it would use, and asks both whether they work.
    ///
    /// # Errors
    /// `NotInstalled`, `OldKind`, `EngineDown`, `NoPermission`.
    pub async fn find(options: Options) -> Result<Self> {
        off(move |cancel| {
            let (engine, ignored) = engine(&options, cancel)?;
            let kind = kind(&options, &engine)?;
            let version = kind.version()?;
            let info = engine.info()?;
            let mut warnings: Vec<Warning> = ignored.into_iter().collect();
            if info.cgroup_v1 {
                warnings.push(Warning::CgroupV1);
            }
            let directory = options.directory.clone().unwrap_or_else(std::env::temp_dir);
            let tools = Tools {
                kind,
                engine,
                directory,
                loaded: Arc::default(),
            };
            Ok(Self {
                tools: tools.to_the_end(),
                version,
                info,
                warnings,
                privileged: Arc::default(),
            })
        })
        .await
    }

    /// All calls of kind and of the engine so far.
    pub fn log(&self) -> &CallLog {
        &self.tools.kind.runner.log
    }

    /// kind's version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The engine that kind uses.
    pub fn engine(&self) -> &Engine {
        &self.tools.engine
    }

    /// What the engine says about itself.
    pub fn info(&self) -> &EngineInfo {
        &self.info
    }

    /// What works and will not for long.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The names of all clusters, whoever made them.
    pub async fn clusters(&self) -> Result<Vec<String>> {
        let tools = self.tools.clone();
        off(move |cancel| tools.under(cancel).kind.clusters()).await
    }

    /// Whose cluster of ours this is; nothing if it has no marker.
    pub async fn owned(&self, name: &str) -> Result<Option<Owned>> {
        let (tools, name) = (self.tools.clone(), name.to_owned());
        off(move |cancel| {
            let owned = owned::owned(&tools.under(cancel).engine)?;
            Ok(owned.into_iter().find(|cluster| cluster.name == name))
        })
        .await
    }

    /// Looks whether the machine can have such a cluster, as far as that can be seen without making it: inotify instances, privileged containers.
    /// [`create`](Self::create) looks, too.
    pub async fn check(&self, spec: &ClusterSpec) -> Result<()> {
        let (this, spec) = (self.clone(), spec.clone());
        off(move |cancel| this.check_now(&this.tools.under(cancel), &spec)).await
    }

    /// Creates a cluster; when it returns, kind has exited with 0 and all nodes are running. Whether they are Ready is the caller's question.
    ///
    /// Whatever fails, and also if the future is dropped, which takes as long as the deletion then: what was made is deleted again before this returns. If
    /// that fails, too, the error says so and `harness clean` finds it. Clusters may be created at the same time.
    pub async fn create(&self, spec: ClusterSpec) -> Result<Cluster> {
        let this = self.clone();
        off(move |cancel| this.create_now(&spec, cancel)).await
    }

    /// Opens a cluster that exists, with a fresh private kubeconfig. It is not deleted when it is dropped, and as long as it is open, `harness clean` does
    /// not touch it.
    ///
    /// # Errors
    /// `UnknownCluster` names those that exist.
    pub async fn open(&self, name: &str) -> Result<Cluster> {
        let (tools, name) = (self.tools.clone(), name.to_owned());
        off(move |cancel| open_now(&tools, &name, cancel)).await
    }

    /// Loads an image archive into the engine, for containers outside of a cluster, unless an image of this name with a digest in it is there.
    pub async fn load_into_engine(&self, archive: &Path, reference: &str) -> Result<()> {
        let (tools, archive, reference) =
            (self.tools.clone(), archive.to_owned(), reference.to_owned());
        off(move |cancel| {
            let engine = tools.under(cancel).engine;
            if crate::image::is_by_content(&reference) && engine.has_image(&reference)? {
                return Ok(());
            }
            engine.load(&archive)?;
            tools
                .loaded
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(reference.clone());
            if engine.has_image(&reference)? {
                return Ok(());
            }
            Err(KindError::NotLoaded {
                reference,
                node: engine.name().to_owned(),
                there: Vec::new(),
            })
        })
        .await
    }

    fn check_now(&self, tools: &Tools, spec: &ClusterSpec) -> Result<()> {
        spec.check(self.version)?;
        // Another machine's limits, or those of a virtual machine, cannot be seen from here; a rootless engine's root is not the machine's.
        let remote = std::env::var_os("DOCKER_HOST")
            .is_some_and(|host| !host.to_string_lossy().starts_with("unix:"));
        if !remote
            && !self.info.rootless
            && !self.info.system.contains("Docker Desktop")
            && let Some(inotify) = Inotify::read()
        {
            inotify.check(spec.nodes())?;
        }
        // Only with an image that is there: kind pulls the others, and says what it thinks of it.
        if let Some(image) = &spec.image
            && self.privileged.get() != Some(image)
            && tools.engine.has_image(image)?
        {
            tools.engine.probe_privileged(image)?;
            let _ = self.privileged.set(image.clone());
        }
        Ok(())
    }

    fn create_now(&self, spec: &ClusterSpec, cancel: &Cancel) -> Result<Cluster> {
        let tools = self.tools.under(cancel);
        self.check_now(&tools, spec)?;
        let config = spec.config(self.info.cgroup_v1)?;
        let name = match &spec.name {
            Some(name) => name.clone(),
            None => random_name(),
        };
        // Nobody's cluster of this name is touched, not even when creation fails on it.
        if !tools.engine.ps(&format!("{KIND_LABEL}={name}"))?.is_empty() {
            return Err(KindError::NameTaken { name });
        }
        let private = Private::create(&tools.directory, &name)?;
        let started = private
            .write("kind.yaml", config.as_bytes())
            .and_then(|path| owned::claim(&tools.engine, &name, private.path()).map(|()| path));
        let config = match started {
            Ok(config) => config,
            Err(error) => {
                // An interrupted claim may have made the marker; another one's has another directory in it.
                private.remove();
                if matches!(error, KindError::NameTaken { .. }) {
                    return Err(error);
                }
                return Err(and_then(
                    error,
                    owned::disclaim(&tools.to_the_end().engine, &name, private.path()),
                ));
            }
        };
        let made = self.bring_up(&tools, spec, &name, &config, &private);
        let error = match made {
            Ok(()) => return Ok(Cluster::made(self.tools.clone(), name, private)),
            Err(error) => error,
        };
        // Somebody else was quicker, without a marker: what there is, is his.
        if matches!(error, KindError::NameTaken { .. }) {
            let forgotten = owned::forget(&tools.to_the_end().engine, &name);
            private.remove();
            return Err(and_then(error, forgotten));
        }
        let error = if cancel.is_cancelled() {
            error
        } else {
            let logs = spec
                .failure_logs
                .clone()
                .unwrap_or_else(|| private.file("logs"));
            explained(&tools, &name, &logs, error)
        };
        Err(and_then(error, self.tools.remove(&name, private.path())))
    }

    fn bring_up(
        &self,
        tools: &Tools,
        spec: &ClusterSpec,
        name: &str,
        config: &Path,
        private: &Private,
    ) -> Result<()> {
        let kubeconfig = private.file("kubeconfig");
        let image = spec.image.as_deref();
        tools
            .kind
            .create(name, config, &kubeconfig, image, spec.deadline)?;
        private::close(&kubeconfig)?;
        let nodes = crate::cluster::nodes(&tools.engine, name)?;
        if let Some(node) = nodes.iter().find(|node| !node.running) {
            return Err(node.gone());
        }
        let expected = spec.nodes() as usize;
        if nodes.len() != expected {
            return Err(KindError::Strange {
                command: format!("kind create cluster --name {name}"),
                why: format!(
                    "it exited with 0 and made {} nodes instead of {expected}",
                    nodes.len()
                ),
            });
        }
        Ok(())
    }
}

/// Exports the logs of what failed, and takes a better explanation from them or from the nodes' containers, if there is one: kind itself only sees that a
/// command in a node did not come back, or that kubeadm waited in vain.
fn explained(tools: &Tools, name: &str, directory: &Path, error: KindError) -> KindError {
    // Nodes that are down have some logs, and make it fail.
    let _ = tools.kind.export_logs(name, directory);
    if !matches!(
        error,
        KindError::Other { .. } | KindError::Timeout { .. } | KindError::NodeGone { .. }
    ) {
        return error;
    }
    let logs = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let cause = logs
        .flat_map(|node| ["kubelet.log", "serial.log"].map(|file| node.path().join(file)))
        .filter_map(|file| std::fs::read(file).ok())
        .find_map(|log| cause_in_log(&String::from_utf8_lossy(&log)));
    if let Some(cause) = cause {
        return cause;
    }
    let nodes = crate::cluster::nodes(&tools.engine, name).unwrap_or_default();
    match nodes.iter().find(|node| !node.running) {
        Some(node) => node.gone(),
        None => error,
    }
}

fn open_now(tools: &Tools, name: &str, cancel: &Cancel) -> Result<Cluster> {
    valid_name(name)?;
    let under = tools.under(cancel);
    let there = under.kind.clusters()?;
    if !there.iter().any(|cluster| cluster == name) {
        return Err(KindError::UnknownCluster {
            name: name.to_owned(),
            there: Some(there),
        });
    }
    let marker = owned::visit(&under.engine, name)?;
    let private = Private::create(&tools.directory, name)?;
    // From here on, the drop of this removes the marker and the directory.
    let cluster = Cluster::opened(tools.clone(), name.to_owned(), private, marker);
    let kubeconfig = under.kind.kubeconfig(name)?;
    cluster
        .private()
        .write("kubeconfig", kubeconfig.as_bytes())?;
    let nodes = crate::cluster::nodes(&under.engine, name)?;
    match nodes.iter().find(|node| !node.running) {
        Some(node) => Err(node.gone()),
        None => Ok(cluster),
    }
}

pub(crate) fn and_then(first: KindError, then: Result<()>) -> KindError {
    match then {
        Ok(()) => first,
        Err(second) => KindError::LeftBehind {
            first: Box::new(first),
            second: Box::new(second),
        },
    }
}

fn random_name() -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = rand::rng();
    let tail: String = (0..6)
        .map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())]))
        .collect();
    format!("harness-{tail}")
}
