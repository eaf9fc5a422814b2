//! The store: all objects, what they were compiled to, and what changed since the kernel was last told.
//!
//! A change costs what the changed Service costs. Services meet in two places only: frontends, where one Service owns an address and port
//! and the others wait for it, and shared elements, which are counted.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;

use crate::{
    compile::{Compiled, FrontendKind, Surroundings, compile, compile_node, frontends},
    health::{ServiceHealth, ServiceKey as HealthKey},
    model::{Service, ServiceKey, Slice, SliceKey},
    ruleset::{Changes, Data, Element, Frontend, Key, Protocol, SetId, SetKind, View},
    seams::{Plain, Seams},
};

/// A Service's claim to a frontend; the smallest one wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    kind: FrontendKind,
    service: ServiceKey,
}

#[derive(Debug, Default)]
struct Entry {
    service: Option<Service>,
    /// Sorted by key. Nearly always one or two, for which a tree would cost a kilobyte.
    slices: Vec<(SliceKey, Slice)>,
    claims: Vec<(Frontend, FrontendKind, usize)>,
    compiled: Compiled,
    affinity: Option<u32>,
}

/// Everything that a sync has to do.
#[derive(Debug, Default)]
pub struct Work {
    /// For the ruleset.
    pub changes: Changes,
    /// For connection tracking, after the ruleset: UDP frontends and the endpoints that flows may still have.
    pub udp: HashMap<Frontend, HashSet<SocketAddr>>,
    /// Frontends whose affinities may lead to endpoints that are no longer used.
    pub affinity: HashSet<Frontend>,
    /// How many Services were compiled.
    pub compiled: usize,
    /// Whether a health check node port's answer may have changed.
    pub health: bool,
}

/// All objects and what became of them.
#[derive(Debug, Default)]
pub struct State {
    around: Surroundings,
    node_elements: Vec<Element>,
    entries: HashMap<ServiceKey, Entry>,
    slice_owner: HashMap<SliceKey, ServiceKey>,
    claims: HashMap<Frontend, Vec<Claim>>,
    shared: HashMap<Element, u32>,
    dirty: HashSet<ServiceKey>,
    /// Services whose set of frontends has to be computed again.
    reclaim: HashSet<ServiceKey>,
    /// The surroundings changed.
    moved: bool,
    no_local: [[usize; 2]; 2],
    health_services: HashSet<ServiceKey>,
}

impl State {
    /// An empty store on a node.
    pub fn new(around: Surroundings) -> Self {
        let node_elements = compile_node(&around);
        Self {
            around,
            node_elements,
            ..Self::default()
        }
    }

    /// Whether nothing changed since the last [`State::sync`].
    pub fn is_settled(&self) -> bool {
        self.dirty.is_empty() && self.reclaim.is_empty() && !self.moved
    }

    /// Adds or replaces a Service; `None` removes it, or keeps a place for one that is not served. Returns whether it differs.
    pub fn set_service(&mut self, key: &ServiceKey, service: Option<Service>) -> bool {
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.service == service {
            self.drop_if_empty(key);
            return false;
        }
        entry.service = service;
        self.dirty.insert(key.clone());
        self.reclaim.insert(key.clone());
        true
    }

    /// Adds or replaces a slice; `None` removes it. Returns whether it differs.
    pub fn set_slice(&mut self, key: &SliceKey, slice: Option<Slice>) -> bool {
        let before = self.slice_owner.get(key).cloned();
        if let Some(owner) = before
            && slice.as_ref().is_none_or(|slice| slice.service != owner)
        {
            self.slice_owner.remove(key);
            if let Some(entry) = self.entries.get_mut(&owner) {
                entry.slices.retain(|(known, _)| known != key);
            }
            self.dirty.insert(owner);
            if slice.is_none() {
                return true;
            }
        }
        let Some(slice) = slice else {
            return false;
        };
        let owner = slice.service.clone();
        let entry = self.entries.entry(owner.clone()).or_default();
        match entry.slices.binary_search_by(|(known, _)| known.cmp(key)) {
            Ok(at) if entry.slices[at].1 == slice => return false,
            Ok(at) => entry.slices[at].1 = slice,
            Err(at) => {
                entry.slices.reserve_exact(1);
                entry.slices.insert(at, (key.clone(), slice));
            }
        }
        self.slice_owner.insert(key.clone(), owner.clone());
        self.dirty.insert(owner);
        true
    }

    /// The keys of all Services, for a relist.
    pub fn service_keys(&self) -> impl Iterator<Item = &ServiceKey> {
        self.entries
            .iter()
            .filter(|(_, entry)| entry.service.is_some())
            .map(|(key, _)| key)
    }

