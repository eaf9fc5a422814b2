//! The oracle is cross-examined by a second implementation of the same rules, which is as naive as possible.
//!
//! `world.rs` draws clusters, `model.rs` says by brute force what must happen in them, and here both are asked about every
//! source, address, protocol and port that matters. Where they disagree, one of the two misreads the API.
//!
//! The choices are the same in every run. `ORACLE_NAIVE_WORLDS` sets how many clusters are drawn, and `ORACLE_NAIVE_SEED`
//! (a number) which ones.

mod model;
mod tape;
mod world;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::net::IpAddr;
use std::thread;

use model::{Answer, Model, Verdict, Who};
use oracle::{ClientAddress, Destination, Direct, Expectation, Outcome, Protocol, expect};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use tape::Tape;
use world::{World, ip};

/// Clusters per run, unless the environment says otherwise.
const WORLDS: u64 = 2000;

/// Parts of a run that go on at the same time, each with choices of its own.
const PARTS: u64 = 4;

fn number(variable: &str, default: u64) -> u64 {
    match env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is no number: {text}")),
        Err(_) => default,
    }
}

fn runner(part: u64, worlds: u64) -> TestRunner {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&number("ORACLE_NAIVE_SEED", 0).to_le_bytes());
    seed[8..16].copy_from_slice(&part.to_le_bytes());
    TestRunner::new_with_rng(
        Config {
            cases: u32::try_from(worlds.div_ceil(PARTS)).expect("so many clusters take years"),
            failure_persistence: None,
            ..Config::default()
        },
        TestRng::from_seed(RngAlgorithm::ChaCha, &seed),
    )
}

/// The oracle's answer in the words of the model.
fn verdicts(expectation: &Expectation) -> BTreeSet<Verdict> {
    expectation
        .outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Endpoints { shares, client } => {
                let who = shares.iter().map(|share| Who {
                    ip: share.ip,
                    port: share.port,
                    name: share.pod.clone(),
                    node: share.node.clone(),
                    itself: share.hairpin,
                });
                Verdict::Answered(who.collect(), *client == ClientAddress::Preserved)
            }
            Outcome::Refuse => Verdict::Refused,
            Outcome::Drop => Verdict::Dropped,
            Outcome::NotService => Verdict::Plain,
            Outcome::NoAnswer => Verdict::Nobody,
        })
        .collect()
}

/// Requirements that both must name for the same questions, where one claim is all there is.
const ALWAYS: &[&str] = &[
    "FLT-6",
    "FLT-7",
    "NOEP-6",
    "SAFE-1",
    "SAFE-3",
    "SRC-1",
    "SRC-2",
    "SRC-3",
    "SRC-6",
    "SVC-CIP-4",
    "SVC-CIP-5",
    "SVC-LB-10",
    "SVC-LB-4",
    "SVC-LB-7",
    "SVC-LB-8",
    "SVC-NP-10",
    "SVC-NP-4",
    "SVC-NP-5",
    "TP-14",
    "TP-2",
    "TP-7",
];

/// Requirements that both must name as well, unless several points of view come to the same verdict: then the oracle names
/// the reasons of the first.
const ALONE: &[&str] = &[
    "AFF-1", "DIST-1", "EP-3", "NOEP-1", "NOEP-2", "NOEP-3", "NOEP-5", "TP-1", "TP-10", "TP-11",
    "TP-4", "TP-5", "TP-6", "TP-8",
];

