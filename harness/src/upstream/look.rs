//! Looks at a cluster before specs run on it: which nodes they will use, in which zones these are, and whether they have the images or can get them.
//!
//! What a node has is asked of its kubelet by a Pod with a container per image, which is how a spec will ask. The list in the Node's status is
//! shorter (50 images), late, and does not say what could be pulled. No container runs anything: each is told to start a program that is
//! in no image, so it fails when the image is there, which is what was to be seen.
//!
//! ```text
//!   waiting: ErrImagePull, ImagePullBackOff ... ──► tried again by the kubelet ──► still so: the image cannot be had
//!   terminated: StartError, waiting: RunContainerError ... ──► the image is there
//!   waiting: ContainerCreating ──► it is being pulled
//! ```

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{ContainerStatus, Namespace, Node as NodeObject, Pod};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use tokio::time::sleep;

use super::{images::Missing, pulling::REASONS};
use crate::cluster::real::pods;

/// A poll of a condition with a deadline.
const POLL: Duration = Duration::from_millis(300);

/// An API server that is there answers within seconds.
const ANSWERS: Duration = Duration::from_secs(30);

/// A failed pull may be a registry's bad moment. The kubelet tries again after 10 s (`pkg/kubelet/kubelet.go`, the first back-off), and trying took 8 s on a
/// machine without a way to the registry.
const TRIED_AGAIN: Duration = Duration::from_secs(25);

/// Large images over a slow network take minutes. What takes longer is too late for the specs, too, which wait for 300 s.
const PULLED: Duration = Duration::from_secs(600);

/// Why a cluster cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The kubeconfig cannot be used.
    #[error("--kubeconfig {file}: {said}")]
    Kubeconfig {
        /// Its path.
        file: String,
        /// What is wrong with it.
        said: String,
    },
    /// The API server refuses or does not answer.
    #[error("the cluster cannot be looked at before specs run on it: {what}: {said}")]
    Cluster {
        /// What was asked of it.
        what: &'static str,
        /// What came of it.
        said: String,
    },
    /// No node can have Pods.
    #[error("no node of the cluster is Ready and may have Pods, so no spec can be run")]
    NoNodes,
}

fn cluster<E: std::error::Error>(what: &'static str) -> impl Fn(E) -> LookError {
    move |error| LookError::Cluster {
        what,
        said: chain(&error),
    }
}

/// An error with everything that it comes from: a connection that was refused is told by the last of them.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = error.source();
    }
    text
}

/// A node that specs can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The value of its label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
}

/// The number of zones of some nodes.
pub fn zones(nodes: &[Node]) -> usize {
    let zones = nodes.iter().filter_map(|node| node.zone.as_deref());
    zones.collect::<std::collections::BTreeSet<&str>>().len()
}

/// What the nodes have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The images that some node does not have and cannot get.
    pub missing: Vec<Missing>,
    /// Nodes that could not be asked, and why.
    pub silent: BTreeMap<String, String>,
}

/// A cluster that is looked at.
pub struct Look {
    client: Client,
    namespace: String,
}

impl Look {
    /// The cluster that a kubeconfig leads to.
    ///
    /// # Errors
    /// A file that is no kubeconfig, or has no such context.
    pub async fn at(
        file: &Path,
        context: Option<&str>,
        namespace: String,
    ) -> Result<Self, LookError> {
        let wrong = |error: &dyn std::error::Error| LookError::Kubeconfig {
            file: file.display().to_string(),
            said: chain(error),
        };
        let kubeconfig = Kubeconfig::read_from(file).map_err(|error| wrong(&error))?;
        let options = KubeConfigOptions {
            context: context.map(str::to_owned),
            ..KubeConfigOptions::default()
        };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        let config = config.map_err(|error| wrong(&error))?;
        let client = Client::try_from(config).map_err(|error| wrong(&error))?;
        Ok(Self { client, namespace })
    }

