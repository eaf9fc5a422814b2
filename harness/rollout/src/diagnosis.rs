//! Why a workload does not run: what its Pods, their logs, the events and the nodes say.

use std::{collections::HashMap, fmt, future::Future, time::Duration};

use k8s_openapi::{
    api::core::v1::{ContainerStatus, Event, Node, Pod},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, LogParams},
};
use tokio::time::timeout;

use crate::{
    Rollout,
    status::image_trouble,
    wait::{Workload, label_selector},
};

/// How many Pods are described: where one cannot start, others cannot for the same reason.
const PODS: usize = 5;
/// How many lines of each log are shown.
const LINES: i64 = 10;
/// How many events are shown.
const EVENTS: usize = 12;
/// A cluster that is not well may never answer, and a diagnosis is not worth waiting for.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is known about a workload that does not run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// Its Pods that are not ready.
    pub pods: Vec<PodTrouble>,
    /// How many more there are.
    pub more: usize,
    /// Warnings about it and about its Pods, the newest last.
    pub events: Vec<String>,
    /// Nodes that are lost or have no room: name, and what is wrong.
    pub nodes: Vec<(String, String)>,
    /// What could not be found out.
    pub unknown: Vec<String>,
    imageless: bool,
}

/// A Pod that is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTrouble {
    /// Name.
    pub name: String,
    /// The node it is on.
    pub node: Option<String>,
    /// Phase, and why, if its status says so.
    pub phase: String,
    /// Its containers that are not ready.
    pub containers: Vec<ContainerTrouble>,
}

/// A container that is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerTrouble {
    /// Name.
    pub name: String,
    /// What it does, such as `waiting: CrashLoopBackOff (...)`.
    pub state: String,
    /// How often it was started again.
    pub restarts: i32,
    /// How it ended the last time.
    pub last: Option<String>,
    /// The last lines of its log.
    pub log: Vec<String>,
}

impl Diagnosis {
    /// Whether an image cannot be had.
    pub fn lacks_image(&self) -> bool {
        self.imageless
    }

    /// A node on which nothing can start, if a Pod waits for it or is on it.
    pub(crate) fn lost_node(&self) -> Option<String> {
        let concerned = |node: &str| {
            let on = |pod: &PodTrouble| pod.node.as_deref().is_none_or(|on| on == node);
            self.pods.is_empty() || self.pods.iter().any(on)
        };
        let lost = self.nodes.iter().find(|(node, _)| concerned(node))?;
        Some(format!("node {} {}", lost.0, lost.1))
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        for pod in &self.pods {
            let node = pod.node.as_deref().unwrap_or("no node");
            lines.push(format!("  Pod {} on {node}: {}", pod.name, pod.phase));
            for container in &pod.containers {
                let mut text = format!("    container {}: {}", container.name, container.state);
                if container.restarts > 0 {
                    text.push_str(&format!(", started again {} times", container.restarts));
                }
                if let Some(last) = &container.last {
                    text.push_str(&format!(", last time {last}"));
                }
                lines.push(text);
                lines.extend(container.log.iter().map(|line| format!("      | {line}")));
            }
        }
        if self.more > 0 {
            lines.push(format!("  {} more Pods are not ready", self.more));
        }
        if self.pods.is_empty() {
            lines.push("  it has no Pod that is not ready".into());
        }
        let nodes = self.nodes.iter();
        lines.extend(nodes.map(|(node, wrong)| format!("  node {node} {wrong}")));
        lines.extend(self.events.iter().map(|event| format!("  event: {event}")));
        lines.extend(self.unknown.iter().map(|what| format!("  unknown: {what}")));
        f.write_str(&lines.join("\n"))
    }
}

/// Logs by Pod and container.
type Logs = HashMap<(String, String), Vec<String>>;

