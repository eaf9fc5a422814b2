//! What a proxy may know of the objects while it follows changes.
//!
//! Services and EndpointSlices come by watches of their own, and nothing orders one with the other: for a moment a proxy knows the Services of one
//! state and the slices of an earlier or later one. It is right to serve what these say together, although no state of the API ever said it.

use std::sync::Arc;

use oracle::Cluster;

/// States that a proxy may not be done with. With more than these since everything was last seen to be right, the oldest are no longer
/// thought of: a proxy that far behind is late by any measure.
const MOST: usize = 16;

/// The states of the objects since the candidate was last known to have followed all of them.
#[derive(Debug, Default)]
pub struct Mixtures {
    states: Vec<Arc<Cluster>>,
}

impl Mixtures {
    /// Adds what the objects say now. Returns whether it is news.
    pub fn add(&mut self, state: &Arc<Cluster>) -> bool {
        if self
            .states
            .last()
            .is_some_and(|last| Arc::ptr_eq(last, state))
        {
            return false;
        }
        if self.states.len() == MOST {
            self.states.remove(0);
        }
        self.states.push(state.clone());
        true
    }

    /// The candidate serves what the newest state says, and nothing else.
    pub fn settle(&mut self) {
        self.states.drain(..self.states.len().saturating_sub(1));
    }

    /// What a proxy may know because of the newest state.
    pub fn of_newest(&self) -> impl Iterator<Item = Cluster> {
        let (newest, earlier) = match self.states.split_last() {
            Some((newest, earlier)) => (Some(newest), earlier),
            None => (None, &[][..]),
        };
        newest.into_iter().flat_map(move |newest| {
            let mixed = earlier
                .iter()
                .flat_map(move |other| [mixture(newest, other), mixture(other, newest)]);
            mixed.flatten().chain([Cluster::clone(newest)])
        })
    }

    /// All that a proxy may know.
    pub fn all(&self) -> impl Iterator<Item = Cluster> {
        (1..=self.states.len()).flat_map(|end| {
            let states = self.states[..end].to_vec();
            Self { states }.of_newest().collect::<Vec<_>>()
        })
    }
}

/// The Services of one state with the slices of another one; `None` if that is one of the two.
fn mixture(services: &Cluster, slices: &Cluster) -> Option<Cluster> {
    let differ = services.services != slices.services && services.slices != slices.slices;
    differ.then(|| Cluster {
        slices: slices.slices.clone(),
        ..services.clone()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A state with a Service of this policy, and with this endpoint.
    fn state(policy: &str, endpoint: &str) -> Arc<Cluster> {
        let objects = [
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
                "spec": {"clusterIP": "10.96.0.1", "internalTrafficPolicy": policy, "ports": [{"port": 80}]},
            }),
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": [{"addresses": [endpoint]}],
            }),
        ];
        Arc::new(Cluster::from_objects(&objects, Vec::new()).expect("objects"))
    }

    /// Policy and endpoint of each.
    fn shown(clusters: impl Iterator<Item = Cluster>) -> Vec<String> {
        let mut shown: Vec<String> = clusters
            .map(|cluster| {
                let service = serde_json::to_value(&cluster.services[0]).expect("a value");
                let slice = &cluster.slices[0];
                let address = slice.endpoints()[0].addresses[0].clone();
                format!(
                    "{} {address}",
                    service["spec"]["internalTrafficPolicy"]
                        .as_str()
                        .unwrap_or("?")
                )
            })
            .collect();
        shown.sort();
        shown
    }

    #[test]
    fn services_and_slices_of_different_states_mix_until_all_is_settled() {
        let mut mixtures = Mixtures::default();
        let first = state("Local", "10.0.0.1");
        assert!(mixtures.add(&first));
        assert!(!mixtures.add(&first), "it is known");
        assert_eq!(shown(mixtures.of_newest()), ["Local 10.0.0.1"]);
        assert!(mixtures.add(&state("Local", "10.0.0.2")));
        // Only the slices differ: whatever a proxy knows is one of the two.
        assert_eq!(shown(mixtures.of_newest()), ["Local 10.0.0.2"]);
        assert!(mixtures.add(&state("Cluster", "10.0.0.3")));
        let newest = [
            "Cluster 10.0.0.1",
            "Cluster 10.0.0.2",
            "Cluster 10.0.0.3",
            "Local 10.0.0.3",
            "Local 10.0.0.3",
        ];
        assert_eq!(shown(mixtures.of_newest()), newest);
        assert_eq!(mixtures.all().count(), 1 + 1 + newest.len());
        mixtures.settle();
        assert_eq!(shown(mixtures.all()), ["Cluster 10.0.0.3"]);
    }

    #[test]
    fn the_oldest_states_are_forgotten() {
        let mut mixtures = Mixtures::default();
        mixtures.settle();
        for number in 0..2 * MOST {
            mixtures.add(&state("Local", &format!("10.0.0.{}", number + 1)));
        }
        assert_eq!(mixtures.states.len(), MOST);
    }
}