    /// The client that looks.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The nodes that specs use: Ready, without taints that keep Pods away, and running Linux.
    ///
    /// # Errors
    /// An API server that does not answer, and a cluster without such a node.
    pub async fn nodes(&self) -> Result<Vec<Node>, LookError> {
        let api: Api<NodeObject> = Api::all(self.client.clone());
        let params = ListParams::default();
        let listed = tokio::time::timeout(ANSWERS, api.list(&params)).await;
        let listed = listed.map_err(cluster("list Nodes"))?;
        let listed = listed.map_err(cluster("list Nodes"))?;
        let mut nodes: Vec<Node> = listed.items.iter().filter_map(usable).collect();
        if nodes.is_empty() {
            return Err(LookError::NoNodes);
        }
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(nodes)
    }

    /// Asks each node for each image, until all have said or `stop` is set. `waits` is told what is waited for.
    ///
    /// What was made for it is being deleted when this returns, and [`Look::gone`] says whether it is gone.
    ///
    /// # Errors
    /// An API server that refuses or does not answer.
    pub async fn images(
        &self,
        nodes: &[Node],
        images: &[String],
        stop: &AtomicBool,
        waits: impl Fn(&str),
    ) -> Result<Found, LookError> {
        if images.is_empty() {
            return Ok(Found::default());
        }
        let asked = self.ask(nodes, images, stop, waits).await;
        self.delete().await;
        asked
    }

    async fn ask(
        &self,
        nodes: &[Node],
        images: &[String],
        stop: &AtomicBool,
        waits: impl Fn(&str),
    ) -> Result<Found, LookError> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let object = object(json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": self.namespace,
                "labels": {LABEL: "images", "pod-security.kubernetes.io/enforce": "privileged"},
            },
        }));
        let made = namespaces.create(&PostParams::default(), &object).await;
        made.map_err(cluster("make a Namespace"))?;
        let until = Instant::now() + PULLED;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        for (number, node) in nodes.iter().enumerate() {
            let created = pods::create(&api, &pod(number, &node.name, images), until).await;
            created.map_err(cluster("make a Pod"))?;
        }
        // When a node first said that it cannot have an image.
        let mut since: BTreeMap<(String, String), Instant> = BTreeMap::new();
        loop {
            let listed = api.list(&ListParams::default()).await;
            let listed = listed.map_err(cluster("list Pods"))?.items;
            let late = Instant::now() > until;
            let mut found = Found::default();
            let mut open = Vec::new();
            for (number, node) in nodes.iter().enumerate() {
                let of_node = listed
                    .iter()
                    .find(|pod| pod.metadata.name.as_deref() == Some(&name(number)));
                if let Some(why) = of_node.map_or(Some("its Pod is gone".into()), refused) {
                    found.silent.insert(node.name.clone(), why);
                    continue;
                }
                for (at, image) in images.iter().enumerate() {
                    let key = (node.name.clone(), image.clone());
                    let state = of_node.map_or(State::Pulling(String::new()), |pod| state(pod, at));
                    let said = match state {
                        State::There => continue,
                        State::Pulling(said) => {
                            since.remove(&key);
                            if !late {
                                open.push(format!("{} to have {image}", node.name));
                                continue;
                            }
                            format!("still not there after {PULLED:?}{said}")
                        }
                        State::Lacking { said, is_final } => {
                            let first = *since.entry(key).or_insert_with(Instant::now);
                            if !is_final && first.elapsed() < TRIED_AGAIN && !late {
                                open.push(format!("{} to try again to pull {image}", node.name));
                                continue;
                            }
                            said
                        }
                    };
                    let known = found.missing.iter_mut().find(|one| one.image == *image);
                    match known {
                        Some(known) => drop(known.nodes.insert(node.name.clone(), said)),
                        None => found.missing.push(Missing {
                            image: image.clone(),
                            nodes: [(node.name.clone(), said)].into(),
                        }),
                    }
                }
            }
            if open.is_empty() || stop.load(Ordering::Relaxed) {
                return Ok(found);
            }
            waits(&open.join(", "));
            sleep(POLL).await;
        }
    }

    /// Begins to delete what was made.
    async fn delete(&self) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let at_once = DeleteParams::default().grace_period(0);
        let _ = pods
            .delete_collection(&at_once, &ListParams::default())
            .await;
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let _ = namespaces
            .delete(&self.namespace, &DeleteParams::default())
            .await;
    }

    /// Waits until what was made is gone, and says so if it is not.
    pub async fn gone(&self, patience: Duration) -> Result<(), String> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let until = Instant::now() + patience;
        loop {
            let left = match namespaces.get_opt(&self.namespace).await {
                Ok(None) => return Ok(()),
                Ok(Some(_)) => "it is still there".to_owned(),
                Err(error) => chain(&error),
            };
            if Instant::now() > until {
                return Err(format!("namespace {}: {left}", self.namespace));
            }
            sleep(POLL).await;
        }
    }
}

