//! What is found in attempts that do not fit.

mod support;

use oracle::{
    Direct, Expectation, MismatchKind, Observation, Observed, Outcome, attempts_to_see_all, check,
    expect, matched_outcome,
};
use serde_json::json;
use support::*;

fn answered(pod_name: &str, client: &str) -> Observation {
    by(pod_name, client, None)
}

fn by(pod_name: &str, client: &str, key: Option<&str>) -> Observation {
    let outcome = Observed::Answered {
        ip: pod_ips(pod_name)[0],
        port: 8080,
        pod: pod_name.into(),
        client_ip: ip(client),
    };
    Observation {
        outcome,
        affinity_key: key.map(str::to_owned),
    }
}

fn all(outcome: Observed, n: usize) -> Vec<Observation> {
    vec![
        Observation {
            outcome,
            affinity_key: None
        };
        n
    ]
}

/// `a1` and `b1` in turn.
fn in_turn(n: usize) -> Vec<Observation> {
    (0..n)
        .map(|i| answered(["a1", "b1"][i % 2], "10.244.1.12"))
        .collect()
}

fn from_pod(patch: serde_json::Value) -> Expectation {
    let slices = slice("s", vec![ep("a1", "ready"), ep("b1", "ready")]);
    expect(
        &cluster(&[service("ClusterIP", patch), slices]),
        &pod("a2"),
        &tcp(CLUSTER_IP, 80),
    )
}

fn kinds(expectation: &Expectation, observed: &[Observation]) -> Vec<&'static str> {
    check(expectation, observed)
        .iter()
        .map(|mismatch| mismatch.kind.as_str())
        .collect()
}

#[test]
fn what_fits() {
    let expectation = from_pod(json!({}));
    for n in [1, 2, 10, 100, 1000] {
        assert_eq!(kinds(&expectation, &in_turn(n)), [""; 0], "{n}");
    }
    assert_eq!(matched_outcome(&expectation, &in_turn(10)), Some(0));
}

#[test]
fn nothing_observed_is_no_pass() {
    let expectation = from_pod(json!({}));
    assert_eq!(kinds(&expectation, &[]), ["nothing-observed"]);
    assert_eq!(matched_outcome(&expectation, &[]), None);
}

#[test]
fn strangers_and_failures() {
    let expectation = from_pod(json!({}));
    let mut observed = in_turn(20);
    observed.push(answered("b2", "10.244.1.12"));
    observed.extend(all(Observed::Refused, 2));
    observed.extend(all(Observed::TimedOut, 1));
    observed.extend(all(Observed::Reset, 1));
    observed.extend(all(Observed::Unreachable, 1));
    observed.extend(all(Observed::Other("EMSGSIZE".into()), 1));
    let texts: Vec<String> = check(&expectation, &observed)
        .iter()
        .map(ToString::to_string)
        .collect();
    insta::assert_snapshot!(texts.join("\n"));
    assert_eq!(matched_outcome(&expectation, &observed), None);
}

#[test]
fn right_address_but_wrong_server() {
    let expectation = from_pod(json!({}));
    let mut observed = in_turn(3);
    let wrong = |port, pod: &str| Observation {
        outcome: Observed::Answered {
            ip: pod_ips("a1")[0],
            port,
            pod: pod.into(),
            client_ip: ip("10.244.1.12"),
        },
        affinity_key: None,
    };
    observed.extend([wrong(8080, "other"), wrong(9090, "a1")]);
    assert_eq!(
        kinds(&expectation, &observed),
        ["wrong-endpoint", "wrong-endpoint"]
    );
    // A server without a name is known by its address.
    assert_eq!(kinds(&expectation, &[wrong(8080, "")]), [""; 0]);
}