    /// The keys of all slices, for a relist.
    pub fn slice_keys(&self) -> impl Iterator<Item = &SliceKey> {
        self.slice_owner.keys()
    }

    /// Changes what is known about the node. Returns whether anything differs.
    pub fn set_surroundings(&mut self, around: Surroundings) -> bool {
        if around == self.around {
            return false;
        }
        let node_ports = around.node_port_ips != self.around.node_port_ips;
        let everything = around.node.zone != self.around.node.zone
            || around.node.ips != self.around.node.ips
            || around.node.pod_cidrs != self.around.node.pod_cidrs;
        self.around = around;
        self.moved = true;
        for (key, entry) in &self.entries {
            let Some(service) = &entry.service else {
                continue;
            };
            let has_node_port = service.ports.iter().any(|port| port.node_port.is_some());
            if node_ports && has_node_port {
                self.reclaim.insert(key.clone());
                self.dirty.insert(key.clone());
            } else if everything {
                self.dirty.insert(key.clone());
            }
        }
        true
    }

    /// Forgets a Service that left nothing behind: no object, no slices, and nothing that a sync still has to withdraw.
    fn drop_if_empty(&mut self, key: &ServiceKey) {
        if self.dirty.contains(key) {
            return;
        }
        let empty = self.entries.get(key).is_some_and(|entry| {
            entry.service.is_none()
                && entry.slices.is_empty()
                && entry.claims.is_empty()
                && entry.compiled == Compiled::default()
        });
        if empty {
            self.entries.remove(key);
        }
    }

    fn owner(&self, frontend: &Frontend) -> Option<&ServiceKey> {
        self.claims
            .get(frontend)?
            .first()
            .map(|claim| &claim.service)
    }

    /// Brings the claims of the changed Services up to date and marks those Services that win or lose a frontend.
    fn settle_claims<S: Seams + ?Sized>(&mut self, seams: &S) {
        let reclaim = std::mem::take(&mut self.reclaim);
        let mut losers_and_winners = Vec::new();
        for key in reclaim {
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            let new = entry
                .service
                .as_ref()
                .map(|service| {
                    let mut all = frontends(service, &self.around);
                    seams.frontends(&key, service, &mut all);
                    all
                })
                .unwrap_or_default();
            let old = std::mem::replace(&mut entry.claims, new.clone());
            for (frontend, kind, _) in &old {
                if !new.iter().any(|(f, k, _)| f == frontend && k == kind) {
                    let claims = self.claims.entry(*frontend).or_default();
                    claims.retain(|claim| claim.service != key);
                    losers_and_winners.extend(claims.first().map(|claim| claim.service.clone()));
                    if claims.is_empty() {
                        self.claims.remove(frontend);
                    }
                }
            }
            for (frontend, kind, _) in &new {
                let claim = Claim {
                    kind: *kind,
                    service: key.clone(),
                };
                let claims = self.claims.entry(*frontend).or_default();
                if let Err(at) = claims.binary_search(&claim) {
                    // It may displace the first one.
                    losers_and_winners.extend(claims.first().map(|claim| claim.service.clone()));
                    if claims.is_empty() {
                        *claims = Vec::with_capacity(1);
                    }
                    claims.insert(at, claim);
                }
            }
        }
        self.dirty.extend(losers_and_winners);
    }

    /// Compiles what changed and returns the difference to the last time.
    pub fn sync(&mut self) -> Work {
        self.sync_with(&Plain, false)
    }

    /// Compiles everything that is there for the first time. The difference is left empty: take [`State::elements`].
    pub fn sync_first(&mut self) -> Work {
        self.sync_with(&Plain, true)
    }

