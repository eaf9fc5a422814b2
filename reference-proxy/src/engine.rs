//! The loop that turns events into transactions, on a thread of its own.
//!
//! There is no delay and no minimum period between syncs: the loop takes what is queued, syncs, and takes again. While a transaction is on
//! its way more events queue up, so a flood of them is coalesced by itself.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use ipnet::IpNet;

use crate::{
    backend::Backend,
    compile::Surroundings,
    conntrack::{Conntrack, Promises, UdpFrontend},
    health::HealthState,
    metrics::{IpFamily, Metrics, SyncKind, TrafficPolicy},
    model::{Node, Service, ServiceKey, Slice, SliceKey},
    nft::Monitor,
    ruleset::{Frontend, render},
    seams::Seams,
    state::{State, Work},
};

/// Which watch an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feed {
    /// Services.
    Services,
    /// EndpointSlices.
    Slices,
    /// The Node.
    Node,
}

/// Something that may need other rules.
#[derive(Clone, Debug)]
pub enum Event {
    /// A Service; `None` when it is gone or not served.
    Service(ServiceKey, Option<Service>),
    /// An EndpointSlice; `None` when it is gone. With the time at which the change was caused, if it says so.
    Slice(SliceKey, Option<Slice>, Option<jiff::Timestamp>),
    /// The Node; `None` when it is gone.
    Node(Option<Node>),
    /// A list is complete; what is not in it does not exist.
    Listed(Feed, HashSet<Arc<str>>),
    /// The addresses of the node's interfaces.
    Addresses(BTreeSet<IpAddr>),
    /// Somebody else touched our table.
    Foreign,
}

/// Which addresses of the node serve node ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// The node's internal addresses, as the API or a flag says.
    Primary,
    /// All addresses of the node's interfaces in these ranges, but for loopback.
    Ranges(Vec<IpNet>),
}

/// What does not change while the process runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Internal addresses of the node until the Node object has some.
    pub node_ips: Vec<IpAddr>,
    /// The cluster's pod ranges.
    pub cluster_cidrs: Vec<IpNet>,
    /// Addresses for node ports.
    pub node_ports: NodePortAddresses,
}

/// A read-back after each transaction costs as much as the table is large; beyond this many elements even a debug build does without.
const READ_BACK_LIMIT: usize = 2000;

/// How many events one sync takes at most, so that a flood cannot put it off for ever.
const EVENTS_PER_SYNC: usize = 20_000;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

const BOTH: [IpFamily; 2] = [IpFamily::IPv4, IpFamily::IPv6];

/// The loop's state.
#[derive(Debug)]
pub struct Engine<S: Seams + ?Sized> {
    settings: Settings,
    seams: &'static S,
    state: State,
    events: Receiver<Event>,
    /// For the threads that watch the kernel.
    sender: Sender<Event>,
    health: HealthState,
    metrics: Metrics,
    node: Option<Node>,
    addresses: Option<BTreeSet<IpAddr>>,
    listed: HashSet<Feed>,
    triggers: Vec<jiff::Timestamp>,
    /// Stale connection tracking entries to remove once the kernel has the rules, kept over failures (kubernetes/kubernetes#112604).
    stale: Stale,
    /// What removals of stale entries have to know of changes that come into force beside them.
    promises: Promises,
    /// Number of the last change.
    change: u64,
    /// Frontends whose affinities to look at once the kernel has the rules.
    affinity: HashSet<Frontend>,
}

impl<S: Seams + ?Sized> Engine<S> {
    /// An engine that gets its events from `events`; `sender` is the other end.
    pub fn new(
        settings: Settings,
        seams: &'static S,
        (sender, events): (Sender<Event>, Receiver<Event>),
        health: HealthState,
        metrics: Metrics,
    ) -> Self {
        let mut engine = Self {
            state: State::default(),
            settings,
            seams,
            events,
            sender,
            health,
            metrics,
            node: None,
            addresses: None,
            listed: HashSet::new(),
            triggers: Vec::new(),
            stale: HashMap::new(),
            promises: Promises::default(),
            change: 0,
            affinity: HashSet::new(),
        };
        engine.look_around();
        engine
    }

    /// Waits until everything was listed once, and returns the ruleset as text.
    pub fn print(mut self) -> String {
        while !self.complete() {
            match self.events.recv() {
                Ok(event) => {
                    self.take(event);
                }
                Err(mpsc::RecvError) => break,
            }
        }
        self.state.sync_with(self.seams, true);
        render(&self.state.elements())
    }

