//! What people read when something does not start.

use serde_json::{Value, json};

use super::*;

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

fn pod(name: &str, node: Option<&str>, status: &Value) -> Pod {
    read(
        json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": []}, "status": status}),
    )
}

fn container(name: &str, restarts: i32, state: &Value, last: &Value) -> Value {
    json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": restarts, "state": state, "lastState": last})
}

fn event(about: &str, kind: &str, type_: &str, second: u32, message: &str) -> Event {
    read(json!({
        "metadata": {"name": "e"}, "involvedObject": {"kind": kind, "name": about}, "type": type_, "reason": "Reason",
        "message": message, "count": second, "lastTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
    }))
}

fn node(name: &str, conditions: &Value) -> Node {
    read(json!({"metadata": {"name": name}, "status": {"conditions": conditions}}))
}

#[test]
fn a_container_that_crashes() {
    let ended = json!({"terminated": {"exitCode": 2, "reason": "Error"}});
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}});
    let crashing = json!({"phase": "Running", "containerStatuses": [container("proxy", 4, &waiting, &ended)],
        "initContainerStatuses": [container("setup", 0, &json!({"terminated": {"exitCode": 0}}), &json!({}))]});
    let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    let pods = [
        pod("proxy-a", Some("w1"), &crashing),
        pod("proxy-b", Some("w2"), &ready),
    ];
    let logs = Logs::from([(
        ("proxy-a".into(), "proxy".into()),
        vec!["starting".into(), "fatal: no such table".into()],
    )]);
    let events = [
        event(
            "proxy-a",
            "Pod",
            "Warning",
            9,
            "Back-off restarting failed container\n",
        ),
        event("proxy-a", "Pod", "Normal", 3, "Pulled"),
        event("other", "Pod", "Warning", 4, "not about it"),
        event("proxy", "DaemonSet", "Warning", 1, "created too late"),
    ];
    let nodes = [node("w1", &json!([{"type": "Ready", "status": "True"}]))];
    let diagnosis = summarize("proxy", &pods, &events, &nodes, &logs);
    assert!(!diagnosis.lacks_image());
    assert_eq!(diagnosis.lost_node(), None);
    insta::assert_snapshot!(diagnosis, @"
      Pod proxy-a on w1: Running
        container proxy: waiting: CrashLoopBackOff (back-off 40s restarting failed container), started again 4 times, last time it ended with 2: Error
          | starting
          | fatal: no such table
      event: DaemonSet proxy: Reason: created too late
      event: Pod proxy-a: Reason: Back-off restarting failed container (9 times)
    ");
}

#[test]
fn an_image_that_cannot_be_had() {
    let waiting = json!({"waiting": {"reason": "ImagePullBackOff"}});
    let status = json!({"phase": "Pending", "containerStatuses": [container("proxy", 0, &waiting, &json!({}))]});
    let pods: Vec<Pod> = (0..7)
        .map(|n| pod(&format!("proxy-{n}"), Some("w1"), &status))
        .collect();
    let diagnosis = summarize("proxy", &pods, &[], &[], &Logs::new());
    assert!(diagnosis.lacks_image());
    insta::assert_snapshot!(diagnosis, @"
      Pod proxy-0 on w1: Pending
        container proxy: waiting: ImagePullBackOff
      Pod proxy-1 on w1: Pending
        container proxy: waiting: ImagePullBackOff
      Pod proxy-2 on w1: Pending
        container proxy: waiting: ImagePullBackOff
      Pod proxy-3 on w1: Pending
        container proxy: waiting: ImagePullBackOff
      Pod proxy-4 on w1: Pending
        container proxy: waiting: ImagePullBackOff
      2 more Pods are not ready
    ");
}

#[test]
fn nodes_on_which_nothing_starts() {
    let pending = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]});
    let on = |node| [pod("proxy-a", node, &pending)];
    let table = [
        (
            on(Some("w1")),
            json!([{"type": "Ready", "status": "Unknown"}]),
            Some("node w1 is lost"),
        ),
        (
            on(Some("w2")),
            json!([{"type": "Ready", "status": "Unknown"}]),
            None,
        ),
        (
            on(None),
            json!([{"type": "DiskPressure", "status": "True"}]),
            Some("node w1 has no room: DiskPressure"),
        ),
        // A missing network plugin: what is installed may be one.
        (
            on(Some("w1")),
            json!([{"type": "Ready", "status": "False"}]),
            None,
        ),
    ];
    for (pods, conditions, want) in table {
        let diagnosis = summarize(
            "proxy",
            &pods,
            &[],
            &[node("w1", &conditions)],
            &Logs::new(),
        );
        let lost = diagnosis.lost_node();
        assert_eq!(lost.is_some(), want.is_some(), "{conditions}: {lost:?}");
        assert!(
            lost.unwrap_or_default()
                .starts_with(want.unwrap_or_default()),
            "{conditions}"
        );
        assert!(
            diagnosis.to_string().contains("(0/3 nodes are available)"),
            "{diagnosis}"
        );
    }
}

#[test]
fn an_image_on_its_way_is_no_fault_of_the_candidate() {
    let creating = json!({"waiting": {"reason": "ContainerCreating"}});
    let pods = |restarts| {
        let status = container("proxy", restarts, &creating, &json!({}));
        [pod(
            "proxy-a",
            Some("w1"),
            &json!({"phase": "Pending", "containerStatuses": [status]}),
        )]
    };
    let event = |reason: &str, second: u32, message: &str| -> Event {
        let mut event = event("proxy-a", "Pod", "Normal", second, message);
        event.reason = Some(reason.into());
        event
    };
    let pulling = || event("Pulling", 5, "Pulling image \"proxy:1\"");
    let table = [
        (0, vec![pulling()], true),
        (
            0,
            vec![
                pulling(),
                event("Failed", 6, "Failed to pull image \"proxy:1\": timeout"),
                event("Failed", 6, "Error: ErrImagePull"),
            ],
            true,
        ),
        (
            0,
            vec![event("Pulled", 5, "Successfully pulled image"), pulling()],
            false,
        ),
        (
            0,
            vec![
                pulling(),
                event("Pulled", 9, "Successfully pulled image"),
                event("Failed", 9, "Error: no such command"),
            ],
            false,
        ),
        (0, vec![event("FailedMount", 9, "no such volume")], false),
        (0, vec![], false),
        // It ran before, so the image is there.
        (3, vec![pulling()], false),
    ];
    for (restarts, events, want) in table {
        let diagnosis = summarize("proxy", &pods(restarts), &events, &[], &Logs::new());
        assert_eq!(diagnosis.lacks_image(), want, "{restarts} {events:?}");
    }
}
