//! Lists, gets, selectors, pages, tables and discovery.

use apiserver::{ApiServer, Config, ObjectRef, PatchKind, ResourceType};
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::api::{Api, ListParams};
use serde_json::json;

use crate::support::{Cluster, config_map, service, version};

fn fill(server: &ApiServer, count: usize) {
    for number in 0..count {
        server.create(config_map(&format!("c{number}"))).unwrap();
    }
}

#[tokio::test]
async fn pages_are_one_consistent_list() {
    let cluster = Cluster::new();
    fill(&cluster.server, 7);
    let api: Api<ConfigMap> = Api::all(cluster.client("a").await);
    let first = api.list(&ListParams::default().limit(3)).await.unwrap();
    assert_eq!(first.metadata.remaining_item_count, Some(4));
    // What happens between two pages does not show in the second.
    cluster
        .server
        .delete(&ObjectRef::new("v1", "ConfigMap", "default", "c5"))
        .unwrap();
    cluster.server.create(config_map("c9")).unwrap();
    let change = json!({"data": {"k": "changed"}});
    cluster
        .server
        .patch(
            &ObjectRef::new("v1", "ConfigMap", "default", "c6"),
            PatchKind::Merge,
            &change,
        )
        .unwrap();
    let mut names: Vec<String> = first
        .items
        .iter()
        .map(|c| c.metadata.name.clone().unwrap())
        .collect();
    let mut token = first.metadata.continue_.clone();
    while let Some(next) = token {
        let page = api
            .list(&ListParams::default().limit(3).continue_token(&next))
            .await
            .unwrap();
        assert_eq!(
            page.metadata.resource_version,
            first.metadata.resource_version
        );
        for item in &page.items {
            assert_eq!(item.data.as_ref().unwrap()["k"], "v");
            names.push(item.metadata.name.clone().unwrap());
        }
        token = page.metadata.continue_.clone().filter(|t| !t.is_empty());
    }
    assert_eq!(names, ["c0", "c1", "c2", "c3", "c4", "c5", "c6"]);
}

#[tokio::test]
async fn a_page_after_compaction_is_gone() {
    let cluster = Cluster::new();
    fill(&cluster.server, 5);
    let api: Api<ConfigMap> = Api::all(cluster.client("a").await);
    let first = api.list(&ListParams::default().limit(2)).await.unwrap();
    fill_more(&cluster.server);
    cluster.server.faults().compact();
    let token = first.metadata.continue_.unwrap();
    let error = api
        .list(&ListParams::default().limit(2).continue_token(&token))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, kube::Error::Api(s) if s.code == 410 && s.reason == "Expired"),
        "{error:?}"
    );
    assert_eq!(cluster.server.faults().report().expired_requests, 1);
}

fn fill_more(server: &ApiServer) {
    server.create(config_map("later")).unwrap();
}

#[tokio::test]
async fn resource_versions_choose_the_past_or_the_present() {
    let cluster = Cluster::new();
    fill(&cluster.server, 2);
    let before = cluster.server.resource_version();
    cluster
        .server
        .delete(&ObjectRef::new("v1", "ConfigMap", "default", "c0"))
        .unwrap();
    let count = |query: String| {
        let cluster = &cluster;
        async move {
            let list = cluster
                .get(
                    "a",
                    &format!("/api/v1/namespaces/default/configmaps?{query}"),
                )
                .await;
            (
                list["items"].as_array().map(Vec::len),
                list["code"].as_u64(),
            )
        }
    };
    assert_eq!(count(String::new()).await, (Some(1), None));
    assert_eq!(count("resourceVersion=0".into()).await, (Some(1), None));
    assert_eq!(
        count(format!(
            "resourceVersion={before}&resourceVersionMatch=Exact"
        ))
        .await,
        (Some(2), None)
    );
    assert_eq!(
        count(format!(
            "resourceVersion={before}&resourceVersionMatch=NotOlderThan"
        ))
        .await,
        (Some(1), None)
    );
    assert_eq!(
        count("resourceVersionMatch=Exact".into()).await.1,
        Some(422)
    );
    assert_eq!(count("resourceVersion=99999".into()).await.1, Some(504));
    assert_eq!(count("resourceVersion=x".into()).await.1, Some(400));
}

