//! The gateway: what it passes on, and that it breaks as the embedded API does.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use apiserver::{ApiServer, Switch};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::support::{Cluster, DEADLINE, Lines, config_map, version};

const WATCH: &str =
    "/api/v1/namespaces/default/configmaps?watch=1&allowWatchBookmarks=1&resourceVersion=";
/// As clients of today begin (KEP-3157).
const ALL: &str = "/api/v1/namespaces/default/configmaps?watch=1&allowWatchBookmarks=1&sendInitialEvents=1&resourceVersionMatch=NotOlderThan";
const LIST: &str = "/api/v1/namespaces/default/configmaps";

fn fill(server: &ApiServer, count: usize) {
    for number in 0..count {
        server.create(config_map(&format!("c{number:02}"))).unwrap();
    }
}

/// A watch that has been told that there is nothing more.
async fn watching(cluster: &Cluster) -> (Lines, Vec<String>) {
    let mut lines = cluster.watch("a", ALL).await;
    let mut names = Vec::new();
    loop {
        let (kind, name) = lines.next_name().await;
        if kind == "BOOKMARK" {
            return (lines, names);
        }
        names.push(name);
    }
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|i| i["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

fn is_gone(event: &Value) {
    assert_eq!(
        (&event["type"], &event["object"]["code"]),
        (&json!("ERROR"), &json!(410)),
        "{event}"
    );
}

fn maps(client: Client) -> Api<ConfigMap> {
    Api::namespaced(client, "default")
}

#[tokio::test]
async fn what_nobody_breaks_is_as_without_it() {
    let cluster = Cluster::behind_gateway();
    fill(&cluster.server, 3);
    let api = maps(cluster.client("a").await);
    let mut object = api.get("c00").await.unwrap();
    object.data = Some([("k".to_owned(), "new".to_owned())].into());
    api.replace("c00", &PostParams::default(), &object)
        .await
        .unwrap();
    let conflict = api.replace("c00", &PostParams::default(), &object).await;
    assert!(matches!(conflict, Err(kube::Error::Api(status)) if status.code == 409));
    let patch = Patch::Merge(json!({"data": {"k": "patched"}}));
    api.patch("c01", &PatchParams::default(), &patch)
        .await
        .unwrap();
    api.delete("c02", &Default::default()).await.unwrap();
    let missing = api.get("c02").await;
    assert!(matches!(missing, Err(kube::Error::Api(status)) if status.code == 404));
    let direct = cluster.server.list("v1", "ConfigMap", None).unwrap().len();
    assert_eq!(
        (
            api.list(&Default::default()).await.unwrap().items.len(),
            direct
        ),
        (2, 2)
    );
    let (mut lines, _) = watching(&cluster).await;
    cluster.server.create(config_map("new")).unwrap();
    assert_eq!(lines.next_name().await, ("ADDED".into(), "new".into()));
    // Whoever has no token is nobody behind it, too.
    let version = cluster.get("a", "/version").await;
    assert!(version["gitVersion"].is_string(), "{version}");
    let front = cluster.front.as_ref().unwrap();
    assert_eq!(front.gateway.watches().values().sum::<usize>(), 1);
    assert_eq!(cluster.faults().report().upstream_errors, 0);
}

#[tokio::test]
async fn an_api_server_that_is_gone_is_not_taken_for_a_fault() {
    let mut cluster = Cluster::behind_gateway();
    let other = ApiServer::new(apiserver::Config::default()).unwrap();
    let elsewhere = other
        .serve(std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .unwrap();
    std::mem::replace(&mut cluster.serving, elsewhere)
        .close()
        .await;
    let answer = cluster.get("a", LIST).await;
    assert_eq!(answer["code"], 503, "{answer}");
    let said = answer["message"].as_str().unwrap();
    assert!(said.contains("behind the gateway"), "{said}");
    assert_eq!(cluster.faults().report().upstream_errors, 1);
}

#[tokio::test]
async fn connections_are_reset_held_and_refused() {
    let cluster = Cluster::behind_gateway();
    let faults = cluster.faults();
    let (mut lines, _) = watching(&cluster).await;
    assert_eq!(faults.throw(&Switch::DropWatches), 1);
    lines.try_next().await.expect_err("it was reset");
    let (mut lines, _) = watching(&cluster).await;
    assert!(faults.throw(&Switch::HalfOpen(true)) >= 1);
    cluster.server.create(config_map("unseen")).unwrap();
    let silence = tokio::time::timeout(Duration::from_millis(100), lines.try_next()).await;
    assert!(silence.is_err(), "{silence:?}");
    let front = cluster.front.as_ref().unwrap();
    assert_eq!(front.gateway.watches().values().sum::<usize>(), 0);
    faults.throw(&Switch::HalfOpen(false));
    lines.try_next().await.expect_err("it was reset");
    let (mut lines, told) = watching(&cluster).await;
    assert_eq!(told, ["unseen"]);
    assert!(faults.throw(&Switch::Outage(true)) >= 1);
    lines.try_next().await.expect_err("it was reset");
    let mut stream = tokio::net::TcpStream::connect(front.serving.address())
        .await
        .unwrap();
    let read = tokio::time::timeout(DEADLINE, stream.read(&mut [0; 1])).await;
    let error = read.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    faults.throw(&Switch::Clear);
    faults.throw(&Switch::Outage(false));
    assert_eq!(names(&cluster.get("a", LIST).await), ["unseen"]);
}

#[tokio::test]
async fn errors_and_delays_are_those_of_the_embedded_api() {
    let cluster = Cluster::behind_gateway();
    let (mut lines, _) = watching(&cluster).await;
    let faults = cluster.faults();
    faults.throw(&Switch::Errors(Some(500)));
    assert_eq!(cluster.get("a", LIST).await["reason"], "InternalError");
    faults.throw(&Switch::Errors(None));
    let delay = Duration::from_millis(150);
    faults.throw(&Switch::Delay(delay));
    let started = Instant::now();
    fill(&cluster.server, 60);
    for _ in 0..60 {
        lines.next().await;
    }
    // Each is as late as the first, and not later for those before it.
    let took = started.elapsed();
    assert!(took >= delay && took < 30 * delay, "{took:?}");
    let report = faults.report();
    assert_eq!((report.error_responses, report.delayed_events), (1, 60));
}

#[tokio::test]
async fn lists_come_in_another_order_and_events_twice() {
    let cluster = Cluster::behind_gateway();
    fill(&cluster.server, 20);
    let sorted = names(&cluster.get("a", LIST).await);
    let (_, first) = watching(&cluster).await;
    assert_eq!(first, sorted);
    let faults = cluster.faults();
    faults.throw(&Switch::ShuffleLists(Some(7)));
    let shuffled = names(&cluster.get("a", LIST).await);
    let (_, told) = watching(&cluster).await;
    for order in [&shuffled, &told] {
        assert_ne!(order, &sorted);
        let all: BTreeSet<&String> = order.iter().collect();
        assert!(all.into_iter().eq(&sorted));
    }
    assert_eq!(faults.report().shuffled_lists, 2);
    faults.throw(&Switch::ShuffleLists(None));
    let (mut lines, _) = watching(&cluster).await;
    faults.throw(&Switch::DuplicateEvents(true));
    cluster.server.create(config_map("new")).unwrap();
    assert_eq!(lines.next().await, lines.next().await);
    assert_eq!(faults.report().duplicated_events, 1);
}

#[tokio::test]
async fn one_kind_comes_late_and_the_others_do_not() {
    let cluster = Cluster::behind_gateway();
    fill(&cluster.server, 3);
    let late = Duration::from_millis(100);
    cluster.faults().throw(&Switch::Late {
        kind: "configmap".into(),
        by: late,
        seed: 3,
    });
    let started = Instant::now();
    let (mut lines, told) = watching(&cluster).await;
    assert_eq!(told.len(), 3);
    assert!(started.elapsed() >= 3 * late);
    let started = Instant::now();
    cluster.server.create(config_map("new")).unwrap();
    lines.next().await;
    assert!(started.elapsed() >= late);
    assert_eq!(cluster.faults().report().late_objects, 4);
    assert_eq!(
        cluster.get("a", "/api/v1/services").await["items"],
        json!([])
    );
    assert_eq!(cluster.faults().report().late_objects, 4);
}

#[tokio::test]
async fn a_compaction_ends_watches_and_forgets_versions() {
    let cluster = Cluster::behind_gateway();
    fill(&cluster.server, 2);
    let list = cluster.get("a", LIST).await;
    let (mut lines, _) = watching(&cluster).await;
    cluster.server.create(config_map("new")).unwrap();
    let new = version(&lines.next().await["object"]);
    assert_eq!(cluster.faults().throw(&Switch::Compact), 1);
    is_gone(&lines.next().await);
    assert_eq!(lines.try_next().await.unwrap(), None);
    let old = format!("{WATCH}{}", version(&list));
    is_gone(&cluster.watch("a", &old).await.next().await);
    let exact = format!(
        "{LIST}?resourceVersion={}&resourceVersionMatch=Exact",
        version(&list)
    );
    assert_eq!(cluster.get("a", &exact).await["reason"], "Expired");
    let report = cluster.faults().report();
    assert_eq!((report.expired_watches, report.expired_requests), (2, 1));
    // What is newer is still there.
    let mut lines = cluster.watch("a", &format!("{WATCH}{new}")).await;
    cluster.server.create(config_map("newer")).unwrap();
    assert_eq!(lines.next_name().await.1, "newer");
}

#[tokio::test]
async fn a_restored_api_server_is_far_ahead() {
    let mut cluster = Cluster::behind_gateway();
    fill(&cluster.server, 2);
    let before = cluster.get("a", LIST).await;
    let front = cluster.front.as_mut().unwrap();
    let address = front.serving.address();
    let gateway = front.gateway.clone();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = std::mem::replace(&mut front.serving, gateway.serve(listener).unwrap());
    closed.close().await;
    gateway.faults().throw(&Switch::Restore);
    let again = std::net::TcpListener::bind(address).unwrap();
    cluster.front.as_mut().unwrap().serving = gateway.serve(again).unwrap();
    is_gone(
        &cluster
            .watch("a", &format!("{WATCH}{}", version(&before)))
            .await
            .next()
            .await,
    );
    let after = cluster.get("a", LIST).await;
    assert!(version(&after) > version(&before) + 1_000_000);
    assert_eq!(names(&after), names(&before));
    let mut lines = cluster
        .watch("a", &format!("{WATCH}{}", version(&after)))
        .await;
    let api = maps(cluster.client("a").await);
    // Writes are based on what clients see.
    let mut object = api.get("c00").await.unwrap();
    object.data = Some([("k".to_owned(), "new".to_owned())].into());
    let written = api.replace("c00", &PostParams::default(), &object).await;
    let written = json!(written.unwrap());
    let told = lines.next().await["object"].take();
    assert_eq!(version(&told), version(&written));
    assert!(version(&told) > version(&after));
    let conflict = api.replace("c00", &PostParams::default(), &object).await;
    assert!(matches!(conflict, Err(kube::Error::Api(status)) if status.code == 409));
}

/// Whatever is done to it, a client that follows the rules has in the end what the API server has.
#[tokio::test]
async fn a_reflector_lives_through_all_of_it() {
    let cluster = Cluster::behind_gateway();
    fill(&cluster.server, 5);
    let (store, writer) = reflector::store();
    let stream = watcher(maps(cluster.client("a").await), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .map(Ok::<_, std::convert::Infallible>);
    let follow = tokio::spawn(stream.try_for_each(|_| async { Ok(()) }));
    let late = Switch::Late {
        kind: "ConfigMap".into(),
        by: Duration::from_millis(5),
        seed: 1,
    };
    let never = Switch::Late {
        kind: "ConfigMap".into(),
        by: Duration::ZERO,
        seed: 1,
    };
    let rounds: [&[Switch]; 9] = [
        &[Switch::DropWatches],
        &[Switch::Compact],
        &[Switch::ShuffleLists(Some(1)), Switch::Compact],
        &[Switch::Outage(true), Switch::Compact, Switch::Outage(false)],
        &[
            Switch::Errors(Some(500)),
            Switch::DropWatches,
            Switch::Errors(None),
        ],
        &[late, Switch::Restore, never],
        &[
            Switch::DuplicateEvents(true),
            Switch::HalfOpen(true),
            Switch::HalfOpen(false),
        ],
        &[Switch::Delay(Duration::from_millis(5)), Switch::Compact],
        &[Switch::Clear, Switch::Restore],
    ];
    for (round, switches) in rounds.iter().enumerate() {
        for switch in *switches {
            cluster.faults().throw(switch);
            cluster
                .server
                .create(config_map(&format!(
                    "r{round}-{}",
                    cluster.server.resource_version()
                )))
                .unwrap();
        }
        cluster
            .server
            .delete(&apiserver::ObjectRef::new(
                "v1",
                "ConfigMap",
                "default",
                "c00",
            ))
            .ok();
        let until = Instant::now() + DEADLINE;
        let wanted: BTreeSet<String> = cluster
            .server
            .list("v1", "ConfigMap", None)
            .unwrap()
            .iter()
            .map(|object| object["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        loop {
            let have: BTreeSet<String> = store
                .state()
                .iter()
                .filter_map(|object| object.metadata.name.clone())
                .collect();
            if have == wanted {
                break;
            }
            assert!(
                Instant::now() < until,
                "round {round}: {have:?}, not {wanted:?}"
            );
            // A poll of a condition with a deadline.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    follow.abort();
}