impl Rollout {
    /// Looks at everything that may say why a workload does not run. What does not answer is left out, and said to be.
    pub(crate) async fn diagnose(
        &self,
        workload: &Workload,
        selector: &LabelSelector,
    ) -> Diagnosis {
        let (namespace, name) = workload.place();
        let mut unknown = Vec::new();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let found = match label_selector(selector) {
            Some(labels) => {
                let params = ListParams::default().labels(&labels);
                or_unknown(&mut unknown, "its Pods", pods.list(&params)).await
            }
            None => None,
        };
        let found = found.map(|list| list.items).unwrap_or_default();
        let all = ListParams::default();
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let events = or_unknown(&mut unknown, "its events", events.list(&all)).await;
        let events = events.map(|list| list.items).unwrap_or_default();
        let nodes: Api<Node> = Api::all(self.client.clone());
        let nodes = or_unknown(&mut unknown, "the nodes", nodes.list(&all)).await;
        let nodes = nodes.map(|list| list.items).unwrap_or_default();
        let mut logs = Logs::new();
        for pod in found.iter().filter(|pod| !is_ready(pod)).take(PODS) {
            for status in container_statuses(pod).filter(|status| !status.ready) {
                let pod = pod.name_any();
                let log = self.log(&pods, &pod, status).await;
                logs.insert((pod, status.name.clone()), log);
            }
        }
        let mut diagnosis = summarize(name, &found, &events, &nodes, &logs);
        diagnosis.unknown = unknown;
        diagnosis
    }

    /// The end of a container's log: of the run before if it waits to be started again.
    async fn log(&self, pods: &Api<Pod>, pod: &str, status: &ContainerStatus) -> Vec<String> {
        for previous in [status.restart_count > 0, false] {
            let params = LogParams {
                container: Some(status.name.clone()),
                tail_lines: Some(LINES),
                previous,
                ..LogParams::default()
            };
            // Without a log there is nothing to show: it may never have been started, or its node is gone.
            if let Ok(Ok(text)) = timeout(PATIENCE, pods.logs(pod, &params)).await
                && !text.trim().is_empty()
            {
                return text.lines().map(str::to_owned).collect();
            }
        }
        Vec::new()
    }
}

async fn or_unknown<T>(
    unknown: &mut Vec<String>,
    what: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Option<T> {
    match timeout(PATIENCE, request).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            unknown.push(format!("{what}: {}", crate::error::said(&error)));
            None
        }
        Err(_) => {
            unknown.push(format!("{what}: the API server does not answer"));
            None
        }
    }
}

fn container_statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let init = status.and_then(|status| status.init_container_statuses.as_ref());
    let main = status.and_then(|status| status.container_statuses.as_ref());
    init.into_iter().chain(main).flatten().filter(|container| {
        // An init container that did its work is never ready.
        let ended = container
            .state
            .as_ref()
            .and_then(|state| state.terminated.as_ref());
        ended.is_none_or(|ended| ended.exit_code != 0)
    })
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Brings together what was found.
fn summarize(name: &str, pods: &[Pod], events: &[Event], nodes: &[Node], logs: &Logs) -> Diagnosis {
    let unready: Vec<&Pod> = pods.iter().filter(|pod| !is_ready(pod)).collect();
    let waits = |pod: &&Pod| waits_for_image(&pod.name_any(), events);
    let imageless = image_trouble(unready.iter().copied()).is_some()
        || unready.iter().filter(|pod| !has_started(pod)).any(waits);
    let concerns = |event: &&Event| {
        let about = event.involved_object.name.as_deref().unwrap_or_default();
        let of_a_pod = || pods.iter().any(|pod| pod.name_any() == about);
        event.type_.as_deref() != Some("Normal") && (about == name || of_a_pod())
    };
    let mut events: Vec<&Event> = events.iter().filter(concerns).collect();
    events.sort_by_key(|event| time(event));
    let mut told: Vec<String> = events.into_iter().map(event_line).collect();
    told.dedup();
    told.drain(..told.len().saturating_sub(EVENTS));
    Diagnosis {
        more: unready.len().saturating_sub(PODS),
        pods: unready
            .iter()
            .take(PODS)
            .map(|pod| trouble(pod, logs))
            .collect(),
        events: told,
        nodes: nodes.iter().filter_map(node_trouble).collect(),
        unknown: Vec::new(),
        imageless,
    }
}

/// When it happened last.
fn time(event: &Event) -> Option<Timestamp> {
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    let first = || event.event_time.as_ref().map(|time| time.0);
    last.or_else(first)
}