/// The label of the namespace for Pods that look for images.
const LABEL: &str = "dev.harness/upstream";

/// The program that the containers are told to start, and that no image has.
const NO_PROGRAM: &str = "/harness-only-wants-to-know-whether-the-image-is-there";

fn object<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).expect("an object of ours")
}

fn name(number: usize) -> String {
    format!("node-{number}")
}

fn container(at: usize) -> String {
    format!("image-{at}")
}

fn pod(number: usize, node: &str, images: &[String]) -> Pod {
    let containers: Vec<serde_json::Value> = images
        .iter()
        .enumerate()
        .map(|(at, image)| {
            json!({
                "name": container(at),
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": [NO_PROGRAM],
            })
        })
        .collect();
    object(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name(number), "labels": {LABEL: "images"}},
        "spec": {
            // Past the scheduler, which has nothing to decide.
            "nodeName": node,
            // Without the network plugin, about which nothing is asked.
            "hostNetwork": true,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "containers": containers,
        },
    }))
}

/// What a node says about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    There,
    /// Nothing yet, and what the container waits for.
    Pulling(String),
    /// It cannot have it. Final: it will not try again.
    Lacking {
        said: String,
        is_final: bool,
    },
}

fn state(pod: &Pod, at: usize) -> State {
    let statuses = pod.status.as_ref();
    let mut statuses = statuses
        .and_then(|status| status.container_statuses.as_ref())
        .into_iter()
        .flatten();
    match statuses.find(|status| status.name == container(at)) {
        Some(status) => of_container(status),
        None => State::Pulling(String::new()),
    }
}

fn of_container(status: &ContainerStatus) -> State {
    let state = status.state.as_ref();
    if state.is_some_and(|state| state.terminated.is_some() || state.running.is_some())
        || !status.image_id.is_empty()
    {
        return State::There;
    }
    let waiting = state.and_then(|state| state.waiting.as_ref());
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref());
    let message = waiting.and_then(|waiting| waiting.message.as_deref());
    let said = message.unwrap_or_default();
    match reason {
        None | Some("ContainerCreating" | "PodInitializing") => State::Pulling(match reason {
            Some(reason) => format!(": {reason} {said}"),
            None => String::new(),
        }),
        Some(reason) if REASONS.contains(&reason) => State::Lacking {
            said: format!("{reason}: {said}"),
            is_final: matches!(reason, "ErrImageNeverPull" | "InvalidImageName"),
        },
        // All others come after the image: that the container cannot be made or started is what it is told to show.
        Some(_) => State::There,
    }
}

/// Why a node will not say anything: it refused the Pod.
fn refused(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let statuses = status.container_statuses.as_ref();
    let is_over = status.phase.as_deref() == Some("Failed");
    // A Pod whose containers could not be started has failed as well.
    (is_over && statuses.is_none_or(Vec::is_empty)).then(|| {
        let reason = status.reason.as_deref().unwrap_or("Failed");
        let message = status.message.as_deref().unwrap_or_default();
        format!("{reason}: {message}")
    })
}

