//! Writes over HTTP: identity, conflicts, patches, apply, deletion, and what the cluster does by itself.

use apiserver::{DeleteOptions, ObjectRef, PatchKind, Verb};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Expression;
use kube::core::Selector;
use serde_json::{Value, json};

use crate::support::{Cluster, config_map, service, version};

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        other => panic!("{other:?}"),
    }
}

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

#[tokio::test]
async fn created_objects_get_an_identity() {
    let cluster = Cluster::new();
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.client("a").await);
    let made = api
        .create(&PostParams::default(), &typed(config_map("one")))
        .await
        .unwrap();
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
    let error = api
        .create(&PostParams::default(), &typed(config_map("one")))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, kube::Error::Api(s) if s.code == 409 && s.reason == "AlreadyExists"),
        "{error:?}"
    );
    let generated = json!({"metadata": {"generateName": "web-"}});
    let generated = api
        .create(&PostParams::default(), &typed(generated))
        .await
        .unwrap();
    let name = generated.metadata.name.unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    let error = api
        .create(&PostParams::default(), &typed(json!({"metadata": {}})))
        .await
        .unwrap_err();
    assert_eq!(code(&error), 422);
    let nowhere: Api<ConfigMap> = Api::namespaced(cluster.client("a").await, "nowhere");
    let error = nowhere
        .create(
            &PostParams::default(),
            &typed(json!({"metadata": {"name": "x"}})),
        )
        .await
        .unwrap_err();
    assert_eq!(code(&error), 404);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let cluster = Cluster::new();
    let api: Api<Service> = Api::default_namespaced(cluster.client("a").await);
    let before = cluster.server.resource_version();
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let first = api.create(&dry, &typed(service("web"))).await.unwrap();
    assert_eq!(cluster.server.resource_version(), before);
    let real = api
        .create(&PostParams::default(), &typed(service("web")))
        .await
        .unwrap();
    // The address that the dry run showed was not taken.
    assert_eq!(
        real.spec.unwrap().cluster_ip,
        first.spec.unwrap().cluster_ip
    );
}

#[tokio::test]
async fn updates_of_an_old_version_conflict() {
    let cluster = Cluster::new();
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.client("a").await);
    let old = api
        .create(&PostParams::default(), &typed(config_map("one")))
        .await
        .unwrap();
    let mut new = old.clone();
    new.data = Some([("k".to_owned(), "w".to_owned())].into());
    let stored = api
        .replace("one", &PostParams::default(), &new)
        .await
        .unwrap();
    assert_ne!(
        stored.metadata.resource_version,
        old.metadata.resource_version
    );
    let error = api
        .replace("one", &PostParams::default(), &old)
        .await
        .unwrap_err();
    assert_eq!(code(&error), 409);
    // Writing what is there already is no write.
    let again = api
        .replace("one", &PostParams::default(), &stored)
        .await
        .unwrap();
    assert_eq!(
        again.metadata.resource_version,
        stored.metadata.resource_version
    );
    let stale =
        json!({"metadata": {"resourceVersion": old.metadata.resource_version}, "data": {"x": "y"}});
    let error = api
        .patch("one", &PatchParams::default(), &Patch::Merge(stale))
        .await
        .unwrap_err();
    assert_eq!(code(&error), 409);
}

#[tokio::test]
async fn the_kinds_of_patch() {
    let cluster = Cluster::new();
    cluster.server.create(service("web")).unwrap();
    let api: Api<Service> = Api::default_namespaced(cluster.client("a").await);
    let params = PatchParams::default();
    let ports = |s: &Service| s.spec.as_ref().unwrap().ports.clone().unwrap();

    let strategic = json!({"spec": {"ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]}});
    let patched = api
        .patch("web", &params, &Patch::Strategic(strategic.clone()))
        .await
        .unwrap();
    assert_eq!(ports(&patched).len(), 2);
    let patched = api
        .patch("web", &params, &Patch::Merge(strategic))
        .await
        .unwrap();
    assert_eq!(ports(&patched).len(), 1);
    let operations = json!([
        {"op": "test", "path": "/spec/ports/0/port", "value": 53},
        {"op": "replace", "path": "/spec/ports/0/port", "value": 54},
    ]);
    let client = cluster.client("a").await;
    let json_patch = || {
        http::Request::patch("/api/v1/namespaces/default/services/web")
            .header("content-type", "application/json-patch+json")
            .body(operations.to_string().into_bytes())
            .unwrap()
    };
    let patched: Service = client.request(json_patch()).await.unwrap();
    assert_eq!(ports(&patched)[0].port, 54);
    let error = client.request::<Service>(json_patch()).await.unwrap_err();
    assert_eq!(code(&error), 422);
    let error = api
        .patch("none", &params, &Patch::Merge(json!({})))
        .await
        .unwrap_err();
    assert_eq!(code(&error), 404);
}

#[tokio::test]
async fn apply_creates_merges_and_takes_back() {
    let cluster = Cluster::new();
    let api: Api<Service> = Api::default_namespaced(cluster.client("a").await);
    let mut wanted = service("web");
    wanted["metadata"]["labels"] = json!({"a": "1", "b": "2"});
    let made = api
        .patch("web", &PatchParams::apply("me"), &Patch::Apply(&wanted))
        .await
        .unwrap();
    let managers = made.metadata.managed_fields.unwrap();
    assert_eq!(managers[0].manager.as_deref(), Some("me"));
    let address = made.spec.unwrap().cluster_ip;

    wanted["metadata"]["labels"] = json!({"a": "1"});
    let kept = api
        .patch("web", &PatchParams::apply("me"), &Patch::Apply(&wanted))
        .await
        .unwrap();
    assert_eq!(
        kept.metadata
            .labels
            .unwrap()
            .into_keys()
            .collect::<Vec<_>>(),
        ["a"]
    );
    assert_eq!(kept.spec.unwrap().cluster_ip, address);

    let theirs =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"labels": {"a": "other"}}});
    let error = api
        .patch("web", &PatchParams::apply("you"), &Patch::Apply(&theirs))
        .await
        .unwrap_err();
    match &error {
        kube::Error::Api(s) => {
            assert_eq!(s.code, 409);
            assert_eq!(
                s.details.as_ref().unwrap().causes[0].field,
                ".metadata.labels.a"
            );
        }
        other => panic!("{other:?}"),
    }
    let forced = api
        .patch(
            "web",
            &PatchParams::apply("you").force(),
            &Patch::Apply(&theirs),
        )
        .await
        .unwrap();
    assert_eq!(forced.metadata.labels.unwrap()["a"], "other");
}

