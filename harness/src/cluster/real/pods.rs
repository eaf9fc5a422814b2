//! Namespaces and Pods of ours, in whatever cluster.

use std::time::{Duration, Instant};

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    super::{ClusterError, infra},
    manifests,
    site::{POLL, resource, typed},
};

/// A Pod of ours has this long to run: an image that is there starts within seconds on a busy machine.
const RUNNING: Duration = Duration::from_secs(90);

/// Makes a namespace, and waits until Pods can be made in it.
pub(super) async fn make_namespace(
    client: &Client,
    name: &str,
    run: &str,
) -> Result<(), ClusterError> {
    let api: Api<Namespace> = Api::all(client.clone());
    let object = typed(manifests::namespace(name, run))?;
    let made = api.create(&PostParams::default(), &object).await;
    made.map_err(|error| infra(&format!("namespace {name} cannot be made"))(&error))?;
    Ok(())
}

/// Makes a Pod. In a new namespace that is refused until its service account is there.
///
/// # Errors
/// Any other refusal, and this one after `until`.
pub(crate) async fn create(api: &Api<Pod>, pod: &Pod, until: Instant) -> kube::Result<()> {
    loop {
        match api.create(&PostParams::default(), pod).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status))
                if status.code == 403
                    && status.message.contains("serviceaccount")
                    && Instant::now() < until =>
            {
                // A poll of a condition with a deadline.
                sleep(POLL).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Makes Pods, and waits until all of them run and have addresses. The API takes none before the namespace has its service account.
pub(super) async fn run(
    client: &Client,
    namespace: &str,
    pods: Vec<Value>,
) -> Result<Vec<Value>, ClusterError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let until = Instant::now() + RUNNING;
    let names: Vec<String> = pods
        .iter()
        .map(|pod| pod["metadata"]["name"].as_str().unwrap_or_default().into())
        .collect();
    try_join_all(pods.into_iter().map(|pod| async {
        let created = create(&api, &typed(pod)?, until).await;
        created.map_err(|error| infra("a Pod cannot be made")(&error))
    }))
    .await?;
    loop {
        let mut all = list(client, "v1", "Pod", namespace).await?;
        all.retain(|pod| {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            names.iter().any(|wanted| wanted == name)
        });
        let waiting = all.iter().find_map(not_running);
        let missing = names.len() - all.len();
        match waiting {
            None if missing == 0 => return Ok(all),
            Some((what, true)) => return Err(ClusterError::Infra(what)),
            Some((what, false)) if Instant::now() > until => {
                return Err(ClusterError::Infra(format!(
                    "{what}, after {RUNNING:?}{}",
                    events(client, namespace).await
                )));
            }
            None if Instant::now() > until => {
                return Err(ClusterError::Infra(format!(
                    "{missing} Pods of namespace {namespace} are gone"
                )));
            }
            _ => sleep(POLL).await,
        }
    }
}

/// The objects of a kind of a namespace, as JSON with their kind.
pub(super) async fn list(
    client: &Client,
    api_version: &str,
    kind: &str,
    namespace: &str,
) -> Result<Vec<Value>, ClusterError> {
    let resource = resource(api_version, kind);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let list = api.list(&ListParams::default()).await;
    let list = list.map_err(|error| infra(&format!("list {kind}"))(&error))?;
    list.items
        .into_iter()
        .map(|item| {
            let mut value = serde_json::to_value(item)
                .map_err(|error| infra(&format!("list {kind}"))(&error))?;
            value["apiVersion"] = json!(api_version);
            value["kind"] = json!(kind);
            Ok(value)
        })
        .collect()
}

/// The last warnings of a namespace, for a message.
async fn events(client: &Client, namespace: &str) -> String {
    let Ok(events) = list(client, "v1", "Event", namespace).await else {
        return String::new();
    };
    let warnings = events.iter().filter(|event| event["type"] == "Warning");
    let texts: Vec<String> = warnings
        .filter_map(|event| {
            let (reason, message) = (event["reason"].as_str()?, event["message"].as_str()?);
            let name = event["involvedObject"]["name"].as_str().unwrap_or_default();
            Some(format!("{name}: {reason}: {message}"))
        })
        .collect();
    let last = texts.iter().rev().take(3).cloned().collect::<Vec<_>>();
    if last.is_empty() {
        String::new()
    } else {
        format!("; {}", last.join("; "))
    }
}

/// What is wrong with a Pod that does not run yet, and whether it stays so.
fn not_running(pod: &Value) -> Option<(String, bool)> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let statuses = pod["status"]["containerStatuses"].as_array();
    let waiting = statuses.into_iter().flatten().find_map(|status| {
        let waiting = &status["state"]["waiting"];
        Some((
            waiting["reason"].as_str()?.to_owned(),
            waiting["message"].as_str().unwrap_or_default().to_owned(),
        ))
    });
    if let Some((reason, message)) = waiting {
        const FINAL: [&str; 6] = [
            "ErrImagePull",
            "ImagePullBackOff",
            "ErrImageNeverPull",
            "InvalidImageName",
            "CreateContainerConfigError",
            "CreateContainerError",
        ];
        let stays = FINAL.contains(&reason.as_str());
        return Some((format!("Pod {name} waits: {reason} {message}"), stays));
    }
    let phase = pod["status"]["phase"].as_str().unwrap_or("Pending");
    let addresses = pod["status"]["podIPs"].as_array().map_or(0, Vec::len);
    match phase {
        "Running" if addresses > 0 => None,
        "Failed" | "Succeeded" => {
            let reason = pod["status"]["reason"].as_str().unwrap_or_default();
            let message = pod["status"]["message"].as_str().unwrap_or_default();
            Some((format!("Pod {name} is over: {reason} {message}"), true))
        }
        _ => Some((format!("Pod {name} is {phase}"), false)),
    }
}
