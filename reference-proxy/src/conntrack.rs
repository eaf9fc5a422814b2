//! Removal of UDP connection tracking entries that point at endpoints a Service no longer has.
//!
//! The kernel chooses an endpoint for the first packet of a flow and remembers the choice. TCP ends its flows; a UDP sender that keeps its
//! source port does not, and every packet it sends refreshes the entry. So whenever the rules change, the entries that contradict the new
//! rules have to go:
//!
//! ```text
//!              original direction                      reply direction
//!   client:port ----------> frontend:port   |   endpoint:port ----------> client:port
//!                           ^^^^^^^^^^^^^ looked up            ^^^^^^^^ must be a serving endpoint
//! ```
//!
//! This file decides ([`is_stale`]) and drives; `conntrack/wire.rs` speaks netlink. It is not a cache and keeps no state of its own: what it
//! acts on is what the kernel listed a moment ago, so an event missed while the process was stopped costs nothing
//! (kubernetes/kubernetes#126130).
//!
//! Call it after the rules changed, never before: an entry removed too early is recreated by the next packet through the old rules
//! (kubernetes/kubernetes#98305, #104009).

mod wire;

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use wire::{DumpFilter, Family, Listed};

/// How often one call lists the table again when the kernel says that a listing was interrupted.
///
/// The table of a busy node changes during nearly every listing, so "until it is quiet" would never end; what an interrupted listing
/// missed is found by the next attempt or by the next call.
const DUMP_ATTEMPTS: usize = 5;

/// One address and port at which clients reach a UDP Service: a cluster IP, an external IP or a load balancer IP with the Service's port, or a
/// node's address with the node port. It is the destination of the original direction of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UdpFrontend {
    /// The destination address that clients use.
    pub addr: IpAddr,
    /// The destination port that clients use.
    pub port: u16,
}

/// One UDP entry of the kernel's table, as far as the decision needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UdpEntry {
    /// Where the client sent its packets: the destination of the original direction.
    pub original_destination: SocketAddr,
    /// Who is expected to answer: the source of the reply direction. It equals `original_destination` when the entry was never DNATed.
    pub reply_source: SocketAddr,
}

/// What one [`Conntrack::remove_stale`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// UDP entries that the kernel listed, over all attempts.
    pub listed: usize,
    /// IPv4 entries deleted. An entry that vanished by itself in between is not counted.
    pub ipv4: usize,
    /// IPv6 entries deleted. An entry that vanished by itself in between is not counted.
    pub ipv6: usize,
    /// The last listing was still interrupted: entries may have been missed, and the caller does well to call again with the same map.
    pub incomplete: bool,
}

impl Removed {
    /// Entries deleted in both families.
    pub fn total(&self) -> usize {
        self.ipv4 + self.ipv6
    }
}

/// Whether `entry` contradicts the endpoints that its frontend has now.
///
/// - A destination that is not a key of `valid` is none of our business: it stays.
/// - An entry that leads to one of the frontend's endpoints stays, however often the Service changed.
/// - An entry that leads anywhere else goes, also when no endpoint is left or the Service is gone, so that the next packet meets the rules
///   (kubernetes/kubernetes#139628: without that, a scaled-to-zero Service is served from a removed pod for as long as its client sends).
/// - An entry that was never DNATed goes once the frontend has endpoints: its client was there before the Service
///   (kubernetes/kubernetes#91236, #105657). Without endpoints it stays: it was not made by our rules, and a host's own socket may answer it.
pub fn is_stale(entry: &UdpEntry, valid: &HashMap<UdpFrontend, HashSet<SocketAddr>>) -> bool {
    let frontend = UdpFrontend {
        addr: entry.original_destination.ip(),
        port: entry.original_destination.port(),
    };
    let Some(endpoints) = valid.get(&frontend) else {
        return false;
    };
    if endpoints.contains(&entry.reply_source) {
        return false;
    }
    let translated = entry.reply_source != entry.original_destination;
    translated || !endpoints.is_empty()
}

/// Endpoints that rules lead to which come into force while stale entries are being removed.
///
/// Entries are removed beside the changes of the rules, so a removal may act on what was true a moment ago, and find entries that newer rules
/// have made. So each change is promised before it comes into force, and kept until the removal that knows it begins: an entry that is made by
/// new rules finds its promise made.
#[derive(Clone, Debug, Default)]
pub struct Promises(Arc<Mutex<HashMap<UdpFrontend, Promise>>>);