#[tokio::test]
async fn the_status_is_written_apart() {
    let cluster = Cluster::new();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": {}});
    cluster.server.create(node).unwrap();
    let api: Api<Node> = Api::all(cluster.client("a").await);
    let addresses =
        json!({"status": {"addresses": [{"type": "InternalIP", "address": "10.89.0.11"}]}});
    let ignored = api
        .patch("n", &PatchParams::default(), &Patch::Merge(&addresses))
        .await
        .unwrap();
    assert!(
        ignored
            .status
            .and_then(|s| s.addresses)
            .is_none_or(|a| a.is_empty())
    );
    let written = api
        .patch_status("n", &PatchParams::default(), &Patch::Merge(&addresses))
        .await
        .unwrap();
    assert_eq!(written.status.unwrap().addresses.unwrap().len(), 1);
    let spec = json!({"spec": {"unschedulable": true}});
    let ignored = api
        .patch_status("n", &PatchParams::default(), &Patch::Merge(&spec))
        .await
        .unwrap();
    assert_eq!(ignored.spec.unwrap().unschedulable, None);
    // In-process, an object is brought to the state given, status included.
    let applied = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.89.0.12"}]},
    });
    let applied = cluster.server.apply(applied).unwrap();
    assert_eq!(applied["status"]["addresses"][0]["address"], "10.89.0.12");
}

#[tokio::test]
async fn deletion_preconditions_finalizers_and_collections() {
    let cluster = Cluster::new();
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.client("a").await);
    let mut held = config_map("held");
    held["metadata"]["finalizers"] = json!(["example.org/wait"]);
    held["metadata"]["labels"] = json!({"keep": "yes"});
    cluster.server.create(held).unwrap();
    for name in ["x", "y"] {
        cluster.server.create(config_map(name)).unwrap();
    }
    let wrong = Preconditions {
        uid: Some("other".into()),
        resource_version: None,
    };
    let error = api
        .delete(
            "x",
            &DeleteParams {
                preconditions: Some(wrong),
                ..DeleteParams::default()
            },
        )
        .await;
    assert_eq!(code(&error.unwrap_err()), 409);

    let pending = api
        .delete("held", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .expect("the object stays");
    assert!(pending.metadata.deletion_timestamp.is_some());
    let release = json!({"metadata": {"finalizers": null}});
    api.patch("held", &PatchParams::default(), &Patch::Merge(release))
        .await
        .unwrap();
    assert!(api.get_opt("held").await.unwrap().is_none());

    let only_unlabelled: Selector = Expression::DoesNotExist("keep".into()).into();
    let list = ListParams::default().labels_from(&only_unlabelled);
    api.delete_collection(&DeleteParams::default(), &list)
        .await
        .unwrap();
    assert!(
        api.list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    let last = cluster.server.history().pop().unwrap();
    assert_eq!((last.verb, last.name.as_str()), (Verb::Deleted, "y"));
    assert_eq!(last.resource_version, cluster.server.resource_version());
}

#[tokio::test]
async fn a_namespace_takes_its_content_along() {
    let cluster = Cluster::new();
    cluster
        .server
        .create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}))
        .unwrap();
    let mut inside = service("web");
    inside["metadata"]["namespace"] = json!("team");
    let first = cluster.server.create(inside.clone()).unwrap();
    cluster
        .server
        .delete(&ObjectRef::new("v1", "Namespace", "", "team"))
        .unwrap();
    assert!(
        cluster
            .server
            .list("v1", "Service", None)
            .unwrap()
            .is_empty()
    );
    assert_eq!(cluster.server.create(inside).unwrap_err().code, 404);
    // Its ClusterIP is free again.
    let mut other = service("other");
    other["spec"]["clusterIP"] = first["spec"]["clusterIP"].clone();
    cluster.server.create(other).unwrap();
}