#[test]
fn shares() {
    let expectation = from_pod(json!({}));
    let enough = attempts_to_see_all(2);
    let one_sided = |n: usize| vec![answered("a1", "10.244.1.12"); n];
    assert_eq!(
        kinds(&expectation, &one_sided(enough)),
        ["endpoint-never-chosen"]
    );
    assert_eq!(
        kinds(&expectation, &one_sided(10)),
        [""; 0],
        "too few to say anything"
    );
    let mut uneven = one_sided(90);
    uneven.extend(vec![answered("b1", "10.244.1.12"); 10]);
    let found = check(&expectation, &uneven);
    assert_eq!(found[0].kind, MismatchKind::UnequalShare);
    assert!(found[0].kind.is_statistical());
    assert!(
        found[0].text.contains("a1 10.244.1.11:8080: 90"),
        "{}",
        found[0]
    );
}

#[test]
fn client_addresses() {
    let expectation = from_pod(json!({}));
    let observed = [answered("a1", "10.244.1.12"), answered("b1", "10.89.0.11")];
    assert_eq!(kinds(&expectation, &observed), ["client-address-lost"]);
    // Itself: any address is right as long as it answers.
    let slices = slice("s", vec![ep("a2", "ready"), ep("b1", "ready")]);
    let hairpin = expect(
        &cluster(&[service("ClusterIP", json!({})), slices]),
        &pod("a2"),
        &tcp(CLUSTER_IP, 80),
    );
    assert_eq!(
        kinds(
            &hairpin,
            &[answered("a2", "10.244.1.1"), answered("b1", "10.244.1.12")]
        ),
        [""; 0]
    );
    assert_eq!(
        kinds(
            &hairpin,
            &[answered("a2", "10.244.1.1"), answered("b1", "10.244.1.1")]
        ),
        ["client-address-lost"]
    );
}

#[test]
fn affinity() {
    let expectation = from_pod(json!({"spec": {"sessionAffinity": "ClientIP"}}));
    let from = |pod, key| by(pod, "10.244.1.12", Some(key));
    let sticky: Vec<_> = (0..100).map(|_| from("a1", "one")).collect();
    assert_eq!(
        kinds(&expectation, &sticky),
        [""; 0],
        "one client is one choice"
    );
    let moved = [
        from("a1", "one"),
        from("b1", "two"),
        from("b1", "one"),
        from("b1", "two"),
    ];
    assert_eq!(kinds(&expectation, &moved), ["affinity-broken"]);
    let keys: Vec<String> = (0..100).map(|i| i.to_string()).collect();
    let same: Vec<_> = keys.iter().map(|key| from("a1", key)).collect();
    assert_eq!(kinds(&expectation, &same), ["endpoint-never-chosen"]);
    // Without affinity the same attempts are what they should be.
    assert_eq!(kinds(&from_pod(json!({})), &moved), [""; 0]);
}

#[test]
fn refusal_and_silence_are_different() {
    let nobody = expect(
        &cluster(&[service("LoadBalancer", json!({}))]),
        &pod("a2"),
        &tcp(CLUSTER_IP, 80),
    );
    assert_eq!(kinds(&nobody, &all(Observed::Refused, 3)), [""; 0]);
    assert_eq!(kinds(&nobody, &all(Observed::TimedOut, 3)), ["not-refused"]);
    assert_eq!(
        kinds(&nobody, &[answered("a1", "10.244.1.12")]),
        ["answered-but-must-not"]
    );

    let local = service(
        "LoadBalancer",
        json!({"spec": {"externalTrafficPolicy": "Local"}}),
    );
    let objects = [local, slice("s", vec![ep("b1", "ready")])];
    let dropped = expect(&cluster(&objects), &outside("n1"), &tcp(LB_IP, 80));
    assert_eq!(kinds(&dropped, &all(Observed::TimedOut, 3)), [""; 0]);
    assert_eq!(kinds(&dropped, &all(Observed::Refused, 3)), ["not-dropped"]);
    assert_eq!(
        kinds(&dropped, &[answered("b1", "10.99.0.11")]),
        ["answered-but-must-not"]
    );

    let unused = expect(&cluster(&objects), &pod("a2"), &tcp(CLUSTER_IP, 9999));
    for silent in [Observed::TimedOut, Observed::Refused, Observed::Unreachable] {
        assert_eq!(kinds(&unused, &all(silent, 3)), [""; 0]);
    }
    assert_eq!(
        kinds(&unused, &[answered("b1", "10.244.1.12")]),
        ["answered-but-must-not"]
    );
}

