//! Connection tracking entries that stay too long, or go too early.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{Fault, fault, memory::lock};
use crate::{
    conntrack::{Conntrack, Removed, UdpFrontend, is_stale},
    nft::Difference,
    ruleset::{Changes, Element},
    seams::Kernel,
};

type Stale = HashMap<UdpFrontend, HashSet<SocketAddr>>;

/// The node ports of worlds, as of every cluster.
fn is_node_port(frontend: &UdpFrontend) -> bool {
    (30_000..32_768).contains(&frontend.port)
}

/// Cluster IPs are the frontends in the range for Services of worlds; all others are external.
fn is_cluster_ip(frontend: &UdpFrontend) -> bool {
    match frontend.addr {
        std::net::IpAddr::V4(ip) => ip.octets()[..2] == [10, 96],
        std::net::IpAddr::V6(ip) => ip.segments()[..2] == [0xfd00, 0x96],
    }
}

fn only(stale: &Stale, keep: impl Fn(&UdpFrontend, &HashSet<SocketAddr>) -> bool) -> Stale {
    stale
        .iter()
        .filter(|(frontend, serving)| keep(frontend, serving))
        .map(|(frontend, serving)| (*frontend, serving.clone()))
        .collect()
}

pub(super) fn all() -> Vec<Fault> {
    vec![
        fault! {
            "stale-kept": "Stale UDP entries are never removed.";
            bugs ["kubernetes/kubernetes#19029", "kpng@9d8e95b", "bug:U1", "bug:U16", "bug:U18"];
            violates ["UDP-1"];
            does {
                fn remove_stale(&self, _table: &mut Conntrack, _stale: &Stale) -> io::Result<Removed> {
                    Ok(Removed::default())
                }
            }
        },
        fault! {
            "stale-kept-at-node-ports": "Stale UDP entries at NodePorts stay.";
            bugs ["kubernetes/kubernetes#42473", "kubernetes/kubernetes#59368", "antrea#5112", "bug:U2", "bug:U15"];
            violates ["UDP-1"];
            does {
                fn remove_stale(&self, table: &mut Conntrack, stale: &Stale) -> io::Result<Removed> {
                    table.remove_stale(&only(stale, |frontend, _| !is_node_port(frontend)))
                }
            }
        },
        fault! {
            "stale-kept-at-external-addresses": "Stale UDP entries at load balancer addresses and external IPs stay.";
            bugs ["kubernetes/kubernetes#103857", "kubernetes/kubernetes#104009", "bug:U5"];
            violates ["UDP-1"];
            does {
                fn remove_stale(&self, table: &mut Conntrack, stale: &Stale) -> io::Result<Removed> {
                    table.remove_stale(&only(stale, |frontend, _| is_node_port(frontend) || is_cluster_ip(frontend)))
                }
            }
        },
        fault! {
            "stale-kept-in-ipv6": "Stale UDP entries of IPv6 stay.";
            bugs ["kpng#450", "bug:F6"];
            violates ["UDP-1"];
            does {
                fn remove_stale(&self, table: &mut Conntrack, stale: &Stale) -> io::Result<Removed> {
                    table.remove_stale(&only(stale, |frontend, _| frontend.addr.is_ipv4()))
                }
            }
        },
        fault! {
            "stale-kept-without-endpoints": "UDP entries of a Service that has no endpoint left, or is gone, stay.";
            bugs ["kubernetes/kubernetes#139628", "kubernetes/kubernetes#141371", "bug:U13"];
            violates ["UDP-2"];
            does {
                fn remove_stale(&self, table: &mut Conntrack, stale: &Stale) -> io::Result<Removed> {
                    table.remove_stale(&only(stale, |_, serving| !serving.is_empty()))
                }
            }
        },
        fault! {
            "untranslated-kept": "UDP entries of clients that were there before the Service stay.";
            bugs ["kubernetes/kubernetes#91236", "kubernetes/kubernetes#105657", "kubernetes/kubernetes#101607", "bug:U3", "bug:U6", "bug:U22"];
            violates ["UDP-3"];
            does {
                fn remove_stale(&self, table: &mut Conntrack, stale: &Stale) -> io::Result<Removed> {
                    table.remove(stale.keys(), |entry| {
                        entry.reply_source != entry.original_destination && is_stale(entry, stale)
                    })
                }
            }
        },
        fault! {
            "target-port-not-compared": "UDP entries stay as long as the endpoint's address does, whatever its port.";
            bugs ["e2e:Conntrack should be able to cleanup conntrack entries when UDP service target port changes for a NodePort service", "felix@91ff776bc", "bug:U21"];
            violates ["UDP-4"];
            does {
                fn remove_stale(&self, table: &mut Conntrack, stale: &Stale) -> io::Result<Removed> {
                    table.remove(stale.keys(), |entry| {
                        let frontend = UdpFrontend {
                            addr: entry.original_destination.ip(),
                            port: entry.original_destination.port(),
                        };
                        let same_address = stale
                            .get(&frontend)
                            .is_some_and(|all| all.iter().any(|to| to.ip() == entry.reply_source.ip()));
                        !same_address && is_stale(entry, stale)
                    })
                }
            }
        },
        fault! {
            "all-udp-flushed": "A change of one UDP Service removes the UDP entries of all its endpoints and of others.";
            bugs ["felix@91ff776bc", "bug:U21"];
            violates ["UDP-5"];
            does {
                fn remove_stale(&self, table: &mut Conntrack, stale: &Stale) -> io::Result<Removed> {
                    // Two frontends without anything in common make the kernel show everything.
                    let nobody = |addr: &str, port| UdpFrontend { addr: addr.parse().expect("an address"), port };
                    let wide = [
                        nobody("192.0.2.1", 1),
                        nobody("192.0.2.2", 2),
                        nobody("2001:db8::1", 1),
                        nobody("2001:db8::2", 2),
                    ];
                    table.remove(stale.keys().chain(&wide), |_| true)
                }
            }
        },
        fault! {
            "missed-while-down": "UDP entries that became stale while the proxy did not run stay.";
            bugs ["kubernetes/kubernetes#125467", "kubernetes/kubernetes#126130", "bug:U9"];
            violates ["UDP-8"];
            remembers { first: Mutex<Option<Stale>> }
            does {
                fn remove_stale(&self, table: &mut Conntrack, stale: &Stale) -> io::Result<Removed> {
                    let mut first = lock(&self.first);
                    let known = first.get_or_insert_with(|| stale.clone());
                    table.remove_stale(&only(stale, |frontend, serving| known.get(frontend) != Some(serving)))
                }
            }
        },
        fault! {
            "stale-lost-with-failure": "UDP entries that became stale with a transaction that failed stay, whatever succeeds later.";
            bugs ["kubernetes/kubernetes#112604", "bug:U8"];
            violates ["UDP-1", "CP-8"];
            remembers { failed: AtomicBool }
            does {
                fn adopt(
                    &self,
                    kernel: &mut dyn Kernel,
                    elements: &dyn Fn() -> Vec<Element>,
                ) -> io::Result<Option<Difference>> {
                    let outcome = kernel.adopt(elements);
                    if outcome.is_err() {
                        self.failed.store(true, Ordering::Relaxed);
                    }
                    outcome
                }
                fn remove_stale(&self, table: &mut Conntrack, stale: &Stale) -> io::Result<Removed> {
                    if self.failed.swap(false, Ordering::Relaxed) {
                        return Ok(Removed::default());
                    }
                    table.remove_stale(stale)
                }
            }
        },
        fault! {
            "flushed-before-rules": "Stale UDP entries are removed before the new rules are in force, and not after.";
            bugs ["kubernetes/kubernetes#98305", "kubernetes/kubernetes#104009", "kubernetes/kubernetes#91236", "bug:U3", "bug:U5"];
            violates ["UDP-1", "UDP-3"];
            does {
                fn apply(
                    &self,
                    kernel: &mut dyn Kernel,
                    changes: &mut Changes,
                    _all: &dyn Fn() -> Vec<Element>,
                ) -> io::Result<()> {
                    // The table of connections is clean now, and the old rules fill it again.
                    super::raw::flush_conntrack()?;
                    thread::sleep(Duration::from_millis(60));
                    kernel.apply(changes)
                }
                fn remove_stale(&self, _table: &mut Conntrack, _stale: &Stale) -> io::Result<Removed> {
                    Ok(Removed::default())
                }
            }
        },
    ]
}