#[tokio::test]
async fn protobuf_bodies_are_refused() {
    let cluster = Cluster::new();
    let client = cluster.client("a").await;
    let request = http::Request::post("/api/v1/namespaces/default/events")
        .header("content-type", "application/vnd.kubernetes.protobuf")
        .body(b"k8s\0".to_vec())
        .unwrap();
    let error = client.request::<Value>(request).await.unwrap_err();
    assert!(
        matches!(&error, kube::Error::Api(s) if s.code == 415 && s.reason == "UnsupportedMediaType"),
        "{error:?}"
    );
}

fn pod(name: &str, app: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": app}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]},
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

/// Addresses with their ready, serving and terminating conditions.
fn endpoints(cluster: &Cluster) -> Vec<(String, [Value; 3])> {
    let slices = cluster
        .server
        .list("discovery.k8s.io/v1", "EndpointSlice", Some("default"))
        .unwrap();
    let endpoints = slices
        .iter()
        .flat_map(|s| s["endpoints"].as_array().cloned().unwrap_or_default());
    let conditions =
        |e: &Value| ["ready", "serving", "terminating"].map(|c| e["conditions"][c].clone());
    endpoints
        .map(|e| {
            (
                e["addresses"][0].as_str().unwrap().to_owned(),
                conditions(&e),
            )
        })
        .collect()
}

#[tokio::test]
async fn slices_follow_pods_and_services() {
    let cluster = Cluster::new();
    cluster
        .server
        .create(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}))
        .unwrap();
    cluster.server.create(service("web")).unwrap();
    cluster
        .server
        .apply(pod("web-0", "web", "10.244.1.11"))
        .unwrap();
    cluster
        .server
        .apply(pod("api-0", "api", "10.244.1.12"))
        .unwrap();
    let all = |flags: [bool; 3]| flags.map(Value::Bool);
    assert_eq!(
        endpoints(&cluster),
        [("10.244.1.11".to_owned(), all([true, true, false]))]
    );

    // A Pod with a grace period is terminating, not gone.
    let target = ObjectRef::new("v1", "Pod", "default", "web-0");
    let graceful = DeleteOptions {
        grace_period_seconds: Some(30),
        ..DeleteOptions::default()
    };
    cluster.server.delete_with(&target, &graceful).unwrap();
    assert_eq!(
        endpoints(&cluster),
        [("10.244.1.11".to_owned(), all([false, true, true]))]
    );
    cluster.server.delete(&target).unwrap();
    assert_eq!(endpoints(&cluster), []);

    // A label moves a Pod from one Service to another.
    let relabel = json!({"metadata": {"labels": {"app": "web"}}});
    cluster
        .server
        .patch(
            &ObjectRef::new("v1", "Pod", "default", "api-0"),
            PatchKind::Merge,
            &relabel,
        )
        .unwrap();
    assert_eq!(endpoints(&cluster)[0].0, "10.244.1.12");

    // Hand-made slices are left alone, the controller's own ones are put right and collected.
    let by_hand = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "mine", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [], "endpoints": [],
    });
    cluster.server.create(by_hand).unwrap();
    let slices = cluster
        .server
        .list("discovery.k8s.io/v1", "EndpointSlice", None)
        .unwrap();
    let own = slices
        .iter()
        .find(|s| s["metadata"]["name"] != "mine")
        .unwrap();
    cluster.server.delete(&ObjectRef::of(own)).unwrap();
    assert_eq!(endpoints(&cluster).len(), 1, "the deleted slice is back");
    cluster
        .server
        .delete(&ObjectRef::new("v1", "Service", "default", "web"))
        .unwrap();
    let left = cluster
        .server
        .list("discovery.k8s.io/v1", "EndpointSlice", None)
        .unwrap();
    assert_eq!(
        left.iter()
            .map(|s| &s["metadata"]["name"])
            .collect::<Vec<_>>(),
        ["mine"]
    );
}

#[tokio::test]
async fn apply_in_process_keeps_what_the_server_gave() {
    let cluster = Cluster::new();
    let mut wanted = service("web");
    wanted["spec"]["type"] = json!("NodePort");
    let first = cluster.server.apply(wanted.clone()).unwrap();
    wanted["metadata"]["labels"] = json!({"x": "y"});
    let second = cluster.server.apply(wanted.clone()).unwrap();
    assert!(version(&second) > version(&first));
    for pointer in [
        "/metadata/uid",
        "/spec/clusterIP",
        "/spec/clusterIPs",
        "/spec/ports/0/nodePort",
    ] {
        assert!(
            first.pointer(pointer).is_some_and(|v| !v.is_null()),
            "{pointer} in {first}"
        );
        assert_eq!(first.pointer(pointer), second.pointer(pointer), "{pointer}");
    }
    // Applying the same again writes nothing.
    assert_eq!(
        version(&cluster.server.apply(wanted).unwrap()),
        version(&second)
    );
}
