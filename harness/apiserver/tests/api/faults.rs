//! Faults: each does what it says, to whom it says, and counts it.

use std::time::{Duration, Instant};

use apiserver::ApiServer;
use serde_json::Value;
use tokio::io::AsyncReadExt;

use crate::support::{Cluster, DEADLINE, Lines, config_map, version};

const WATCH: &str = "/api/v1/namespaces/default/configmaps?watch=1";
const LIST: &str = "/api/v1/namespaces/default/configmaps";

async fn watching(cluster: &Cluster, user: &str) -> Lines {
    let lines = cluster.watch(user, WATCH).await;
    cluster
        .server
        .wait_until_watching(user, &["ConfigMap"], DEADLINE)
        .await
        .unwrap();
    lines
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|i| i["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

fn fill(server: &ApiServer, count: usize) {
    for number in 0..count {
        server.create(config_map(&format!("c{number:02}"))).unwrap();
    }
}

#[tokio::test]
async fn dropped_watches_break_for_one_user_only() {
    let cluster = Cluster::new();
    fill(&cluster.server, 1);
    let mut victim = watching(&cluster, "victim").await;
    let mut witness = watching(&cluster, "witness").await;
    victim.next().await;
    witness.next().await;
    assert_eq!(cluster.server.faults().drop_watches(Some("nobody")), 0);
    assert_eq!(cluster.server.faults().drop_watches(Some("victim")), 1);
    victim
        .try_next()
        .await
        .expect_err("the connection was reset");
    cluster.server.create(config_map("after")).unwrap();
    assert_eq!(witness.next_name().await.1, "after");
    assert_eq!(cluster.server.faults().report().dropped_watches, 1);
}

#[tokio::test]
async fn a_half_open_connection_is_silent_until_it_is_reset() {
    let cluster = Cluster::new();
    fill(&cluster.server, 1);
    let faults = cluster.server.faults();
    let mut victim = watching(&cluster, "victim").await;
    let mut witness = watching(&cluster, "witness").await;
    victim.next().await;
    witness.next().await;
    assert_eq!(faults.half_open(Some("victim"), true), 1);
    cluster.server.create(config_map("unseen")).unwrap();
    // The witness has the event, so the victim would have it too.
    assert_eq!(witness.next_name().await.1, "unseen");
    let silence = tokio::time::timeout(Duration::from_millis(100), victim.try_next()).await;
    assert!(silence.is_err(), "{silence:?}");
    // New connections of the victim get no answer either.
    let fresh = tokio::time::timeout(Duration::from_millis(100), cluster.get("victim", LIST)).await;
    assert!(fresh.is_err());
    assert_eq!(faults.report().held_connections, 2);
    assert!(faults.half_open(Some("victim"), false) >= 1);
    victim
        .try_next()
        .await
        .expect_err("the connection was reset");
    assert_eq!(names(&cluster.get("victim", LIST).await).len(), 2);
}

#[tokio::test]
async fn an_outage_turns_everybody_away() {
    let cluster = Cluster::new();
    let mut lines = watching(&cluster, "a").await;
    assert!(cluster.server.faults().outage(true) >= 1);
    lines
        .try_next()
        .await
        .expect_err("the connection was reset");
    let mut stream = tokio::net::TcpStream::connect(cluster.serving.address())
        .await
        .unwrap();
    let read = tokio::time::timeout(DEADLINE, stream.read(&mut [0; 1]))
        .await
        .unwrap();
    assert_eq!(
        read.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
    assert!(cluster.server.faults().report().aborted_connections >= 2);
    cluster.server.faults().outage(false);
    assert!(names(&cluster.get("a", LIST).await).is_empty());
}

#[tokio::test]
async fn errors_are_counted_down() {
    let cluster = Cluster::new();
    let faults = cluster.server.faults();
    faults.errors(Some("a"), 500, Some(2));
    assert_eq!(cluster.get("b", LIST).await["kind"], "ConfigMapList");
    assert_eq!(cluster.get("a", LIST).await["code"], 500);
    assert_eq!(cluster.get("a", LIST).await["reason"], "InternalError");
    assert_eq!(cluster.get("a", LIST).await["kind"], "ConfigMapList");
    faults.errors(None, 403, None);
    for _ in 0..3 {
        assert_eq!(cluster.get("b", LIST).await["reason"], "Forbidden");
    }
    faults.clear();
    assert_eq!(cluster.get("b", LIST).await["kind"], "ConfigMapList");
    assert_eq!(faults.report().error_responses, 5);
}

#[tokio::test]
async fn delays_hold_responses_and_events_back() {
    let cluster = Cluster::new();
    let mut lines = watching(&cluster, "a").await;
    let delay = Duration::from_millis(150);
    cluster.server.faults().delay(Some("a"), delay);
    let started = Instant::now();
    fill(&cluster.server, 2);
    lines.next().await;
    assert!(started.elapsed() >= delay);
    lines.next().await;
    let started = Instant::now();
    cluster.get("a", LIST).await;
    assert!(started.elapsed() >= delay);
    let report = cluster.server.faults().report();
    assert_eq!((report.delayed_events, report.delayed_responses), (2, 1));
}

#[tokio::test]
async fn lists_are_shuffled_by_seed() {
    let cluster = Cluster::new();
    fill(&cluster.server, 20);
    let sorted = names(&cluster.get("a", LIST).await);
    cluster.server.faults().shuffle_lists(Some("a"), Some(7));
    let shuffled = names(&cluster.get("a", LIST).await);
    assert_ne!(shuffled, sorted);
    assert_eq!(
        names(&cluster.get("a", LIST).await),
        shuffled,
        "one seed, one order"
    );
    assert_eq!(names(&cluster.get("b", LIST).await), sorted);
    let mut again = shuffled;
    again.sort();
    assert_eq!(again, sorted);
    assert_eq!(cluster.server.faults().report().shuffled_lists, 2);
}

#[tokio::test]
async fn events_are_duplicated_and_updates_say_nothing() {
    let cluster = Cluster::new();
    let mut lines = watching(&cluster, "a").await;
    cluster.server.faults().duplicate_events(None, true);
    fill(&cluster.server, 1);
    let (first, second) = (lines.next().await, lines.next().await);
    assert_eq!(first, second);
    cluster.server.faults().clear();
    assert_eq!(cluster.server.noop_updates("Lease", 3), 0);
    assert_eq!(cluster.server.noop_updates("ConfigMap", 2), 2);
    let (mut one, mut two) = (
        lines.next().await["object"].take(),
        lines.next().await["object"].take(),
    );
    assert_eq!(version(&two), version(&one) + 1);
    for object in [&mut one, &mut two] {
        object["metadata"]["resourceVersion"] = Value::Null;
    }
    assert_eq!(one, two);
    let report = cluster.server.faults().report();
    assert_eq!((report.duplicated_events, report.noop_updates), (1, 2));
}

#[tokio::test]
async fn a_stopped_listener_takes_its_connections_along() {
    let cluster = Cluster::new();
    let mut lines = watching(&cluster, "a").await;
    let second = cluster
        .server
        .serve(std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .unwrap();
    cluster.serving.stop();
    lines
        .try_next()
        .await
        .expect_err("the connection was reset");
    assert!(
        tokio::net::TcpStream::connect(second.address())
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_closed_listener_refuses_until_there_is_another() {
    let cluster = Cluster::new();
    fill(&cluster.server, 1);
    let mut lines = watching(&cluster, "a").await;
    let seen = version(&lines.next().await["object"]);
    let address = cluster.serving.address();
    let accepted = cluster.server.faults().report().accepted_connections;
    assert!(accepted >= 1);
    assert!(cluster.serving.close().await >= 1);
    lines
        .try_next()
        .await
        .expect_err("the connection was reset");
    let refused = tokio::net::TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    cluster.server.create(config_map("meanwhile")).unwrap();
    let serving = cluster
        .server
        .serve(std::net::TcpListener::bind(address).unwrap())
        .unwrap();
    let cluster = Cluster {
        server: cluster.server,
        serving,
        front: None,
    };
    // It went on where it was: who asks for what came after the last event gets just that.
    let since = format!("{WATCH}&resourceVersion={seen}");
    let mut again = cluster.watch("a", &since).await;
    assert_eq!(again.next_name().await.1, "meanwhile");
    assert!(cluster.server.faults().report().accepted_connections > accepted);
}

#[tokio::test]
async fn a_restored_store_knows_nothing_of_what_clients_know() {
    let cluster = Cluster::new();
    fill(&cluster.server, 2);
    let before = cluster.server.resource_version();
    cluster.server.faults().restore();
    let now = cluster.server.resource_version();
    assert!(now > before + 1_000_000, "{before} {now}");
    let old = format!("{WATCH}&resourceVersion={before}");
    let told = cluster.watch("a", &old).await.next().await;
    assert_eq!(
        (&told["type"], &told["object"]["code"]),
        (&"ERROR".into(), &410.into())
    );
    let list = cluster.get("a", LIST).await;
    assert_eq!(names(&list).len(), 2, "the objects are there");
    let fresh = format!(
        "{WATCH}&resourceVersion={}",
        list["metadata"]["resourceVersion"].as_str().unwrap()
    );
    let mut lines = cluster.watch("a", &fresh).await;
    cluster.server.create(config_map("after")).unwrap();
    let event = lines.next().await;
    assert_eq!(event["object"]["metadata"]["name"], "after");
    assert!(version(&event["object"]) > now);
}

#[tokio::test]
async fn objects_of_one_kind_come_late_and_one_at_a_time() {
    let cluster = Cluster::new();
    fill(&cluster.server, 12);
    let delay = Duration::from_millis(40);
    let faults = cluster.server.faults();
    let sorted = names(&cluster.get("a", LIST).await);
    faults.late(None, "configmaps", delay, 7);
    let started = Instant::now();
    let late = names(&cluster.get("a", LIST).await);
    assert!(started.elapsed() >= delay);
    assert_ne!(late, sorted, "another order");
    let started = Instant::now();
    let mut lines = cluster.watch("a", WATCH).await;
    let mut seen = Vec::new();
    for number in 1..=sorted.len() {
        seen.push(lines.next_name().await.1);
        assert!(started.elapsed() >= delay * number as u32, "{number}");
    }
    assert_eq!(seen, late, "one seed, one order");
    seen.sort();
    assert_eq!(seen, sorted);
    // An event is late by as much, and of another kind it is not: its watch would wait for longer than this test takes.
    let started = Instant::now();
    cluster.server.create(config_map("event")).unwrap();
    assert_eq!(lines.next_name().await.1, "event");
    assert!(started.elapsed() >= delay);
    let counted = faults.report().late_objects;
    assert_eq!(counted, 12 + 12 + 1);
    let namespaces = cluster.get("a", "/api/v1/namespaces").await;
    assert_eq!(names(&namespaces).len(), 4);
    faults.late(None, "ConfigMap", Duration::ZERO, 0);
    assert_eq!(names(&cluster.get("a", LIST).await).len(), 13);
    let report = faults.report();
    assert_eq!((report.late_objects, report.delayed_events), (counted, 0));
}