fn differences(
    answer: &Answer,
    got: &Expectation,
    own: &[IpAddr],
    to: &Destination,
) -> Vec<String> {
    let mut list = Vec::new();
    let has = verdicts(got);
    if has != answer.verdicts {
        list.push(format!("oracle {has:?}, naive {:?}", answer.verdicts));
    }
    if has.len() != got.outcomes.len() {
        list.push("the oracle names an outcome twice".into());
    }
    if got.characteristic.is_some() != (answer.verdicts.len() > 1) {
        list.push(format!(
            "the oracle has the characteristic {:?}",
            got.characteristic
        ));
    }
    if answer.verdicts.contains(&Verdict::Plain) {
        let direct = match &got.direct {
            Direct::Nobody => None,
            Direct::Pod { name } | Direct::Listener { name } => Some(name.clone()),
        };
        if direct != answer.direct {
            list.push(format!(
                "direct: oracle {direct:?}, naive {:?}",
                answer.direct
            ));
        }
    }
    // Where several Services may be served, the oracle names the affinity of one.
    let seconds = got.affinity.map(|time| time.as_secs());
    let fits = match seconds {
        None if answer.affinity.is_empty() => true,
        _ => answer.affinity.contains(&seconds),
    };
    if !fits {
        list.push(format!(
            "affinity: oracle {seconds:?}, naive {:?}",
            answer.affinity
        ));
    }
    let (one_claim, alone) = (answer.claims < 2, answer.claims == 1 && answer.one_way);
    let decisive = |ids: BTreeSet<&str>| -> BTreeSet<String> {
        let counts =
            |id: &&&str| one_claim && (ALWAYS.contains(*id) || (alone && ALONE.contains(*id)));
        ids.iter()
            .filter(counts)
            .map(|id| (*id).to_owned())
            .collect()
    };
    let named = decisive(got.requirements.iter().map(String::as_str).collect());
    let ruled = decisive(answer.rules.clone());
    if named != ruled {
        list.push(format!(
            "requirements that only the oracle names {:?}, that only naive names {:?}",
            named.difference(&ruled).collect::<Vec<_>>(),
            ruled.difference(&named).collect::<Vec<_>>()
        ));
    }
    let mut own = own.iter().filter(|ip| ip.is_ipv4() == to.ip.is_ipv4());
    if !own.all(|ip| got.client_ips.contains(ip)) {
        list.push(format!(
            "the client's addresses are not among {:?}",
            got.client_ips
        ));
    }
    list
}

/// What is asked: destinations that somebody claims, and others beside them that nobody serves.
fn destinations(world: &World, model: &Model, tape: &mut Tape) -> BTreeSet<Destination> {
    let mut all: BTreeSet<Destination> = model.claimed().collect();
    let addresses: BTreeSet<IpAddr> = all
        .iter()
        .map(|to| to.ip)
        .chain(
            [
                "10.96.77.77",
                "fd00:96::7777",
                "203.0.113.77",
                "127.0.0.1",
                "::1",
                "10.99.0.50",
            ]
            .map(ip),
        )
        .chain(world.pods[..3].iter().flat_map(|pod| pod.ips))
        .collect();
    // NodePorts are many and much alike.
    all.retain(|to| to.port < 30_000 || tape.percent(15));
    for address in addresses {
        for port in [53, 80, 81, 8080, 30080, 30081, 30555, 30556] {
            if tape.percent(6) {
                let protocol =
                    tape.pick(&[Protocol::Tcp, Protocol::Udp, Protocol::Tcp, Protocol::Sctp]);
                all.insert(Destination {
                    ip: address,
                    port,
                    protocol,
                });
            }
        }
    }
    all
}

/// The rules that naive knows, each of which has to have a say in at least one of [`RARE`] clusters.
const RULES: &[&str] = &[
    "AFF-1",
    "DIST-1",
    "EP-16",
    "EP-2",
    "EP-3",
    "EP-5",
    "EP-6",
    "FAM-3",
    "FLT-2",
    "FLT-3",
    "FLT-4",
    "FLT-6",
    "FLT-7",
    "NOEP-1",
    "NOEP-2",
    "NOEP-3",
    "NOEP-5",
    "NOEP-6",
    "SAFE-1",
    "SAFE-3",
    "SAFE-4",
    "SRC-1",
    "SRC-2",
    "SRC-3",
    "SRC-6",
    "SVC-CIP-1",
    "SVC-CIP-2",
    "SVC-CIP-4",
    "SVC-CIP-5",
    "SVC-EIP-3",
    "SVC-LB-10",
    "SVC-LB-3",
    "SVC-LB-4",
    "SVC-LB-7",
    "SVC-LB-8",
    "SVC-NP-1",
    "SVC-NP-10",
    "SVC-NP-2",
    "SVC-NP-3",
    "SVC-NP-4",
    "SVC-NP-5",
    "TP-1",
    "TP-10",
    "TP-11",
    "TP-12",
    "TP-14",
    "TP-2",
    "TP-4",
    "TP-5",
    "TP-6",
    "TP-7",
    "TP-8",
    "TP-9",
    "address-of-other-family",
    "admitted",
    "cluster-ip-from-outside-without-endpoints",
    "denied",
    "hints-void",
    "loopback-of-pod",
    "nodeport-local-from-within",
    "vip-from-inside",
    "vip-from-outside",
];

