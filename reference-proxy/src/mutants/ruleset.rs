//! Rules that are missing, too wide, or for the wrong packets.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicBool, Ordering},
};

use super::{Fault, fault, raw};
use crate::{
    compile::Surroundings,
    nft::Layout,
    ruleset::{
        Chain, Element, Family, Field, Protocol, Rule, SetId, SetKind, Statement, affinity_rules,
        rules,
    },
};

/// Where the Services of worlds get their addresses from.
const SERVICE_RANGES: [(IpAddr, u8); 2] = [
    (IpAddr::V4(Ipv4Addr::new(10, 96, 0, 0)), 16),
    (
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0)),
        112,
    ),
];

fn with_rules(rules: fn(Chain) -> Vec<Rule>) -> Layout {
    Layout {
        rules,
        ..Layout::default()
    }
}

fn with_affinity(affinity_rules: fn(Family, u32) -> Vec<Rule>) -> Layout {
    Layout {
        affinity_rules,
        ..Layout::default()
    }
}

/// Whether the rule looks something up in a set of this kind.
fn asks(rule: &Rule, kind: SetKind) -> bool {
    rule.0.iter().any(|statement| match statement {
        Statement::In(_, set) | Statement::NotIn(_, set) | Statement::Dispatch(_, set) => {
            set.kind == kind
        }
        _ => false,
    })
}

/// The rules of `chain` without those of `from` that `gone` says.
fn without(chain: Chain, from: Chain, gone: impl Fn(&Rule) -> bool) -> Vec<Rule> {
    let mut all = rules(chain);
    if chain == from {
        all.retain(|rule| !gone(rule));
    }
    all
}

/// Changes the number that the random choice is below.
fn random(chain: Chain, below: impl Fn(u32) -> u32) -> Vec<Rule> {
    let mut all = rules(chain);
    if let Chain::Balance(..) = chain {
        // Without the rule that a choice of nobody falls back to.
        all.truncate(1);
        for statement in all.iter_mut().flat_map(|rule| &mut rule.0) {
            if let Statement::Translate(fields, _) = statement {
                for field in fields {
                    if let Field::Random(n) = field {
                        *n = below(*n);
                    }
                }
            }
        }
    }
    all
}

fn remember(family: Family, seconds: u32, change: impl Fn(u32) -> u32) -> Vec<Rule> {
    let mut all = affinity_rules(family, seconds);
    for statement in all.iter_mut().flat_map(|rule| &mut rule.0) {
        if let Statement::Remember(_, _, timeout) = statement {
            *timeout = change(*timeout);
        }
    }
    all
}

