//! Waiting until workloads are rolled out, and finding out why they are not.

use std::{collections::BTreeMap, fmt, time::Duration};

use futures::{StreamExt as _, future::try_join_all, stream::BoxStream};
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{
    Api, Resource, ResourceExt as _,
    core::Selector,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use crate::{
    Progress, Rollout, Tell,
    error::Error,
    status::{self, ImageTrouble, Rolled},
};

/// How long an image may be missing before nobody waits for it any more. The kubelet pulls again after 10, 20 and 40 s: a registry that
/// answers wrongly once is no trouble.
const IMAGE_PATIENCE: Duration = Duration::from_secs(75);

/// Something that runs on the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workload {
    /// A DaemonSet.
    DaemonSet {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// A Deployment.
    Deployment {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
}

impl Workload {
    /// Namespace and name.
    pub(crate) fn place(&self) -> (&str, &str) {
        match self {
            Self::DaemonSet { namespace, name } | Self::Deployment { namespace, name } => {
                (namespace, name)
            }
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::DaemonSet { .. } => "DaemonSet",
            Self::Deployment { .. } => "Deployment",
        };
        let (namespace, name) = self.place();
        write!(f, "{kind} {namespace}/{name}")
    }
}

/// What was seen of a workload so far.
#[derive(Default)]
struct Seen {
    state: String,
    selector: Option<LabelSelector>,
    pods: BTreeMap<String, Pod>,
    /// Since when images are missing.
    imageless: Option<Instant>,
    /// Why nothing is seen at the moment.
    blind: Option<String>,
}

/// Why a wait ended.
enum End {
    Rolled,
    Imageless,
}

impl Rollout {
    /// Waits until workloads are rolled out, all at once.
    ///
    /// # Errors
    /// [`Error::NotReady`] with a diagnosis at the deadline; [`Error::Image`] before that, when an image cannot be had;
    /// [`Error::Node`] when a node is lost or has no room; [`Error::Api`] when the API server does not answer.
    pub async fn wait(
        &self,
        workloads: &[Workload],
        deadline: Duration,
        tell: Tell<'_>,
    ) -> Result<(), Error> {
        let until = Instant::now() + deadline;
        try_join_all(
            workloads
                .iter()
                .map(|workload| self.wait_for(workload, until, deadline, tell)),
        )
        .await?;
        Ok(())
    }

    async fn wait_for(
        &self,
        workload: &Workload,
        until: Instant,
        deadline: Duration,
        tell: Tell<'_>,
    ) -> Result<(), Error> {
        let mut seen = Seen {
            state: "it does not exist".into(),
            ..Seen::default()
        };
        let end = match workload {
            Workload::DaemonSet { namespace, name } => {
                let api = Api::namespaced(self.client.clone(), namespace);
                let judge =
                    |object: &DaemonSet| (object.spec.selector.clone(), status::daemon_set(object));
                let watch = self.watch(workload, api, name, judge, &mut seen, tell);
                timeout_at(until, watch).await
            }
            Workload::Deployment { namespace, name } => {
                let api = Api::namespaced(self.client.clone(), namespace);
                let judge = |object: &Deployment| {
                    (object.spec.selector.clone(), status::deployment(object))
                };
                let watch = self.watch(workload, api, name, judge, &mut seen, tell);
                timeout_at(until, watch).await
            }
        };
        if matches!(end, Ok(End::Rolled)) {
            return Ok(());
        }
        let what = workload.to_string();
        if let Some(message) = seen.blind {
            return Err(Error::Api {
                action: format!("see whether {what} is ready"),
                message,
            });
        }
        let selector = seen.selector.unwrap_or_default();
        let diagnosis = Box::new(self.diagnose(workload, &selector).await);
        if matches!(end, Ok(End::Imageless)) || diagnosis.lacks_image() {
            return Err(Error::Image { what, diagnosis });
        }
        if let Some(reason) = diagnosis.lost_node() {
            return Err(Error::Node {
                what,
                reason,
                diagnosis,
            });
        }
        Err(Error::NotReady {
            what,
            state: seen.state,
            deadline,
            diagnosis,
        })
    }

    async fn watch<K>(
        &self,
        workload: &Workload,
        api: Api<K>,
        name: &str,
        judge: impl Fn(&K) -> (LabelSelector, Rolled),
        seen: &mut Seen,
        tell: Tell<'_>,
    ) -> End
    where
        K: Resource + Clone + fmt::Debug + DeserializeOwned + Send + 'static,
    {
        // Short watches: a connection that broke silently is noticed after that.
        let config = watcher::Config::default().timeout(20);
        let only = config.clone().fields(&format!("metadata.name={name}"));
        let mut objects = watcher(api, only).default_backoff().boxed();
        let mut pods: Option<BoxStream<'static, watcher::Result<Event<Pod>>>> = None;
        let mut rolled = None;
        loop {
            let patience = seen.imageless.map(|since| since + IMAGE_PATIENCE);
            tokio::select! {
                Some(event) = objects.next() => match event {
                    Ok(Event::Apply(object) | Event::InitApply(object)) => {
                        seen.blind = None;
                        let (selector, now) = judge(&object);
                        if pods.is_none() {
                            pods = self.pods(workload, &selector, &config);
                        }
                        seen.selector = Some(selector);
                        rolled = Some(now);
                    }
                    Ok(Event::Delete(_)) => rolled = None,
                    Ok(Event::Init | Event::InitDone) => seen.blind = None,
                    Err(error) => seen.blind = Some(error.to_string()),
                },
                Some(event) = next(&mut pods) => match event {
                    Ok(Event::Apply(pod) | Event::InitApply(pod)) => {
                        seen.pods.insert(pod.name_any(), pod);
                    }
                    Ok(Event::Delete(pod)) => {
                        seen.pods.remove(&pod.name_any());
                    }
                    Ok(Event::Init) => seen.pods.clear(),
                    // Whether the server answers is told by the other watch.
                    Ok(Event::InitDone) | Err(_) => {}
                },
                () = at(patience) => return End::Imageless,
            }
            if rolled == Some(Rolled::Out) {
                tell(Progress {
                    what: workload.to_string(),
                    state: "rolled out".into(),
                });
                return End::Rolled;
            }
            match status::image_trouble(seen.pods.values()) {
                Some(ImageTrouble::Final) => return End::Imageless,
                Some(ImageTrouble::Retried) => {
                    seen.imageless.get_or_insert_with(Instant::now);
                }
                None => seen.imageless = None,
            }
            let state = match (&seen.blind, &rolled) {
                (Some(error), _) => format!("the API server does not answer: {error}"),
                (None, Some(Rolled::Waiting(state))) => {
                    let mut parts = vec![state.clone()];
                    parts.extend(status::waiting_for(seen.pods.values()));
                    parts.join("; ")
                }
                (None, _) => "it does not exist".into(),
            };
            if state != seen.state {
                tell(Progress {
                    what: workload.to_string(),
                    state: state.clone(),
                });
                seen.state = state;
            }
        }
    }

    fn pods(
        &self,
        workload: &Workload,
        selector: &LabelSelector,
        config: &watcher::Config,
    ) -> Option<BoxStream<'static, watcher::Result<Event<Pod>>>> {
        let (namespace, _) = workload.place();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let config = config.clone().labels(&label_selector(selector)?);
        Some(watcher(api, config).default_backoff().boxed())
    }
}

/// A selector as the API wants it in a query; nothing for one that no Pod or every Pod matches.
pub(crate) fn label_selector(selector: &LabelSelector) -> Option<String> {
    let text = Selector::try_from(selector.clone()).ok()?.to_string();
    (!text.is_empty()).then_some(text)
}

/// The next event, or never if there is no stream.
async fn next<T>(stream: &mut Option<BoxStream<'static, T>>) -> Option<T> {
    match stream {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
