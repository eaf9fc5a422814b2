//! Worlds that are larger than a document asks for: one node more, with a candidate and a client pod on it.
//!
//! The oracle computes what has to happen in any topology, so a case stays a case. A document whose explicit outcomes do not hold in the
//! larger world is found out by its rehearsal, and stays as it is; so does one whose nodes have zones or networks of their own, where a node without
//! them would change what the document is about.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::scenario::{Case, read_documents, rehearse};

/// The node that is added.
const NODE: &str = "one-more";

/// What the log calls it.
pub const NAME: &str = "one more node with a pod";

/// The case in a larger world, where that is sound.
pub fn larger(case: &Case) -> Option<Case> {
    let topology = &case.scenario.topology;
    let plain = topology
        .nodes
        .iter()
        .all(|node| node.zone.is_none() && node.networks.is_empty());
    if !plain || topology.nodes.iter().any(|node| node.name == NODE) {
        return None;
    }
    let mut document: Map<String, Value> = serde_saphyr::from_str(&case.text).ok()?;
    let known: Vec<Value> = topology
        .nodes
        .iter()
        .map(|node| json!({"name": node.name}))
        .collect();
    let topology = document.entry("topology").or_insert_with(|| json!({}));
    let topology = topology.as_object_mut()?;
    let nodes = topology.entry("nodes").or_insert_with(|| json!(known));
    nodes.as_array_mut()?.push(json!({"name": NODE}));
    let pods = topology.entry("pods").or_insert_with(|| json!([]));
    let pods = pods.as_array_mut()?;
    pods.push(json!({"name": format!("client-{NODE}"), "node": NODE}));
    // JSON is YAML; a line per key is what the readers of documents expect.
    let text: String = document
        .iter()
        .map(|(key, value)| format!("{key}: {value}\n"))
        .collect();
    let document = read_documents(&case.file, &text).ok()?.pop()?;
    let key = document
        .cases
        .iter()
        .find(|key| key.axes == case.key.axes)?;
    let larger = document.resolve(key).ok()?;
    rehearse(&larger).ok()?;
    (larger.key == case.key).then_some(larger)
}

/// Whether an attempt goes into the larger world, one of four; the same again for the same seed.
pub fn is_larger(seed: u64) -> bool {
    // Other bits than those that choose endpoints and ports.
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 62 == 0
}

/// The case of an attempt, and in what its world differs from the document's.
pub fn of_attempt(
    case: &Arc<Case>,
    known: &mut Option<Option<Arc<Case>>>,
    seed: u64,
) -> (Arc<Case>, Option<String>) {
    if is_larger(seed) {
        let larger = known.get_or_insert_with(|| larger(case).map(Arc::new));
        if let Some(larger) = larger {
            return (larger.clone(), Some(NAME.to_owned()));
        }
    }
    (case.clone(), None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        candidate::Candidate,
        plan::{self, Cases, Catalogue, Filter, Missing, Profile, Requirements},
    };

    #[test]
    fn most_of_the_catalogue_has_a_larger_world_and_stays_the_same_case() {
        let requirements = Requirements::embedded().unwrap();
        let catalogue = Catalogue::embedded(&requirements).unwrap();
        let candidate = Candidate::load("null").unwrap();
        let planned: Vec<_> = plan::select(
            &catalogue,
            &requirements,
            &candidate,
            &Missing::default(),
            Profile::Core,
            &Filter::All,
        )
        .into_iter()
        // Some of every area; all of them take a minute.
        .step_by(7)
        .collect();
        let cases = Cases::prepare(&planned, 1).unwrap();
        let (mut all, mut larger_ones) = (0, 0);
        for at in 0..cases.len() {
            let Some(case) = cases.case(at) else {
                continue;
            };
            all += 1;
            let Some(larger) = larger(case) else {
                continue;
            };
            larger_ones += 1;
            assert_eq!(larger.key, case.key);
            let nodes = |case: &Case| case.scenario.topology.nodes.len();
            assert_eq!(nodes(&larger), nodes(case) + 1);
            // The evidence repeats the attempt, with the node.
            let again = read_documents("again.yaml", &larger.text)
                .unwrap()
                .remove(0);
            let again = again.resolve(&again.cases[0]).unwrap();
            assert_eq!(again.key, case.key);
            assert_eq!(nodes(&again), nodes(&larger));
            // Addresses of what was there before are what they were.
            for pod in &case.scenario.topology.pods {
                let address = |case: &Case| case.plan.pod(&pod.name).map(|pod| pod.ipv4);
                assert_eq!(address(&larger), address(case), "{}", case.key.id);
            }
        }
        assert!(larger_ones * 2 > all, "{larger_ones} of {all}");
    }

    #[test]
    fn about_one_in_four_attempts_is_in_the_larger_world() {
        let larger = (0..4_000_u64)
            .filter(|seed| is_larger(xxhash_rust::xxh3::xxh3_64(&seed.to_le_bytes())))
            .count();
        assert!((850..1150).contains(&larger), "{larger}");
    }
}