    /// Either of the two, through `seams`.
    pub fn sync_with<S: Seams + ?Sized>(&mut self, seams: &S, first: bool) -> Work {
        let mut work = Work::default();
        let mut ledger = Ledger::new(first);
        self.moved = false;
        self.settle_claims(seams);
        let mut node_elements = compile_node(&self.around);
        seams.node_elements(&self.around, &mut node_elements);
        node_elements.sort_unstable();
        ledger.change(&self.node_elements, &node_elements);
        self.node_elements = node_elements;

        for key in std::mem::take(&mut self.dirty) {
            let Some(entry) = self.entries.get(&key) else {
                continue;
            };
            work.compiled += 1;
            let compiled = match &entry.service {
                None => Compiled::default(),
                Some(service) => compile(
                    service,
                    &entry.slices,
                    &self.around,
                    &entry.claims,
                    |frontend| self.owner(frontend) == Some(&key),
                    seams,
                ),
            };
            let affinity = entry.service.as_ref().and_then(|service| service.affinity);
            let asks = entry
                .service
                .as_ref()
                .is_some_and(|service| service.health_check_node_port.is_some());
            let was_asking = if asks {
                !self.health_services.insert(key.clone())
            } else {
                self.health_services.remove(&key)
            };
            work.health |= asks || was_asking;

            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            let old = std::mem::replace(&mut entry.compiled, compiled);
            let old_affinity = std::mem::replace(&mut entry.affinity, affinity);
            let new = &entry.compiled;
            ledger.change(&old.own, &new.own);
            ledger.change_shared(&mut self.shared, &old.shared, &new.shared);
            if let Some(seconds) = old_affinity {
                affinity_changes(&old, new, affinity != Some(seconds), &mut work.affinity);
            }
            udp_changes(&old, new, &mut work.udp);
            for (counts, (was, is)) in self.no_local.iter_mut().flatten().zip(
                old.no_local
                    .iter()
                    .flatten()
                    .zip(new.no_local.iter().flatten()),
            ) {
                *counts = *counts + usize::from(*is) - usize::from(*was);
            }
            self.drop_if_empty(&key);
        }
        work.changes = ledger.changes();
        work
    }

    /// All elements that the kernel should have.
    pub fn elements(&self) -> Vec<Element> {
        let own: usize = self.entries.values().map(|e| e.compiled.own.len()).sum();
        let mut out = Vec::with_capacity(own + self.shared.len() + self.node_elements.len());
        out.extend_from_slice(&self.node_elements);
        for entry in self.entries.values() {
            out.extend_from_slice(&entry.compiled.own);
        }
        out.extend(self.shared.keys().copied());
        out
    }

    /// How many elements the kernel should have.
    pub fn element_count(&self) -> usize {
        let own: usize = self.entries.values().map(|e| e.compiled.own.len()).sum();
        own + self.shared.len() + self.node_elements.len()
    }

    /// What every UDP frontend may lead to, for the first time.
    pub fn udp(&self) -> HashMap<Frontend, HashSet<SocketAddr>> {
        self.entries
            .values()
            .flat_map(|entry| &entry.compiled.udp)
            .map(|(frontend, serving)| (*frontend, serving.iter().copied().collect()))
            .collect()
    }

    /// How many Services have a `Local` policy and no endpoint on this node: internal, external; IPv4, IPv6.
    pub fn no_local_endpoints(&self) -> [[usize; 2]; 2] {
        self.no_local
    }

    /// What health check node ports answer.
    pub fn health(&self) -> impl Iterator<Item = (HealthKey, ServiceHealth)> + '_ {
        self.health_services.iter().filter_map(|key| {
            let entry = self.entries.get(key)?;
            let port = entry.service.as_ref()?.health_check_node_port?;
            let (namespace, name) = key.split_once('/')?;
            Some((
                (namespace.to_owned(), name.to_owned()),
                ServiceHealth {
                    port,
                    local_endpoints: entry.compiled.local_ready,
                },
            ))
        })
    }

    /// Whether any Service has session affinity.
    pub fn is_sticky(&self) -> bool {
        self.entries.values().any(|entry| entry.affinity.is_some())
    }

    /// Who may return where by affinity.
    pub fn affinities(&self) -> Affinities<'_> {
        let pods = self.node_elements.iter().filter_map(|e| match e.key {
            Key::Net(net) if e.set.kind == SetKind::Pods => Some(net),
            _ => None,
        });
        Affinities {
            state: self,
            pods: pods.collect(),
            returns: HashMap::new(),
        }
    }
}

/// Judges affinities, many of them one after the other.
#[derive(Debug)]
pub struct Affinities<'a> {
    state: &'a State,
    pods: Vec<IpNet>,
    returns: HashMap<&'a ServiceKey, HashSet<(Frontend, Data, View)>>,
}

impl Affinities<'_> {
    /// Whether a client that returns to `endpoint` is still served by it.
    pub fn hold(&mut self, client: IpAddr, frontend: &Frontend, endpoint: (IpAddr, u16)) -> bool {
        let Some(key) = self.state.owner(frontend) else {
            return false;
        };
        let Some(entry) = self.state.entries.get(key) else {
            return false;
        };
        if entry.affinity.is_none() {
            return false;
        }
        let inside = self.state.around.node.ips.contains(&client)
            || self.pods.iter().any(|net| net.contains(&client));
        let view = if inside { View::Common } else { View::External };
        let returns = self.returns.entry(key);
        returns
            .or_insert_with(|| returns_of(&entry.compiled))
            .contains(&(*frontend, Data::Endpoint(endpoint.0, endpoint.1), view))
    }
}