/// One cluster in so many, at least. The rarest rule has a say in about one of fifty.
const RARE: usize = 100;

/// Asks both all questions about one cluster; gives the rules that fired and the number of questions.
fn cross_examine(bytes: &[u8]) -> Result<(BTreeSet<&'static str>, usize), String> {
    let mut tape = Tape::new(bytes);
    let world = world::world(&mut tape);
    let cluster = world.cluster();
    let model = Model::new(&world);
    let (mut fired, mut questions) = (BTreeSet::new(), 0);
    for to in destinations(&world, &model, &mut tape) {
        for (source, own) in world.sources() {
            if !own.iter().any(|ip| ip.is_ipv4() == to.ip.is_ipv4()) {
                continue;
            }
            let answer = model.answer(&source, &own, &to);
            let got = expect(&cluster, &source, &to);
            let differences = differences(&answer, &got, &own, &to);
            if !differences.is_empty() {
                return Err(format!(
                    "{source} to {to}:\n  {}\nthe oracle's reasons: {:#?}\nnaive's rules: {:?}\n{}",
                    differences.join("\n  "),
                    got.why,
                    answer.rules,
                    world.describe()
                ));
            }
            questions += 1;
            fired.extend(answer.rules);
        }
    }
    Ok((fired, questions))
}

/// What a part of a run has seen.
#[derive(Default)]
struct Seen {
    rules: BTreeMap<&'static str, usize>,
    questions: usize,
}

fn examine_many(mut runner: TestRunner) -> Result<Seen, String> {
    let seen: RefCell<Seen> = RefCell::default();
    let outcome = runner.run(&vec(any::<u8>(), 100..800), |bytes| {
        let (fired, questions) = cross_examine(&bytes).map_err(TestCaseError::fail)?;
        let mut seen = seen.borrow_mut();
        seen.questions += questions;
        for rule in fired {
            *seen.rules.entry(rule).or_default() += 1;
        }
        Ok(())
    });
    match outcome {
        Ok(()) => Ok(seen.into_inner()),
        Err(TestError::Fail(reason, _)) => Err(reason.to_string()),
        Err(other) => Err(other.to_string()),
    }
}

#[test]
fn both_give_the_same_answers() {
    let worlds = number("ORACLE_NAIVE_WORLDS", WORLDS);
    let parts: Vec<Result<Seen, String>> = thread::scope(|scope| {
        let parts: Vec<_> = (0..PARTS)
            .map(|part| scope.spawn(move || examine_many(runner(part, worlds))))
            .collect();
        parts.into_iter().map(|part| part.join().unwrap()).collect()
    });
    let mut seen = Seen::default();
    for part in parts {
        match part {
            Ok(part) => {
                seen.questions += part.questions;
                for (rule, count) in part.rules {
                    *seen.rules.entry(rule).or_default() += count;
                }
            }
            Err(reason) => panic!("they disagree about this cluster:\n{reason}"),
        }
    }
    println!("{} questions: {:#?}", seen.questions, seen.rules);
    // A rule that no cluster exercises is not examined, however long the run.
    let least = usize::try_from(worlds).unwrap() / RARE;
    let rare: Vec<_> = RULES
        .iter()
        .filter(|rule| seen.rules.get(*rule).copied().unwrap_or(0) < least)
        .collect();
    assert!(
        rare.is_empty(),
        "seen in too few clusters: {rare:?}, of {:#?}",
        seen.rules
    );
    let unlisted: Vec<_> = seen
        .rules
        .keys()
        .filter(|rule| !RULES.contains(rule))
        .collect();
    assert!(unlisted.is_empty(), "not listed: {unlisted:?}");
}
