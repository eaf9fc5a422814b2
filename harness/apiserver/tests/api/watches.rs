//! Watches: from where they start, what they say, how they end.

use std::time::Duration;

use apiserver::{Config, ObjectRef, PatchKind};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use serde_json::json;

use crate::support::{Cluster, DEADLINE, config_map, version};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn step(
    stream: &mut (impl Stream<Item = watcher::Result<Event<ConfigMap>>> + Unpin),
) -> String {
    let name = |c: ConfigMap| c.metadata.name.unwrap_or_default();
    match tokio::time::timeout(DEADLINE, stream.next())
        .await
        .expect("an event")
        .expect("no end")
    {
        Ok(Event::Init) => "init".to_owned(),
        Ok(Event::InitApply(c)) => format!("has {}", name(c)),
        Ok(Event::InitDone) => "done".to_owned(),
        Ok(Event::Apply(c)) => format!("apply {}", name(c)),
        Ok(Event::Delete(c)) => format!("delete {}", name(c)),
        Err(error) => format!("error {error}"),
    }
}

async fn follows(config: watcher::Config) {
    let cluster = Cluster::new();
    cluster.server.create(config_map("old")).unwrap();
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.client("a").await);
    let mut stream = watch(api, config).default_backoff().boxed();
    assert_eq!(step(&mut stream).await, "init");
    assert_eq!(step(&mut stream).await, "has old");
    assert_eq!(step(&mut stream).await, "done");
    cluster.server.create(config_map("new")).unwrap();
    assert_eq!(step(&mut stream).await, "apply new");
    let map = ObjectRef::new("v1", "ConfigMap", "default", "new");
    cluster
        .server
        .patch(&map, PatchKind::Merge, &json!({"data": {"k": "w"}}))
        .unwrap();
    assert_eq!(step(&mut stream).await, "apply new");
    cluster.server.delete(&map).unwrap();
    assert_eq!(step(&mut stream).await, "delete new");

    // After a compaction the running watch is told 410 Gone, and the client lists again.
    assert_eq!(cluster.server.faults().compact(), 1);
    let mut seen = Vec::new();
    while seen.last().is_none_or(|s| s != "done") {
        seen.push(step(&mut stream).await);
    }
    assert!(
        seen.ends_with(&["init".to_owned(), "has old".to_owned(), "done".to_owned()]),
        "{seen:?}"
    );
    assert_eq!(cluster.server.faults().report().expired_watches, 1);
    cluster.server.create(config_map("newer")).unwrap();
    assert_eq!(step(&mut stream).await, "apply newer");
}

#[tokio::test]
async fn list_and_watch_with_recovery() {
    follows(watcher::Config::default()).await;
}

#[tokio::test]
async fn streaming_list_with_recovery() {
    follows(watcher::Config::default().streaming_lists()).await;
}