#[test]
fn characteristics_accept_either_way_but_not_a_mixture() {
    let local = service(
        "ClusterIP",
        json!({"spec": {"internalTrafficPolicy": "Local"}}),
    );
    let objects = [local, slice("s", vec![ep("b1", "ready")])];
    let open = expect(&cluster(&objects), &pod("a2"), &tcp(CLUSTER_IP, 80));
    assert_eq!(matched_outcome(&open, &all(Observed::TimedOut, 3)), Some(0));
    assert_eq!(matched_outcome(&open, &all(Observed::Refused, 3)), Some(1));
    let mut mixture = all(Observed::Refused, 3);
    mixture.extend(all(Observed::TimedOut, 1));
    assert_eq!(kinds(&open, &mixture), ["not-refused"]);
    assert_eq!(
        kinds(&open, &[answered("b1", "10.244.1.12")]),
        ["answered-but-must-not"]
    );
}

#[test]
fn plain_routing() {
    let mut cluster = cluster(&[service("NodePort", json!({}))]);
    cluster.listeners = vec![listener(Some("n1"), None, 30555, "sshd")];
    let host = |name: &str| Observation {
        outcome: Observed::Answered {
            ip: ip(N1),
            port: 30555,
            pod: name.into(),
            client_ip: ip("10.99.0.11"),
        },
        affinity_key: None,
    };
    let sshd = expect(&cluster, &outside("n1"), &tcp(N1, 30555));
    assert_eq!(kinds(&sshd, &[host("sshd")]), [""; 0]);
    assert_eq!(kinds(&sshd, &[host("imposter")]), ["wrong-endpoint"]);
    assert_eq!(kinds(&sshd, &all(Observed::Refused, 1)), ["refused"]);
    let nobody = expect(&cluster, &outside("n1"), &tcp(N1, 30556));
    assert_eq!(kinds(&nobody, &all(Observed::Refused, 1)), [""; 0]);
    assert_eq!(kinds(&nobody, &[host("sshd")]), ["answered-but-must-not"]);
    let direct = expect(&cluster, &pod("a2"), &tcp("10.244.2.11", 8080));
    assert_eq!(kinds(&direct, &[answered("b1", "10.244.1.12")]), [""; 0]);
    assert_eq!(
        kinds(&direct, &[answered("b2", "10.244.1.12")]),
        ["wrong-endpoint"]
    );
}

#[test]
fn silence_is_not_shown_by_an_attempt_that_failed_by_itself() {
    let mut nobody = from_pod(json!({}));
    for outcome in [Outcome::NoAnswer, Outcome::NotService] {
        nobody.outcomes = vec![outcome];
        nobody.direct = Direct::Nobody;
        assert!(kinds(&nobody, &all(Observed::TimedOut, 3)).is_empty());
        let other = all(Observed::Other("corrupt answer".into()), 3);
        assert_eq!(kinds(&nobody, &other), ["other-failure"]);
    }
}

#[test]
fn no_acceptable_outcome_is_no_licence() {
    let mut nothing = from_pod(json!({}));
    nothing.outcomes.clear();
    assert_eq!(
        kinds(&nothing, &all(Observed::TimedOut, 1)),
        ["other-failure"]
    );
}

#[test]
fn proportions_alone_are_left_for_the_end() {
    let statistical = |kind: MismatchKind| kind.is_statistical();
    assert!(statistical(MismatchKind::EndpointNeverChosen));
    assert!(statistical(MismatchKind::UnequalShare));
    for kind in [
        MismatchKind::WrongEndpoint,
        MismatchKind::AffinityBroken,
        MismatchKind::Refused,
        MismatchKind::AnsweredButMustNot,
        MismatchKind::NothingObserved,
    ] {
        assert!(!statistical(kind), "{kind}");
    }
}

#[test]
fn names_are_stable() {
    let value = serde_json::to_value(MismatchKind::AnsweredButMustNot).unwrap();
    assert_eq!(value, json!(MismatchKind::AnsweredButMustNot.as_str()));
    assert_eq!(
        json!(MismatchKind::EndpointNeverChosen),
        json!("endpoint-never-chosen")
    );
}