    /// Runs until nobody can send events any more, which is never as long as it watches the kernel itself.
    pub fn run(mut self, mut backend: Backend) {
        let conntrack = spawn_conntrack(self.metrics.clone(), self.seams, self.promises.clone());
        if let Err(error) = self.seams.start(&mut backend) {
            tracing::warn!("failed to start: {error}");
        }
        let mut first = true;
        let mut adopt = false;
        let mut retry: Option<Duration> = None;
        loop {
            let event = match retry {
                None => self
                    .events
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
                Some(delay) => self.events.recv_timeout(delay),
            };
            let at = Instant::now();
            match event {
                Ok(event) => adopt |= self.take(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            for _ in 0..EVENTS_PER_SYNC {
                match self.events.try_recv() {
                    Ok(event) => adopt |= self.take(event),
                    Err(_) => break,
                }
            }
            if !self.complete() {
                continue;
            }
            let full = first || adopt || retry.is_some();
            if !full && self.state.is_settled() {
                // Nothing but no-ops.
                self.health.set_synced(at);
                continue;
            }
            match self.sync(&mut backend, &conntrack, first, full) {
                Ok(()) => {
                    self.health.set_synced(at);
                    if first {
                        self.watch_kernel(&mut backend);
                    }
                    (first, adopt, retry) = (false, false, None);
                }
                Err(error) => {
                    self.health.set_failed(at);
                    self.metrics.sync_failed(&BOTH);
                    tracing::error!("failed to program the kernel: {error}");
                    retry = Some(retry.map_or(FIRST_RETRY, |delay| (delay * 2).min(LAST_RETRY)));
                }
            }
        }
    }

    fn complete(&self) -> bool {
        let addresses = match self.settings.node_ports {
            NodePortAddresses::Primary => true,
            NodePortAddresses::Ranges(_) => self.addresses.is_some(),
        };
        self.listed.len() == 3 && addresses
    }

    /// Stores an event. Returns whether the kernel's table has to be looked at.
    fn take(&mut self, event: Event) -> bool {
        let changed = match event {
            Event::Service(key, service) => {
                let changed = self.state.set_service(&key, service);
                if changed {
                    self.metrics.service_changes(1);
                }
                changed
            }
            Event::Slice(key, slice, triggered) => {
                let changed = self.state.set_slice(&key, slice);
                if changed {
                    self.metrics.endpoint_changes(1);
                    // What was listed at the start says nothing about how fast this process is.
                    self.triggers.extend(triggered.filter(|_| self.complete()));
                }
                changed
            }
            Event::Node(node) => {
                match node {
                    Some(node) => {
                        self.health.set_node_eligible(node.eligible);
                        self.node = Some(node);
                    }
                    // Its addresses are as good as before.
                    None => self.health.set_node_eligible(false),
                }
                self.look_around()
            }
            Event::Addresses(addresses) => {
                self.addresses = Some(addresses);
                self.look_around()
            }
            Event::Listed(feed, keys) => self.listed(feed, &keys),
            Event::Foreign => {
                tracing::warn!("somebody changed the table; checking it");
                return true;
            }
        };
        if changed {
            self.health.set_queued(Instant::now());
            self.metrics.sync_queued(&BOTH);
        }
        false
    }

    /// Removes what a list does not have (cilium/cilium#48050).
    fn listed(&mut self, feed: Feed, keys: &HashSet<Arc<str>>) -> bool {
        let first = self.listed.insert(feed);
        match feed {
            Feed::Services => {
                let known = self.state.service_keys();
                let gone: Vec<_> = known.filter(|key| !keys.contains(*key)).cloned().collect();
                for key in gone {
                    self.state.set_service(&key, None);
                }
            }
            Feed::Slices => {
                let known = self.state.slice_keys();
                let gone: Vec<_> = known.filter(|key| !keys.contains(*key)).cloned().collect();
                for key in gone {
                    self.state.set_slice(&key, None);
                }
            }
            Feed::Node => {
                if keys.is_empty() {
                    tracing::warn!(
                        "there is no Node object of this name; traffic policies and zones need one"
                    );
                }
            }
        }
        first || !self.state.is_settled()
    }

    /// Works out what is known about the node. Returns whether it differs.
    fn look_around(&mut self) -> bool {
        let mut node = self.node.clone().unwrap_or_default();
        if node.ips.is_empty() {
            node.ips.clone_from(&self.settings.node_ips);
        }
        let node_port_ips = match &self.settings.node_ports {
            NodePortAddresses::Primary => node.ips.clone(),
            NodePortAddresses::Ranges(ranges) => self
                .addresses
                .iter()
                .flatten()
                .filter(|ip| !ip.is_loopback() && ranges.iter().any(|range| range.contains(*ip)))
                .copied()
                .collect(),
        };
        let mut around = Surroundings {
            node,
            node_port_ips,
            cluster_cidrs: self.settings.cluster_cidrs.clone(),
        };
        self.seams.surroundings(&mut around);
        self.state.set_surroundings(around)
    }

    fn sync(
        &mut self,
        backend: &mut Backend,
        conntrack: &Sender<Removal>,
        first: bool,
        full: bool,
    ) -> std::io::Result<()> {
        let start = Instant::now();
        let mut work = self.state.sync_with(self.seams, first);
        self.change += 1;
        let coming = work.udp.iter().map(|(frontend, to)| (udp(frontend), to));
        self.promises.make(self.change, coming);
        let outcome = if full {
            self.adopt(backend)
        } else {
            let elements = || self.state.elements();
            match self.seams.apply(backend, &mut work.changes, &elements) {
                Ok(()) => Ok(()),
                Err(error) => {
                    // Probably the table is not what we think it is; say so once and look.
                    tracing::warn!("failed to change the table: {error}; checking it");
                    self.adopt(backend)
                }
            }
        };
        self.stale.extend(std::mem::take(&mut work.udp));
        self.affinity.extend(std::mem::take(&mut work.affinity));
        self.report(&work, first);
        outcome?;
        if !full && self.seams.reads_back() && self.state.element_count() < READ_BACK_LIMIT {
            match backend.difference(&self.state.elements())? {
                None => {}
                Some(difference) => {
                    tracing::error!("the kernel's table is not what it should be: {difference}");
                    self.adopt(backend)?;
                }
            }
        }
        let kind = if full {
            SyncKind::Full
        } else {
            SyncKind::Partial
        };
        self.metrics.observe_sync(&BOTH, kind, start.elapsed());
        // Before flows are looked at: an affinity would lead their next packet back to where they were.
        self.forget_affinities(backend, first || full)?;
        let mut stale = std::mem::take(&mut self.stale);
        if first {
            stale.extend(self.state.udp());
        }
        if !stale.is_empty() {
            // It ends with the process.
            let _ = conntrack.send(Removal {
                change: self.change,
                stale,
            });
        }
        tracing::debug!(
            services = work.compiled,
            full,
            "synced in {:.3} ms",
            start.elapsed().as_secs_f64() * 1e3
        );
        Ok(())
    }

    /// Forgets affinities that do not hold any more, of `all` frontends or of those that changed. What an earlier process left may be of any time.
    ///
    /// A packet that found its way before an affinity went records it again after that, so it is looked again once such packets are gone, until nothing
    /// is found.
    fn forget_affinities(&mut self, backend: &mut Backend, all: bool) -> std::io::Result<()> {
        if !all && self.affinity.is_empty() {
            return Ok(());
        }
        let mut affinities = self.state.affinities();
        let changed = &self.affinity;
        let mut wrong = |client, frontend: &Frontend, endpoint| {
            (all || changed.contains(frontend)) && !affinities.hold(client, frontend, endpoint)
        };
        let mut again = self.seams.forget_affinities(backend, &mut wrong)? > 0;
        again |= self.state.is_sticky();
        for _ in 1..MOST_LOOKS {
            if !again {
                break;
            }
            if !old_packets_gone() {
                thread::sleep(SECOND_LOOK);
            }
            again = self.seams.forget_affinities(backend, &mut wrong)? > 0;
        }
        self.affinity.clear();
        Ok(())
    }

    fn adopt(&self, backend: &mut Backend) -> std::io::Result<()> {
        match self.seams.adopt(backend, &|| self.state.elements())? {
            None => tracing::info!("the table is as it should be"),
            Some(difference) => tracing::info!("made the table anew or repaired it: {difference}"),
        }
        Ok(())
    }

    fn report(&mut self, work: &Work, first: bool) {
        if work.health || first {
            let mut services: Vec<_> = self.state.health().collect();
            self.seams.health(&mut services);
            self.health.set_service_health(services);
        }
        let now = jiff::Timestamp::now();
        for triggered in self.triggers.drain(..) {
            let latency = now.duration_since(triggered).unsigned_abs();
            self.metrics.observe_programming(IpFamily::IPv4, latency);
        }
        for (policy, counts) in [TrafficPolicy::Internal, TrafficPolicy::External]
            .into_iter()
            .zip(self.state.no_local_endpoints())
        {
            for (family, count) in BOTH.into_iter().zip(counts) {
                self.metrics.set_no_local_endpoints(policy, family, count);
            }
        }
    }

    /// Starts the thread that notices changes by others. It starts after the first sync, because the kernel would write a notification for
    /// each of its elements.
    fn watch_kernel(&self, backend: &mut Backend) {
        let monitor = match Monitor::open(backend.port()) {
            Ok(monitor) => monitor,
            Err(error) => {
                tracing::warn!("failed to watch the ruleset: {error}; a flush will not be noticed");
                return;
            }
        };
        let sender = self.sender.clone();
        thread::spawn(
            move || {
                while monitor.wait().is_ok() && sender.send(Event::Foreign).is_ok() {}
            },
        );
        // What happened between the sync and the subscription.
        match backend.layout_difference() {
            Ok(None) => {}
            _ => {
                let _ = self.sender.send(Event::Foreign);
            }
        }
    }
}

type Stale = HashMap<Frontend, HashSet<SocketAddr>>;

/// What a change made stale, once it is in force.
struct Removal {
    change: u64,
    stale: Stale,
}

fn udp(frontend: &Frontend) -> UdpFrontend {
    UdpFrontend {
        addr: frontend.ip,
        port: frontend.port,
    }
}

/// How long after the first look the second one comes where [`old_packets_gone`] cannot tell, or where the kernel could not list everything:
/// packets that met the old rules may have made an entry while the new ones came into force.
const SECOND_LOOK: Duration = Duration::from_millis(50);

/// Looks for affinities that do not hold after one change: two do, unless packets come faster than they are handled.
const MOST_LOOKS: u32 = 5;

/// Waits until every packet that met the old rules has gone its way and made its entry. The kernel handles a packet within one RCU read-side
/// section, and `MEMBARRIER_CMD_GLOBAL` waits for a grace period (membarrier(2)). Returns whether it could.
fn old_packets_gone() -> bool {
    const GLOBAL: libc::c_int = 1;
    // SAFETY: membarrier(2) takes three integers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) == 0 }
}

/// Removes stale entries on a thread of its own, so that a large table does not hold up the rules (kubernetes/kubernetes#135323).
fn spawn_conntrack<S: Seams + ?Sized>(
    metrics: Metrics,
    seams: &'static S,
    promises: Promises,
) -> Sender<Removal> {
    let (sender, receiver) = mpsc::channel::<Removal>();
    thread::spawn(move || {
        let mut conntrack: Option<Conntrack> = None;
        let mut again: Stale = HashMap::new();
        loop {
            let received = if again.is_empty() {
                receiver
                    .recv()
                    .map_err(|mpsc::RecvError| RecvTimeoutError::Disconnected)
            } else {
                receiver.recv_timeout(SECOND_LOOK)
            };
            let mut next = match received {
                Ok(removal) => Some(removal),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut stale = HashMap::new();
            while let Some(removal) = next {
                stale.extend(removal.stale);
                promises.keep(removal.change);
                next = receiver.try_recv().ok();
            }
            // The kernel goes through the whole machine's table for each look, so one look at the right time is better than two.
            let at_once = !stale.is_empty() && !old_packets_gone();
            let fresh = if at_once {
                stale.clone()
            } else {
                HashMap::new()
            };
            for (frontend, serving) in std::mem::take(&mut again) {
                // Newer knowledge counts.
                stale.entry(frontend).or_insert(serving);
            }
            let incomplete = remove_stale(&mut conntrack, &stale, &promises, &metrics, seams);
            again = if incomplete { stale } else { fresh };
        }
    });
    sender
}

/// Returns whether the same has to be done again.
fn remove_stale<S: Seams + ?Sized>(
    conntrack: &mut Option<Conntrack>,
    stale: &Stale,
    promises: &Promises,
    metrics: &Metrics,
    seams: &S,
) -> bool {
    let start = Instant::now();
    if conntrack.is_none() {
        match Conntrack::open(promises.clone()) {
            Ok(opened) => *conntrack = Some(opened),
            Err(error) => {
                tracing::warn!("failed to open connection tracking: {error}");
                return false;
            }
        }
    }
    let Some(table) = conntrack.as_mut() else {
        return false;
    };
    let valid = stale
        .iter()
        .map(|(frontend, serving)| (udp(frontend), serving.clone()))
        .collect();
    match seams.remove_stale(table, &valid) {
        Ok(removed) => {
            metrics.observe_conntrack(start.elapsed(), removed.ipv4, removed.ipv6);
            removed.incomplete
        }
        Err(error) => {
            tracing::warn!("failed to remove stale connection tracking entries: {error}");
            *conntrack = None;
            false
        }
    }
}