/// The node as specs see it, if they use it (`GetReadySchedulableNodes` in `test/e2e/framework/node`).
fn usable(node: &NodeObject) -> Option<Node> {
    let labels = node.metadata.labels.as_ref();
    let label = |name: &str| labels.and_then(|labels| labels.get(name));
    if label("kubernetes.io/os").is_some_and(|os| os != "linux") {
        return None;
    }
    let spec = node.spec.as_ref();
    if spec.is_some_and(|spec| spec.unschedulable == Some(true)) {
        return None;
    }
    let mut taints = spec
        .and_then(|spec| spec.taints.as_ref())
        .into_iter()
        .flatten();
    if taints.any(|taint| taint.effect != "PreferNoSchedule") {
        return None;
    }
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let is_ready = conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    is_ready.then(|| Node {
        name: node.metadata.name.clone().unwrap_or_default(),
        zone: label("topology.kubernetes.io/zone").cloned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: serde_json::Value, image_id: &str) -> ContainerStatus {
        object(json!({
            "name": "image-0", "image": "r.example/x:1", "imageID": image_id, "ready": false, "restartCount": 0, "state": state,
        }))
    }

    #[test]
    fn what_a_container_waits_for_says_whether_the_image_is_there() {
        let waiting = |reason: &str| json!({"waiting": {"reason": reason, "message": "why"}});
        let lacking = |reason: &str, is_final| State::Lacking {
            said: format!("{reason}: why"),
            is_final,
        };
        for (state, want) in [
            (waiting("ErrImagePull"), lacking("ErrImagePull", false)),
            (
                waiting("ImagePullBackOff"),
                lacking("ImagePullBackOff", false),
            ),
            (
                waiting("ErrImageNeverPull"),
                lacking("ErrImageNeverPull", true),
            ),
            (
                waiting("InvalidImageName"),
                lacking("InvalidImageName", true),
            ),
            (waiting("RunContainerError"), State::There),
            (waiting("CreateContainerError"), State::There),
            (waiting("CrashLoopBackOff"), State::There),
            (
                json!({"terminated": {"exitCode": 128, "reason": "StartError"}}),
                State::There,
            ),
            (json!({"running": {}}), State::There),
            (
                waiting("ContainerCreating"),
                State::Pulling(": ContainerCreating why".into()),
            ),
            (json!({}), State::Pulling(String::new())),
        ] {
            assert_eq!(of_container(&status(state.clone(), "")), want, "{state}");
        }
        let with_id = status(waiting("ContainerCreating"), "sha256:0");
        assert_eq!(of_container(&with_id), State::There);
    }

    #[test]
    fn a_pod_that_was_refused_is_not_one_that_could_not_start_its_program() {
        let pod = |status: serde_json::Value| -> Pod { object(json!({"status": status})) };
        let refused_pod = pod(json!({"phase": "Failed", "reason": "OutOfpods", "message": "full"}));
        assert_eq!(refused(&refused_pod).as_deref(), Some("OutOfpods: full"));
        let started = json!([{"name": "image-0", "image": "x", "imageID": "", "ready": false, "restartCount": 0}]);
        let over = pod(json!({"phase": "Failed", "containerStatuses": started}));
        assert_eq!(refused(&over), None);
        assert_eq!(refused(&pod(json!({"phase": "Pending"}))), None);
    }

    #[test]
    fn nodes_that_specs_use_are_ready_and_take_pods() {
        let node = |change: &str| -> NodeObject {
            let mut value = json!({
                "metadata": {"name": "n", "labels": {"kubernetes.io/os": "linux", "topology.kubernetes.io/zone": "a"}},
                "spec": {"taints": [{"key": "soft", "effect": "PreferNoSchedule"}]},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            });
            match change {
                "windows" => value["metadata"]["labels"]["kubernetes.io/os"] = json!("windows"),
                "cordoned" => value["spec"]["unschedulable"] = json!(true),
                "tainted" => value["spec"]["taints"][0]["effect"] = json!("NoSchedule"),
                "not ready" => value["status"]["conditions"][0]["status"] = json!("Unknown"),
                _ => {}
            }
            object(value)
        };
        let good = usable(&node("nothing")).unwrap();
        assert_eq!((good.name.as_str(), good.zone.as_deref()), ("n", Some("a")));
        for change in ["windows", "cordoned", "tainted", "not ready"] {
            assert_eq!(usable(&node(change)), None, "{change}");
        }
        let zone = |zone: Option<&str>| Node {
            name: String::new(),
            zone: zone.map(str::to_owned),
        };
        assert_eq!(
            zones(&[
                zone(Some("a")),
                zone(None),
                zone(Some("a")),
                zone(Some("b"))
            ]),
            2
        );
    }
}