/// Whether any container of a Pod but those that prepare it has run.
fn has_started(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    containers
        .into_iter()
        .flatten()
        .any(|container| container.started == Some(true) || container.restart_count > 0)
}

/// Whether the last that is known of a Pod is that an image of it is on its way, or failed to come. While the kubelet tries again its status does not
/// tell that from any other container that is being made.
fn waits_for_image(pod: &str, events: &[Event]) -> bool {
    let of_pod = |event: &&Event| event.involved_object.name.as_deref() == Some(pod);
    let last = events.iter().filter(of_pod).filter_map(|event| {
        let message = event.message.as_deref().unwrap_or_default();
        let pulling = match event.reason.as_deref()? {
            "Pulling" => true,
            "Failed" => message.contains("pull image") || message.contains("ImagePull"),
            "Pulled" | "Created" | "Started" => false,
            _ => return None,
        };
        // Seconds are all that times of events have: `Pulled` comes after `Pulling`.
        Some((time(event), !pulling))
    });
    last.max().is_some_and(|(_, done)| !done)
}

fn event_line(event: &Event) -> String {
    let object = &event.involved_object;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let times = match event.count {
        Some(count) if count > 1 => format!(" ({count} times)"),
        _ => String::new(),
    };
    format!(
        "{} {}: {}: {}{times}",
        text(&object.kind),
        text(&object.name),
        text(&event.reason),
        text(&event.message).trim_end().replace('\n', " "),
    )
}

fn trouble(pod: &Pod, logs: &Logs) -> PodTrouble {
    let status = pod.status.clone().unwrap_or_default();
    let mut phase = status.phase.unwrap_or_else(|| "Unknown".into());
    let unscheduled = status
        .conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    let why = status
        .message
        .or_else(|| unscheduled.and_then(|condition| condition.message))
        .or(status.reason);
    if let Some(why) = why {
        phase.push_str(&format!(" ({why})"));
    }
    let name = pod.name_any();
    let containers = container_statuses(pod)
        .filter(|container| !container.ready)
        .map(|container| ContainerTrouble {
            name: container.name.clone(),
            state: state(container),
            restarts: container.restart_count,
            last: last(container),
            log: logs
                .get(&(name.clone(), container.name.clone()))
                .cloned()
                .unwrap_or_default(),
        })
        .collect();
    PodTrouble {
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        name,
        phase,
        containers,
    }
}

fn state(container: &ContainerStatus) -> String {
    let with = |reason: Option<&String>, message: Option<&String>| {
        let reason = reason.map_or("for no reason given", String::as_str);
        match message {
            Some(message) => format!("{reason} ({})", message.trim_end()),
            None => reason.to_owned(),
        }
    };
    let Some(state) = &container.state else {
        return "unknown".into();
    };
    if let Some(waiting) = &state.waiting {
        let text = with(waiting.reason.as_ref(), waiting.message.as_ref());
        return format!("waiting: {text}");
    }
    if let Some(ended) = &state.terminated {
        let text = with(ended.reason.as_ref(), ended.message.as_ref());
        return format!("ended with {}: {text}", ended.exit_code);
    }
    "running, not ready".into()
}

fn last(container: &ContainerStatus) -> Option<String> {
    let ended = container.last_state.as_ref()?.terminated.as_ref()?;
    let reason = ended.reason.as_deref().unwrap_or("no reason given");
    Some(format!("it ended with {}: {reason}", ended.exit_code))
}

/// What keeps a node from running anything, beside a network plugin that is missing: that may be the very thing that is installed.
fn node_trouble(node: &Node) -> Option<(String, String)> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let wrong = conditions.iter().find_map(|condition| {
        match (condition.type_.as_str(), condition.status.as_str()) {
            ("Ready", "Unknown") => Some("is lost: its kubelet no longer reports".to_owned()),
            (pressure, "True") if pressure.ends_with("Pressure") => {
                Some(format!("has no room: {pressure}"))
            }
            _ => None,
        }
    })?;
    Some((node.name_any(), wrong))
}

#[cfg(test)]
mod tests;