#[tokio::test]
async fn selectors_namespaces_and_names() {
    let cluster = Cluster::new();
    let mut labelled = service("web");
    labelled["metadata"]["labels"] = json!({"service.kubernetes.io/headless": ""});
    cluster.server.create(labelled).unwrap();
    cluster.server.create(service("api")).unwrap();
    let mut elsewhere = service("dns");
    elsewhere["metadata"]["namespace"] = json!("kube-system");
    cluster.server.create(elsewhere).unwrap();
    let all: Api<Service> = Api::all(cluster.client("a").await);
    let names = |params: ListParams| {
        let all = all.clone();
        async move {
            let list = all.list(&params).await.unwrap();
            list.items
                .iter()
                .map(|s| s.metadata.name.clone().unwrap())
                .collect::<Vec<_>>()
        }
    };
    assert_eq!(names(ListParams::default()).await, ["api", "web", "dns"]);
    assert_eq!(
        names(ListParams::default().labels("!service.kubernetes.io/headless")).await,
        ["api", "dns"]
    );
    assert_eq!(
        names(ListParams::default().fields("metadata.name=web")).await,
        ["web"]
    );
    assert_eq!(
        names(ListParams::default().fields("metadata.namespace=kube-system")).await,
        ["dns"]
    );
    assert_eq!(
        names(ListParams::default().fields("spec.type!=ClusterIP")).await,
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn unknown_things_are_not_found_and_strangers_are_refused() {
    let cluster = Cluster::new();
    let missing = cluster
        .get("a", "/api/v1/namespaces/default/services/none")
        .await;
    assert_eq!(missing["message"], "services \"none\" not found");
    assert_eq!(
        (&missing["reason"], &missing["details"]["kind"]),
        (&json!("NotFound"), &json!("services"))
    );
    assert_eq!(
        cluster.get("a", "/apis/none.example/v1/things").await["code"],
        404
    );
    let mut config = kube::Config::new(
        format!("https://{}", cluster.serving.address())
            .parse()
            .unwrap(),
    );
    config.accept_invalid_certs = true;
    let stranger = kube::Client::try_from(config).unwrap();
    let error = stranger.list_core_api_resources("v1").await.unwrap_err();
    assert!(
        matches!(&error, kube::Error::Api(s) if s.code == 401),
        "{error:?}"
    );
    assert_eq!(stranger.apiserver_version().await.unwrap().minor, "36");
}

#[tokio::test]
async fn discovery_names_what_is_served() {
    let extra = ResourceType::cluster_wide("example.org", "v1alpha1", "Thing", "things");
    let cluster = Cluster::with(Config {
        extra_resources: vec![extra],
        ..Config::default()
    });
    let client = cluster.client("a").await;
    let groups = client.list_api_groups().await.unwrap();
    let names: Vec<&str> = groups.groups.iter().map(|g| g.name.as_str()).collect();
    for name in [
        "discovery.k8s.io",
        "networking.k8s.io",
        "coordination.k8s.io",
        "events.k8s.io",
        "apps",
        "example.org",
    ] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let core = client.list_core_api_resources("v1").await.unwrap();
    assert!(core.resources.iter().any(|r| r.name == "services/status"));
    let aggregated = client.list_api_groups_aggregated().await.unwrap();
    assert_eq!(aggregated.items.len(), groups.groups.len());
    let thing = json!({"apiVersion": "example.org/v1alpha1", "kind": "Thing", "metadata": {"name": "one"}, "spec": {"x": 1}});
    cluster.server.create(thing).unwrap();
    assert_eq!(
        cluster
            .get("a", "/apis/example.org/v1alpha1/things/one")
            .await["spec"]["x"],
        1
    );
}

#[tokio::test]
async fn a_definition_brings_its_resource() {
    let cluster = Cluster::new();
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.org"},
        "spec": {
            "group": "example.org",
            "scope": "Namespaced",
            "names": {"kind": "Widget", "plural": "widgets"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {}, "subresources": {"status": {}}}],
        },
    });
    cluster.server.create(definition).unwrap();
    let widget =
        json!({"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "w"}});
    cluster.server.create(widget).unwrap();
    let list = cluster.get("a", "/apis/example.org/v1/widgets").await;
    assert_eq!(
        (&list["kind"], &list["items"][0]["metadata"]["generation"]),
        (&json!("WidgetList"), &json!(1))
    );
}

#[tokio::test]
async fn metadata_and_tables_on_request() {
    let cluster = Cluster::new();
    let stored = cluster.server.create(service("web")).unwrap();
    let client = cluster.client("a").await;
    let api: Api<Service> = Api::default_namespaced(client.clone());
    let metadata = api.get_metadata("web").await.unwrap();
    assert_eq!(
        metadata.metadata.resource_version.as_deref(),
        stored["metadata"]["resourceVersion"].as_str()
    );
    let request = http::Request::get("/api/v1/services")
        .header(
            "accept",
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
        )
        .body(Vec::new())
        .unwrap();
    let table: serde_json::Value = client.request(request).await.unwrap();
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["rows"][0]["cells"][1], "ClusterIP");
    assert_eq!(version(&table), cluster.server.resource_version());
}