#[derive(Debug)]
struct Promise {
    change: u64,
    serving: HashSet<SocketAddr>,
}

impl Promises {
    /// Before change number `change` comes into force: what its frontends lead to then. Numbers grow.
    pub fn make<'a>(
        &self,
        change: u64,
        serving: impl Iterator<Item = (UdpFrontend, &'a HashSet<SocketAddr>)>,
    ) {
        self.with(|promises| {
            for (frontend, serving) in serving {
                let serving = serving.clone();
                promises.insert(frontend, Promise { change, serving });
            }
        });
    }

    /// Before a removal begins that knows all changes up to number `change`.
    pub fn keep(&self, change: u64) {
        self.with(|promises| promises.retain(|_, promise| promise.change > change));
    }

    fn covers(&self, entry: &UdpEntry) -> bool {
        let frontend = UdpFrontend {
            addr: entry.original_destination.ip(),
            port: entry.original_destination.port(),
        };
        self.with(|promises| {
            promises
                .get(&frontend)
                .is_some_and(|promise| promise.serving.contains(&entry.reply_source))
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<UdpFrontend, Promise>) -> T) -> T {
        // Nothing is left half done by a panic in between.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The kernel's connection tracking table, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Conntrack {
    socket: wire::Socket,
    promises: Promises,
}

impl Conntrack {
    /// Opens a netlink socket to the table.
    ///
    /// # Errors
    ///
    /// The socket could not be made, for instance because the kernel has no netfilter netlink. Missing rights and a missing
    /// `nf_conntrack_netlink` show up at the first [`Conntrack::remove_stale`] only.
    pub fn open(promises: Promises) -> io::Result<Self> {
        Ok(Self {
            socket: wire::Socket::open()?,
            promises,
        })
    }

    /// Deletes the UDP entries that contradict `stale`, which maps each frontend in question to the endpoints that may serve it now; see
    /// [`is_stale`] for the rule. An empty set means that the frontend has no endpoints or is gone.
    ///
    /// Which endpoints may serve: all the Service's serving ones, whatever its traffic policies and hints say, because a change of those must not
    /// break a flow that works. Node ports need one frontend for each address of the node.
    ///
    /// The table is listed once per family that occurs in `stale` and not once per frontend, and the cost of a call is linear in the
    /// number of entries (kubernetes/kubernetes#135323). Whatever all the frontends of a family have in common, at least the protocol, is
    /// filtered by the kernel.
    ///
    /// # Errors
    ///
    /// The first netlink error met. Everything that could be deleted has been deleted then; an entry that is already gone is not an error.
    pub fn remove_stale(
        &mut self,
        stale: &HashMap<UdpFrontend, HashSet<SocketAddr>>,
    ) -> io::Result<Removed> {
        self.remove(stale.keys(), |entry| is_stale(entry, stale))
    }

    /// Deletes those UDP entries of `frontends` that `doomed` says have to go; see [`Conntrack::remove_stale`]. Entries of other frontends may
    /// be shown to it too.
    ///
    /// # Errors
    ///
    /// As [`Conntrack::remove_stale`].
    pub fn remove<'a>(
        &mut self,
        frontends: impl Iterator<Item = &'a UdpFrontend> + Clone,
        doomed: impl Fn(&UdpEntry) -> bool,
    ) -> io::Result<Removed> {
        let mut removed = Removed::default();
        let mut first_error = None;
        for family in [Family::Ipv4, Family::Ipv6] {
            let Some(filter) = common_filter(family, frontends.clone()) else {
                continue;
            };
            let outcome = self.remove_in(family, filter, &doomed, &mut removed);
            if let (Err(error), None) = (outcome, &first_error) {
                first_error = Some(error);
            }
        }
        first_error.map_or(Ok(removed), Err)
    }

    fn remove_in(
        &mut self,
        family: Family,
        filter: DumpFilter,
        doomed: &dyn Fn(&UdpEntry) -> bool,
        removed: &mut Removed,
    ) -> io::Result<()> {
        let promises = &self.promises;
        for attempt in 1..=DUMP_ATTEMPTS {
            let mut keys = Vec::new();
            let Listed {
                entries,
                interrupted,
            } = self.socket.dump_udp(family, filter, |entry, key| {
                if doomed(entry) && !promises.covers(entry) {
                    keys.push(key.to_owned());
                }
            })?;
            removed.listed += entries;
            // A partial listing is still true as far as it goes, so act on it before listing again.
            let deleted = self.socket.delete(family, &keys)?;
            match family {
                Family::Ipv4 => removed.ipv4 += deleted,
                Family::Ipv6 => removed.ipv6 += deleted,
            }
            if !interrupted {
                return Ok(());
            }
            tracing::debug!(
                ?family,
                attempt,
                "the kernel interrupted the conntrack listing"
            );
        }
        removed.incomplete = true;
        Ok(())
    }
}

/// The narrowest kernel-side filter that still lets the entries of all `frontends` of `family` through, or `None` when there are none.
fn common_filter<'a>(
    family: Family,
    frontends: impl Iterator<Item = &'a UdpFrontend>,
) -> Option<DumpFilter> {
    let mut frontends = frontends.filter(|frontend| Family::of(frontend.addr) == family);
    let first = frontends.next()?;
    let start = DumpFilter {
        // Linux compares IPv6 addresses the wrong way round here and lists everything but the address asked for (seen on 6.18).
        addr: Some(first.addr).filter(IpAddr::is_ipv4),
        port: Some(first.port),
    };
    Some(frontends.fold(start, |filter, frontend| DumpFilter {
        addr: filter.addr.filter(|addr| *addr == frontend.addr),
        port: filter.port.filter(|port| *port == frontend.port),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address of the test")
    }

    fn frontend(text: &str) -> UdpFrontend {
        let addr = addr(text);
        UdpFrontend {
            addr: addr.ip(),
            port: addr.port(),
        }
    }

    fn valid(frontends: &[(&str, &[&str])]) -> HashMap<UdpFrontend, HashSet<SocketAddr>> {
        frontends
            .iter()
            .map(|(at, endpoints)| (frontend(at), endpoints.iter().map(|e| addr(e)).collect()))
            .collect()
    }

    #[test]
    fn decisions() {
        let cluster_ip = "10.96.0.10:53";
        let node_port = "10.89.0.11:30053";
        let vip6 = "[2001:db8:113::1]:53";
        let map = valid(&[
            (cluster_ip, &["10.244.1.11:5353", "10.244.2.11:5353"]),
            (node_port, &["10.244.1.11:5353"]),
            (vip6, &["[fd00:244:0:1::b]:5353"]),
            ("203.0.113.1:53", &[]),
            // A host network endpoint that listens at the very address and port of the frontend.
            ("10.89.0.11:30054", &["10.89.0.11:30054"]),
        ]);
        let table = [
            (
                "leads to an endpoint",
                cluster_ip,
                "10.244.2.11:5353",
                false,
            ),
            (
                "leads to a removed endpoint",
                cluster_ip,
                "10.244.3.11:5353",
                true,
            ),
            (
                "right address, old target port",
                cluster_ip,
                "10.244.2.11:53",
                true,
            ),
            (
                "removed endpoint behind a node port",
                node_port,
                "10.244.2.11:5353",
                true,
            ),
            (
                "endpoint behind a node port",
                node_port,
                "10.244.1.11:5353",
                false,
            ),
            (
                "removed endpoint behind an IPv6 VIP",
                vip6,
                "[fd00:244:0:2::b]:5353",
                true,
            ),
            (
                "endpoint behind an IPv6 VIP",
                vip6,
                "[fd00:244:0:1::b]:5353",
                false,
            ),
            ("scaled to zero", "203.0.113.1:53", "10.244.1.11:5353", true),
            (
                "never translated, no endpoints",
                "203.0.113.1:53",
                "203.0.113.1:53",
                false,
            ),
            ("sender before Service", cluster_ip, cluster_ip, true),
            (
                "same address, other port",
                "10.96.0.10:54",
                "10.244.3.11:5353",
                false,
            ),
            (
                "same port, other address",
                "10.96.0.11:53",
                "10.244.3.11:5353",
                false,
            ),
            ("not a Service", "192.0.2.1:53", "192.0.2.1:53", false),
            (
                "endpoint is the frontend",
                "10.89.0.11:30054",
                "10.89.0.11:30054",
                false,
            ),
        ];
        for (what, original_destination, reply_source, expected) in table {
            let entry = UdpEntry {
                original_destination: addr(original_destination),
                reply_source: addr(reply_source),
            };
            assert_eq!(is_stale(&entry, &map), expected, "{what}");
        }
    }

    #[test]
    fn promises_cover_what_newer_rules_make_until_a_removal_knows_them() {
        let (old, new) = ("10.244.1.11:8080", "10.244.2.11:8080");
        let entry = |to| UdpEntry {
            original_destination: addr("10.96.0.10:80"),
            reply_source: addr(to),
        };
        let promises = Promises::default();
        let serving = HashSet::from([addr(new)]);
        promises.make(7, [(frontend("10.96.0.10:80"), &serving)].into_iter());
        promises.keep(6);
        assert!(promises.covers(&entry(new)));
        assert!(!promises.covers(&entry(old)));
        promises.keep(7);
        assert!(!promises.covers(&entry(new)));
    }

    #[test]
    fn the_filter_is_what_frontends_have_in_common() {
        let filter = |texts: &[&str], family| {
            let frontends: Vec<_> = texts.iter().map(|text| frontend(text)).collect();
            common_filter(family, frontends.iter())
        };
        let one = ["10.96.0.10:53", "[fd00:96::a]:53"];
        assert_eq!(
            filter(&one, Family::Ipv4),
            Some(DumpFilter {
                addr: Some("10.96.0.10".parse().expect("an address")),
                port: Some(53)
            })
        );
        let same_port = ["10.89.0.11:30053", "10.99.0.1:30053", "[fd00:96::a]:53"];
        assert_eq!(
            filter(&same_port, Family::Ipv4),
            Some(DumpFilter {
                addr: None,
                port: Some(30053)
            })
        );
        let same_address = ["10.96.0.10:53", "10.96.0.10:54"];
        assert_eq!(
            filter(&same_address, Family::Ipv4),
            Some(DumpFilter {
                addr: Some("10.96.0.10".parse().expect("an address")),
                port: None
            })
        );
        assert_eq!(
            filter(&["[fd00:96::a]:53", "[fd00:96::a]:54"], Family::Ipv6),
            Some(DumpFilter {
                addr: None,
                port: None
            })
        );
        assert_eq!(filter(&same_address, Family::Ipv6), None);
    }

    /// The rule again, the way the catalogue of bugs words it: go through all frontends, compare text.
    fn naive(entry: &UdpEntry, map: &HashMap<UdpFrontend, HashSet<SocketAddr>>) -> bool {
        let mut verdict = false;
        for (frontend, endpoints) in map {
            let at = SocketAddr::new(frontend.addr, frontend.port).to_string();
            if at != entry.original_destination.to_string() {
                continue;
            }
            let to = entry.reply_source.to_string();
            let leads_to_endpoint = endpoints.iter().any(|endpoint| endpoint.to_string() == to);
            let never_translated = to == at;
            verdict = match (leads_to_endpoint, never_translated, endpoints.len()) {
                (true, _, _) => false,
                (false, true, 0) => false,
                (false, true, _) => true,
                (false, false, _) => true,
            };
        }
        verdict
    }

    /// Few addresses and ports, so that they meet often.
    fn socket_addr() -> impl Strategy<Value = SocketAddr> {
        (0u8..3, any::<bool>(), 1u16..4).prop_map(|(host, v6, port)| {
            let ip: IpAddr = if v6 {
                std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into()).into()
            } else {
                std::net::Ipv4Addr::new(10, 0, 0, host).into()
            };
            SocketAddr::new(ip, port)
        })
    }

    proptest! {
        #[test]
        fn decides_as_the_naive_model(
            frontends in prop::collection::vec((socket_addr(), prop::collection::hash_set(socket_addr(), 0..4)), 0..6),
            original_destination in socket_addr(),
            reply_source in socket_addr(),
        ) {
            let map: HashMap<_, _> = frontends
                .into_iter()
                .map(|(at, endpoints)| (UdpFrontend { addr: at.ip(), port: at.port() }, endpoints))
                .collect();
            let entry = UdpEntry { original_destination, reply_source };
            prop_assert_eq!(is_stale(&entry, &map), naive(&entry, &map));
        }

        #[test]
        fn the_filter_never_hides_a_frontend(
            frontends in prop::collection::vec(socket_addr(), 0..6),
        ) {
            let keys: Vec<_> = frontends.iter().map(|at| UdpFrontend { addr: at.ip(), port: at.port() }).collect();
            for key in &keys {
                let filter = common_filter(Family::of(key.addr), keys.iter()).expect("this family occurs");
                prop_assert!(filter.addr.is_none_or(|addr| addr == key.addr));
                prop_assert!(filter.port.is_none_or(|port| port == key.port));
            }
        }
    }
}