#[tokio::test]
async fn a_watch_list_ends_its_initial_events_with_a_bookmark() {
    let cluster = Cluster::new();
    cluster.server.create(config_map("one")).unwrap();
    let path = format!(
        "{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let mut lines = cluster.watch("a", &path).await;
    assert_eq!(lines.next_name().await, ("ADDED".into(), "one".into()));
    let bookmark = lines.next().await;
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    assert_eq!(
        version(&bookmark["object"]),
        cluster.server.resource_version()
    );
}

#[tokio::test]
async fn a_watch_starts_where_it_is_told() {
    let cluster = Cluster::new();
    let one = version(&cluster.server.create(config_map("one")).unwrap());
    cluster.server.create(config_map("two")).unwrap();
    let mut since = cluster
        .watch("a", &format!("{MAPS}?watch=true&resourceVersion={one}"))
        .await;
    assert_eq!(since.next_name().await, ("ADDED".into(), "two".into()));
    let mut from_zero = cluster
        .watch("a", &format!("{MAPS}?watch=true&resourceVersion=0"))
        .await;
    assert_eq!(from_zero.next_name().await.1, "one");
    assert_eq!(from_zero.next_name().await.1, "two");
    let mut old_path = cluster
        .watch(
            "a",
            &format!("/api/v1/watch/namespaces/default/configmaps/two?resourceVersion={one}"),
        )
        .await;
    assert_eq!(old_path.next_name().await.1, "two");
}

#[tokio::test]
async fn too_old_a_version_is_an_error_event() {
    let cluster = Cluster::with(Config {
        watch_window: 2,
        ..Config::default()
    });
    for name in ["a", "b", "c", "d"] {
        cluster.server.create(config_map(name)).unwrap();
    }
    let mut lines = cluster
        .watch("a", &format!("{MAPS}?watch=true&resourceVersion=1"))
        .await;
    let event = lines.next().await;
    assert_eq!(
        (&event["type"], &event["object"]["code"]),
        (&json!("ERROR"), &json!(410))
    );
    assert_eq!(event["object"]["reason"], "Expired");
    assert_eq!(lines.try_next().await.unwrap(), None);
}

#[tokio::test]
async fn objects_come_and_go_with_the_selector() {
    let cluster = Cluster::new();
    let now = cluster.server.resource_version();
    let mut lines = cluster
        .watch(
            "a",
            &format!("{MAPS}?watch=1&labelSelector=on&resourceVersion={now}"),
        )
        .await;
    let map = ObjectRef::new("v1", "ConfigMap", "default", "m");
    let label = |value: serde_json::Value| {
        let patch = json!({"metadata": {"labels": {"on": value}}});
        cluster
            .server
            .patch(&map, PatchKind::Merge, &patch)
            .unwrap();
    };
    cluster.server.create(config_map("m")).unwrap();
    label(json!("1"));
    label(json!("2"));
    label(json!(null));
    label(json!("3"));
    let last = cluster.server.resource_version();
    cluster.server.delete(&map).unwrap();
    let mut types = Vec::new();
    for _ in 0..5 {
        let event = lines.next().await;
        types.push(event["type"].as_str().unwrap().to_owned());
        if types.len() == 3 {
            // It left the selection: its last matching state, at the version of the change.
            assert_eq!(event["object"]["metadata"]["labels"]["on"], "2");
            assert_eq!(version(&event["object"]), last - 1);
        }
    }
    assert_eq!(types, ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]);
}

#[tokio::test]
async fn watches_time_out_and_send_bookmarks() {
    let cluster = Cluster::with(Config {
        bookmark_interval: Duration::from_millis(50),
        ..Config::default()
    });
    let mut lines = cluster
        .watch(
            "a",
            &format!("{MAPS}?watch=1&allowWatchBookmarks=true&timeoutSeconds=1"),
        )
        .await;
    // Something else is written: the bookmark says that this watch has nothing to say about it.
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    let written = version(&cluster.server.create(node).unwrap());
    let mut newest = 0;
    while let Some(event) = lines.try_next().await.unwrap() {
        assert_eq!(event["type"], "BOOKMARK");
        newest = version(&event["object"]);
    }
    assert_eq!(newest, written);
}

#[tokio::test]
async fn impossible_watches_are_refused() {
    let cluster = Cluster::new();
    for query in [
        "resourceVersionMatch=NotOlderThan",
        "sendInitialEvents=true",
        "sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
    ] {
        let answer = cluster.get("a", &format!("{MAPS}?watch=1&{query}")).await;
        assert_eq!(answer["code"], 422, "{query}: {answer}");
    }
}

#[tokio::test]
async fn the_server_knows_who_has_caught_up() {
    let cluster = Cluster::new();
    cluster.server.create(config_map("one")).unwrap();
    let error = cluster
        .server
        .wait_until_watching("a", &["ConfigMap", "Node"], Duration::from_millis(20))
        .await;
    assert_eq!(error.unwrap_err().missing, ["ConfigMap", "Node"]);
    let mut maps = cluster.watch("a", &format!("{MAPS}?watch=1")).await;
    let _nodes = cluster.watch("a", "/api/v1/nodes?watch=1").await;
    cluster
        .server
        .wait_until_watching("a", &["configmaps", "Node"], DEADLINE)
        .await
        .unwrap();
    maps.next().await;
    let written = version(&cluster.server.create(config_map("two")).unwrap());
    cluster
        .server
        .wait_until_watching("a", &["ConfigMap"], DEADLINE)
        .await
        .unwrap();
    assert_eq!(maps.next_name().await.1, "two");
    let clients = cluster.server.clients();
    let stats = clients.iter().find(|c| c.user == "a").unwrap();
    assert_eq!(
        (stats.watches_open, stats.watches_opened, stats.events_sent),
        (2, 2, 2)
    );
    assert_eq!(stats.delivered["configmaps"], written);
}