/// Frontends of a sticky Service of which a client may have lost its endpoint, or that changed their timeout.
fn affinity_changes(
    old: &Compiled,
    new: &Compiled,
    timeout_changed: bool,
    out: &mut HashSet<Frontend>,
) {
    let (old, new) = (returns_of(old), returns_of(new));
    out.extend(
        old.iter()
            .filter(|entry| timeout_changed || !new.contains(entry))
            .map(|(frontend, ..)| *frontend),
    );
}

/// Where a client may return to, by view. A frontend without a view of its own for clients from outside shows them the common one, so that
/// they lose endpoints when it gets one, although no element is removed.
fn returns_of(compiled: &Compiled) -> HashSet<(Frontend, Data, View)> {
    let own = &compiled.own;
    let external: HashSet<Frontend> = own
        .iter()
        .filter_map(|e| match (e.set.kind, e.key) {
            (SetKind::External, Key::Frontend(frontend)) => Some(frontend),
            _ => None,
        })
        .collect();
    let mut out = HashSet::new();
    for element in own {
        let Key::Slot(_, frontend) = element.key else {
            continue;
        };
        let view = match element.set.kind {
            SetKind::ExternalEndpoints => View::External,
            _ => View::Common,
        };
        out.insert((frontend, element.data, view));
        if view == View::Common && !external.contains(&frontend) {
            out.insert((frontend, element.data, View::External));
        }
    }
    out
}

/// UDP frontends that are new, gone, or have other endpoints.
fn udp_changes(old: &Compiled, new: &Compiled, out: &mut HashMap<Frontend, HashSet<SocketAddr>>) {
    if old.udp == new.udp {
        return;
    }
    let before: HashMap<&Frontend, &Vec<SocketAddr>> =
        old.udp.iter().map(|(f, e)| (f, e)).collect();
    for (frontend, serving) in &new.udp {
        debug_assert_eq!(frontend.protocol, Protocol::Udp);
        if before.get(frontend) != Some(&serving) {
            out.insert(*frontend, serving.iter().copied().collect());
        }
    }
    for (frontend, _) in &old.udp {
        if !new.udp.iter().any(|(f, _)| f == frontend) {
            // Another Service that took the frontend over may have been first.
            out.entry(*frontend).or_default();
        }
    }
}

/// Collects differences so that a key that one Service gives up and another one takes becomes one replacement
/// (kubernetes/kubernetes#128829).
struct Ledger {
    first: bool,
    entries: HashMap<(SetId, Key), (Option<Data>, Option<Data>)>,
}

impl Ledger {
    fn new(first: bool) -> Self {
        Self {
            first,
            entries: HashMap::new(),
        }
    }

    fn remove(&mut self, element: &Element) {
        if !self.first {
            let slot = self
                .entries
                .entry((element.set, element.key))
                .or_insert((Some(element.data), None));
            // If it was added a moment ago by another Service, that addition stands.
            if slot.0.is_none() {
                slot.0 = Some(element.data);
            }
        }
    }

    fn add(&mut self, element: &Element) {
        if !self.first {
            let slot = self
                .entries
                .entry((element.set, element.key))
                .or_insert((None, None));
            slot.1 = Some(element.data);
        }
    }

    /// Both lists are sorted.
    fn change(&mut self, old: &[Element], new: &[Element]) {
        for element in old {
            if new.binary_search(element).is_err() {
                self.remove(element);
            }
        }
        for element in new {
            if old.binary_search(element).is_err() {
                self.add(element);
            }
        }
    }

    fn change_shared(
        &mut self,
        counts: &mut HashMap<Element, u32>,
        old: &[Element],
        new: &[Element],
    ) {
        for element in new {
            if old.binary_search(element).is_err() {
                let count = counts.entry(*element).or_insert(0);
                *count += 1;
                if *count == 1 {
                    self.add(element);
                }
            }
        }
        for element in old {
            if new.binary_search(element).is_err()
                && let Some(count) = counts.get_mut(element)
            {
                *count -= 1;
                if *count == 0 {
                    counts.remove(element);
                    self.remove(element);
                }
            }
        }
    }

    fn changes(self) -> Changes {
        let mut changes = Changes::default();
        for ((set, key), change) in self.entries {
            let with = |data| Element { set, key, data };
            match change {
                (None, Some(new)) => changes.add.push(with(new)),
                (Some(old), None) => changes.remove.push(with(old)),
                (Some(old), Some(new)) if old != new => {
                    changes.replace.push((with(old), new));
                }
                _ => {}
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests;