pub(super) fn all() -> Vec<Fault> {
    vec![
        fault! {
            "hairpin-not-masqueraded": "A pod that meets itself through a Service sees its own address as the client's.";
            bugs ["kubernetes/kubernetes#53775", "kubernetes/kubernetes#134884", "kube-router#9", "bug:H1", "bug:H2", "bug:H3"];
            violates ["SRC-3"];
            does {
                fn layout(&self) -> Layout {
                    with_rules(|chain| without(chain, Chain::Masquerading, |rule| asks(rule, SetKind::Hairpin)))
                }
            }
        },
        fault! {
            "hairpin-ipv4-only": "A pod that meets itself through a Service is masqueraded in IPv4 only.";
            bugs ["kpng#450", "kpng#308", "bug:F6", "bug:H3"];
            violates ["SRC-3"];
            does {
                fn layout(&self) -> Layout {
                    with_rules(|chain| {
                        without(chain, Chain::Masquerading, |rule| {
                            asks(rule, SetKind::Hairpin) && rule.0[0] == Statement::IsFamily(Family::V6)
                        })
                    })
                }
            }
        },
        fault! {
            "everything-masqueraded": "Every connection to a Service is masqueraded.";
            bugs ["kubernetes/kubernetes#126089", "kpng#295", "bug:H4", "bug:H5"];
            violates ["SRC-1", "SRC-2"];
            does {
                fn layout(&self) -> Layout {
                    with_rules(|chain| match chain {
                        Chain::Masquerading => vec![Rule(vec![Statement::Masquerade])],
                        chain => rules(chain),
                    })
                }
            }
        },
        fault! {
            "unrelated-traffic-masqueraded": "Traffic that is not for a Service is masqueraded as well.";
            bugs ["kindnet@a86eb09", "bug:H10"];
            violates ["SAFE-4"];
            does {
                fn layout(&self) -> Layout {
                    with_rules(|chain| match chain {
                        Chain::Postrouting => vec![
                            Rule(vec![Statement::IsTranslated, Statement::Jump(Chain::Masquerading)]),
                            Rule(vec![Statement::IsTranslated, Statement::Return]),
                            Rule(vec![Statement::Masquerade]),
                        ],
                        chain => rules(chain),
                    })
                }
            }
        },
        fault! {
            "external-not-masqueraded": "External traffic under policy Cluster is not masqueraded, so replies from other nodes take another way.";
            bugs ["cilium#34235", "kpng@182e628", "bug:H9", "bug:P13"];
            violates ["SVC-NP-1", "SVC-EIP-1", "SVC-LB-1"];
            does {
                fn layout(&self) -> Layout {
                    with_rules(|chain| without(chain, Chain::Masquerading, |rule| asks(rule, SetKind::Masquerade)))
                }
            }
        },
        fault! {
            "held-address-not-masqueraded": "A process of the node that sends from a Service's external address, which the node holds, is not masqueraded.";
            bugs ["kubernetes/kubernetes#77523", "bug:P1"];
            violates ["TP-6"];
            does {
                fn layout(&self) -> Layout {
                    with_rules(|chain| {
                        without(chain, Chain::Masquerading, |rule| rule.0.contains(&Statement::IsFromNode))
                    })
                }
            }
        },
        fault! {
            "invalid-not-dropped": "Segments outside the window pass untranslated.";
            bugs ["kubernetes/kubernetes#74839", "kubernetes/kubernetes#117924", "kpng@6cbd223", "bug:T1", "bug:T2"];
            violates ["TCP-2"];
            does {
                fn layout(&self) -> Layout {
                    with_rules(|chain| without(chain, Chain::Tracking, |_| true))
                }
            }
        },
        fault! {
            "drop-instead-of-refuse": "Services without endpoints drop instead of refusing.";
            bugs ["kubernetes/kubernetes#17359", "kubernetes/kubernetes#31328", "bug:N1", "bug:N7"];
            violates ["NOEP-1", "NOEP-2", "NOEP-3"];
            does {
                fn layout(&self) -> Layout {
                    with_rules(|chain| match chain {
                        Chain::Refuse => vec![Rule(vec![Statement::Drop])],
                        chain => rules(chain),
                    })
                }
            }
        },
        fault! {
            "udp-not-refused": "UDP to a Service without endpoints is dropped instead of refused.";
            bugs ["felix@1f85a162d", "kubernetes/kubernetes#48719", "bug:N3"];
            violates ["NOEP-3"];
            does {
                fn layout(&self) -> Layout {
                    with_rules(|chain| match chain {
                        Chain::Refuse => vec![
                            Rule(vec![Statement::IsProtocol(Protocol::Tcp), Statement::Reset]),
                            Rule(vec![Statement::Drop]),
                        ],
                        chain => rules(chain),
                    })
                }
            }
        },
        fault! {
            "node-not-served": "Processes on the node are not served.";
            bugs ["e2e:Granular Checks: Services should function for node-Service", "kpng#450", "bug:F6"];
            violates ["SVC-CIP-2", "SVC-NP-2"];
            does {
                fn layout(&self) -> Layout {
                    with_rules(|chain| without(chain, Chain::Output, |_| true))
                }
            }
        },
        fault! {
            "pods-meet-external-policy": "Pods reach external frontends under externalTrafficPolicy Local only where endpoints are.";
            bugs ["kubernetes/kubernetes#77523", "cilium#45252", "bug:P1", "bug:P2"];
            violates ["TP-6"];
            does {
                fn layout(&self) -> Layout {
                    with_rules(|chain| {
                        let mut all = rules(chain);
                        for rule in &mut all {
                            rule.0.retain(|statement| {
                                !matches!(statement, Statement::NotIn(_, set) if set.kind == SetKind::Pods)
                            });
                        }
                        all
                    })
                }
            }
        },
        fault! {
            "external-policy-keeps-source-only": "externalTrafficPolicy Local keeps the source address, and endpoints of all nodes are used.";
            bugs ["kubernetes/kubernetes#72432", "kubernetes/kubernetes#66062", "bug:P3"];
            violates ["TP-4", "TP-5"];
            does {
                fn layout(&self) -> Layout {
                    with_rules(|chain| without(chain, Chain::Prerouting, |rule| asks(rule, SetKind::External)))
                }
            }
        },
        fault! {
            "cluster-ips-are-the-nodes-own": "Service addresses are addresses of the node, so its listeners answer at ports that a Service does not have.";
            bugs ["kubernetes/kubernetes#72236", "bug:N5"];
            violates ["SVC-CIP-4", "SAFE-2"];
            remembers { done: AtomicBool }
            does {
                fn layout(&self) -> Layout {
                    with_rules(|chain| without(chain, Chain::Services, |rule| asks(rule, SetKind::ClusterIps)))
                }
                fn node_elements(&self, around: &Surroundings, _elements: &mut Vec<Element>) {
                    if !around.node.ips.is_empty() && !self.done.swap(true, Ordering::Relaxed) {
                        for (range, length) in SERVICE_RANGES {
                            let prefer = around.node.ips.iter().find(|ip| ip.is_ipv4() == range.is_ipv4());
                            if let Err(error) = raw::local_route(range, length, prefer.copied()) {
                                tracing::error!("failed to route {range}/{length} to the node itself: {error}");
                            }
                        }
                    }
                }
            }
        },
        fault! {
            "source-ranges-not-for-nodes": "loadBalancerSourceRanges do not restrict processes of the node.";
            bugs ["kubernetes/kubernetes#119656", "bug:G1"];
            violates ["SVC-LB-4"];
            does {
                fn layout(&self) -> Layout {
                    with_rules(|chain| {
                        without(chain, Chain::Output, |rule| {
                            rule.0.contains(&Statement::Jump(Chain::SourceRanges))
                        })
                    })
                }
            }
        },
        fault! {
            "udp-affinity-missing": "Session affinity has no effect for UDP.";
            bugs ["cilium#16163", "bug:A7"];
            violates ["AFF-1"];
            does {
                fn layout(&self) -> Layout {
                    with_affinity(|family, seconds| {
                        let mut all = affinity_rules(family, seconds);
                        all.retain(|rule| !rule.0.contains(&Statement::IsProtocol(Protocol::Udp)));
                        all
                    })
                }
            }
        },
        fault! {
            "affinity-never-expires": "A client returns to its endpoint however long it was away.";
            bugs ["kubernetes/kubernetes#89358", "felix@70aa88f79", "bug:A2", "bug:A4"];
            violates ["AFF-2"];
            does {
                fn layout(&self) -> Layout {
                    with_affinity(|family, seconds| remember(family, seconds, |_| 100_000))
                }
            }
        },
        fault! {
            "affinity-in-minutes": "The affinity's timeout is divided by 60.";
            bugs ["kubernetes/kubernetes#35677", "bug:A1"];
            violates ["AFF-2"];
            does {
                fn layout(&self) -> Layout {
                    with_affinity(|family, seconds| remember(family, seconds, |timeout| (timeout / 60).max(1)))
                }
            }
        },
        fault! {
            "affinity-for-all-clients": "Affinity is recorded for the frontend's address instead of the client's.";
            bugs ["kpng#434", "bug:A7"];
            violates ["AFF-1"];
            does {
                fn layout(&self) -> Layout {
                    with_affinity(|family, seconds| {
                        let mut all = affinity_rules(family, seconds);
                        for statement in all.iter_mut().flat_map(|rule| &mut rule.0) {
                            if let Statement::Remember(fields, ..) = statement {
                                fields[0] = Field::OriginalDestination(family);
                            }
                        }
                        all
                    })
                }
            }
        },
        fault! {
            "last-endpoint-never-chosen": "The last endpoint of a Service gets no flows while there are others.";
            bugs ["kubernetes/kubernetes#37932", "bug:D2"];
            violates ["DIST-1"];
            does {
                fn layout(&self) -> Layout {
                    with_rules(|chain| random(chain, |n| (n - 1).max(1)))
                }
            }
        },
        fault! {
            "first-endpoint-always": "All flows go to the first endpoint.";
            bugs ["kpng@b4753fa", "kubernetes/kubernetes#34321", "bug:D2", "bug:R14"];
            violates ["DIST-1"];
            does {
                fn layout(&self) -> Layout {
                    with_rules(|chain| random(chain, |_| 1))
                }
            }
        },
        fault! {
            "one-slot-too-many": "One flow of N plus one finds no endpoint.";
            bugs ["antrea#3679", "bug:D3"];
            violates ["DIST-2"];
            does {
                fn layout(&self) -> Layout {
                    with_rules(|chain| random(chain, |n| n + 1))
                }
            }
        },
        fault! {
            "cluster-ips-ipv4-only": "In IPv6, Services are served for nobody.";
            bugs ["kubernetes/kubernetes#97343", "kubernetes/kubernetes#96468", "bug:F4", "bug:F5"];
            violates ["FAM-1", "FAM-2"];
            does {
                fn layout(&self) -> Layout {
                    with_rules(|chain| {
                        without(chain, Chain::Services, |rule| rule.0[0] == Statement::IsFamily(Family::V6))
                    })
                }
            }
        },
        fault! {
            "replies-of-nodes-masqueraded": "Traffic of pods of this node to external frontends is masqueraded, and to those of other nodes it is not.";
            bugs ["kubernetes/kubernetes#111321", "bug:H7"];
            violates ["SVC-NP-2"];
            does {
                fn layout(&self) -> Layout {
                    with_rules(|chain| {
                        let mut all = rules(chain);
                        if chain == Chain::Masquerading {
                            for family in Family::ALL {
                                let outside = SetId::new(SetKind::ClusterSources, family);
                                all.insert(0, Rule(vec![
                                    Statement::IsFamily(family),
                                    Statement::In(vec![Field::Source(family)], outside),
                                    Statement::NotIn(
                                        vec![Field::Source(family), Field::Destination(family)],
                                        SetId::new(SetKind::Hairpin, family),
                                    ),
                                    Statement::Return,
                                ]));
                            }
                        }
                        all
                    })
                }
            }
        },
    ]
}
