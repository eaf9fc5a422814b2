//! Namespaces, wires, addresses, routes, rules and neighbours of a world: a pure function of its plan.
//!
//! Three things here are not for looks:
//! - Every neighbour is written down as permanent with a fixed MAC, so no ARP or ND ever runs, nothing is lost while
//!   it would, and captures hold only traffic.
//! - The two ends of a wire never have the same interface index. The kernel takes a device whose peer has its own
//!   index for one without a lower layer, and then defers its activation by up to a second; the first SYN of a
//!   fresh world was lost to that.
//! - Every node has a default route. Without one, a connection to a ClusterIP ends in ENETUNREACH before
//!   the proxy's rules see it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::plan::{
    Family, NodeAddresses, Plan, PodAddresses, cluster_cidr, frontend_cidrs, outside_cidr,
};
use crate::topology::NODE_NETWORK;

/// MTU of all wires of which the topology does not say otherwise.
const MTU: u32 = 1500;
const LOOPBACK: u32 = 1;
/// Index of `eth0` wherever there is one.
const ETH0: u32 = 2;
/// Index of the router's outside interface.
const ETH1: u32 = 3;
/// Index of the node network's bridge in the fabric; the n-th extra network's is that plus n.
const BRIDGE: u32 = 3000;
/// First routing table of the router: traffic from the outside address for node i uses this plus i.
const TABLE: u32 = 100;

/// What a namespace is for, which decides its sysctls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Forwards packets that are not its own.
    Forwarder,
    Host,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Namespace {
    pub name: String,
    pub role: Role,
    pub bridges: Vec<Bridge>,
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bridge {
    pub name: String,
    pub index: u32,
    pub mac: Mac,
}

/// A veth pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wire {
    /// The end from whose namespace the pair is made; only this one can be a bridge port.
    pub near: End,
    pub far: End,
    pub mtu: u32,
    /// Bridge that the near end is a port of.
    pub bridge: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub namespace: String,
    pub link: String,
    pub index: u32,
    pub mac: Mac,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mac(pub [u8; 6]);

impl Mac {
    /// Of the interface that holds this address.
    fn holder(addr: Ipv4Addr) -> Mac {
        let [a, b, c, d] = addr.octets();
        Mac([0x02, 0x00, a, b, c, d])
    }

    /// Of the other end of the wire to the interface that holds this address.
    fn facing(addr: Ipv4Addr) -> Mac {
        let [a, b, c, d] = addr.octets();
        Mac([0x02, 0x01, a, b, c, d])
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// One change in a namespace, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Up { link: u32 },
    Address { link: u32, addr: IpNet },
    Neighbour { link: u32, addr: IpAddr, mac: Mac },
    Route { to: IpNet, table: u32, via: Via },
    Rule { from: IpAddr, table: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    Link(u32),
    /// Through a gateway that is known to be on this link, whatever the addresses of the link say.
    Gateway {
        link: u32,
        addr: IpAddr,
    },
    /// The same, with the source address to use where none is asked for, and the TCP segment size to ask other ends for where it is not
    /// the link's.
    GatewayFrom {
        link: u32,
        addr: IpAddr,
        source: IpAddr,
        segment: Option<u32>,
    },
    Blackhole,
    Unreachable,
}

impl fmt::Display for Step {
    /// As `ip` would be told, with `#2` for the interface with index 2.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Up { link } => write!(f, "link set #{link} up"),
            Step::Address { link, addr } => write!(f, "addr add {addr} dev #{link}"),
            Step::Neighbour { link, addr, mac } => {
                write!(
                    f,
                    "neigh add {addr} lladdr {mac:?} dev #{link} nud permanent"
                )
            }
            Step::Route { to, table, via } => {
                write!(f, "route add ")?;
                match via {
                    Via::Link(link) => write!(f, "{to} dev #{link}")?,
                    Via::Gateway { link, addr } => write!(f, "{to} via {addr} dev #{link} onlink")?,
                    Via::GatewayFrom {
                        link,
                        addr,
                        source,
                        segment,
                    } => {
                        write!(f, "{to} via {addr} dev #{link} onlink src {source}")?;
                        if let Some(segment) = segment {
                            write!(f, " advmss {segment}")?;
                        }
                    }
                    Via::Blackhole => write!(f, "blackhole {to}")?,
                    Via::Unreachable => write!(f, "unreachable {to}")?,
                }
                if *table != MAIN {
                    write!(f, " table {table}")?;
                }
                Ok(())
            }
            Step::Rule { from, table } => write!(f, "rule add from {from} lookup {table}"),
        }
    }
}

/// The main routing table.
pub(crate) const MAIN: u32 = 254;

/// What [`Plan`] means for the kernel, pods left out: those come with [`pod`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blueprint {
    pub namespaces: Vec<Namespace>,
    pub wires: Vec<Wire>,
}

/// What one pod with a namespace adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodBlueprint {
    pub namespace: Namespace,
    pub wire: Wire,
    /// Changes in the node's namespace.
    pub node_steps: Vec<Step>,
}

/// An interface in a shared network.
struct Member {
    namespace: String,
    link: u32,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

impl Member {
    fn ip(&self, family: Family) -> IpAddr {
        match family {
            Family::Ipv4 => self.v4.into(),
            Family::Ipv6 => self.v6.into(),
        }
    }
}

/// `sysctl` paths below `/proc/sys` and their values, to be written before the namespace has links.
/// Those marked optional do not exist on every kernel.
pub(crate) fn sysctls(role: Role) -> Vec<(&'static str, &'static str, Need)> {
    use Need::{Optional, Required};
    // Forwarding first: switching it resets others.
    let mut all = Vec::new();
    if role == Role::Forwarder {
        all.extend([
            ("net/ipv4/ip_forward", "1", Required),
            ("net/ipv6/conf/all/forwarding", "1", Required),
            ("net/ipv6/conf/default/forwarding", "1", Required),
        ]);
    }
    all.extend([
        // New namespaces inherit these from the host, which may have any value.
        ("net/ipv4/conf/all/rp_filter", "0", Required),
        ("net/ipv4/conf/default/rp_filter", "0", Required),
        ("net/ipv4/conf/all/route_localnet", "0", Required),
        ("net/ipv4/conf/default/route_localnet", "0", Required),
        ("net/ipv4/conf/all/send_redirects", "0", Required),
        ("net/ipv4/conf/default/send_redirects", "0", Required),
        ("net/ipv4/conf/all/accept_redirects", "0", Required),
        ("net/ipv4/conf/default/accept_redirects", "0", Required),
        // No duplicate address detection, no router advertisements, no link-local addresses: no noise, no delay.
        ("net/ipv6/conf/all/disable_ipv6", "0", Required),
        ("net/ipv6/conf/default/disable_ipv6", "0", Required),
        ("net/ipv6/conf/default/accept_dad", "0", Required),
        ("net/ipv6/conf/default/accept_ra", "0", Required),
        ("net/ipv6/conf/default/addr_gen_mode", "1", Required),
        ("net/ipv6/conf/all/accept_redirects", "0", Required),
        // A rejected connection must be told so each time, however many are probed at once.
        ("net/ipv4/icmp_ratelimit", "0", Required),
        ("net/ipv6/icmp/ratelimit", "0", Required),
        ("net/ipv4/icmp_msgs_per_sec", "1000000", Optional),
        ("net/ipv4/icmp_msgs_burst", "100000", Optional),
        ("net/ipv4/ping_group_range", "0 0", Optional),
    ]);
    all
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Required,
    Optional,
}

/// The namespaces and wires of everything but pods.
pub(crate) fn world(plan: &Plan) -> Blueprint {
    let mut blueprint = Blueprint {
        namespaces: Vec::new(),
        wires: Vec::new(),
    };
    let mut fabric = namespace("fabric", Role::Host);
    let mut router = namespace("router", Role::Forwarder);
    let mut nodes: Vec<Namespace> = plan
        .nodes()
        .iter()
        .map(|node| namespace(&node.name, Role::Forwarder))
        .collect();
    let mut clients: Vec<Namespace> = plan
        .clients()
        .iter()
        .map(|client| namespace(&client.name, Role::Host))
        .collect();

    // The node network: fabric, router, nodes, clients, all at one bridge.
    let (fabric4, fabric6) = both(|family| plan.fabric(family));
    let (router4, router6) = both(|family| plan.router(family));
    let mut members = vec![
        Member {
            namespace: "fabric".to_owned(),
            link: BRIDGE,
            v4: fabric4,
            v6: fabric6,
        },
        Member {
            namespace: "router".to_owned(),
            link: ETH0,
            v4: router4,
            v6: router6,
        },
    ];
    fabric.bridges.push(Bridge {
        name: "nodes".to_owned(),
        index: BRIDGE,
        mac: Mac::holder(fabric4),
    });
    blueprint.wires.push(port(
        BRIDGE, 2150, "router", "router", "eth0", ETH0, router4,
    ));
    for node in plan.nodes() {
        blueprint.wires.push(port(
            BRIDGE,
            2000 + u32::from(node.index),
            &format!("node{}", node.index),
            &node.name,
            "eth0",
            ETH0,
            node.ipv4,
        ));
        members.push(Member {
            namespace: node.name.clone(),
            link: ETH0,
            v4: node.ipv4,
            v6: node.ipv6,
        });
    }
    for client in plan.clients().iter().filter(|c| c.network == NODE_NETWORK) {
        blueprint.wires.push(port(
            BRIDGE,
            2200 + u32::from(client.index),
            &format!("client{}", client.index),
            &client.name,
            "eth0",
            ETH0,
            client.ipv4,
        ));
        members.push(Member {
            namespace: client.name.clone(),
            link: ETH0,
            v4: client.ipv4,
            v6: client.ipv6,
        });
    }
    let place = |name: &str, member: &Member| name == member.namespace;
    for target in [&mut fabric, &mut router]
        .into_iter()
        .chain(nodes.iter_mut())
        .chain(clients.iter_mut())
    {
        target.steps.push(Step::Up { link: LOOPBACK });
        if let Some(me) = members.iter().find(|member| place(&target.name, member)) {
            join(target, me, &members, 24, 64);
        }
    }

    // Extra networks: a bridge each, nodes and clients at it, no router.
    for (network, n) in plan.networks().iter().zip(1u32..) {
        fabric.bridges.push(Bridge {
            name: format!("extra{n}"),
            index: BRIDGE + n,
            mac: Mac([0x02, 0x02, 0, 0, 0, n as u8]),
        });
        fabric.steps.push(Step::Up { link: BRIDGE + n });
        let mut members = Vec::new();
        let base = 4000 + n * 256;
        for node in plan.nodes() {
            let Some(&(v4, v6)) = node.extra.get(network) else {
                continue;
            };
            let link = 10 + n;
            let index = base + u32::from(node.index);
            blueprint.wires.push(port(
                BRIDGE + n,
                index,
                &format!("x{n}node{}", node.index),
                &node.name,
                &format!("eth{n}"),
                link,
                v4,
            ));
            members.push(Member {
                namespace: node.name.clone(),
                link,
                v4,
                v6,
            });
        }
        for client in plan.clients().iter().filter(|c| c.network == *network) {
            blueprint.wires.push(port(
                BRIDGE + n,
                base + 200 + u32::from(client.index),
                &format!("x{n}client{}", client.index),
                &client.name,
                "eth0",
                ETH0,
                client.ipv4,
            ));
            members.push(Member {
                namespace: client.name.clone(),
                link: ETH0,
                v4: client.ipv4,
                v6: client.ipv6,
            });
        }
        for target in nodes.iter_mut().chain(clients.iter_mut()) {
            if let Some(me) = members.iter().find(|member| place(&target.name, member)) {
                join(target, me, &members, 24, 64);
            }
        }
    }

    // Ports of the fabric's bridges.
    for wire in blueprint.wires.iter().filter(|wire| wire.bridge.is_some()) {
        fabric.steps.push(Step::Up {
            link: wire.near.index,
        });
    }

    for family in Family::BOTH {
        let gateway = plan.router(family);
        for (target, link) in [(&mut fabric, BRIDGE), (&mut router, ETH0)] {
            pods_through_nodes(target, link, family, plan.nodes(), |node| {
                Some(node.ip(family))
            });
        }
        fabric
            .steps
            .push(default_route(family, ETH0_OF_FABRIC, gateway));
        for (target, node) in nodes.iter_mut().zip(plan.nodes()) {
            for other in plan
                .nodes()
                .iter()
                .filter(|other| other.index != node.index)
            {
                target.steps.push(route(
                    other.pod_cidr(family),
                    Via::Gateway {
                        link: ETH0,
                        addr: other.ip(family),
                    },
                ));
            }
            // Addresses of pods that do not exist (any more) answer nothing, rather than going round and round.
            target
                .steps
                .push(route(node.pod_cidr(family), Via::Blackhole));
            target.steps.push(default_route(family, ETH0, gateway));
        }
        for (target, client) in clients.iter_mut().zip(plan.clients()) {
            let address_of = |node: &NodeAddresses| {
                if client.network == NODE_NETWORK {
                    Some(node.ip(family))
                } else {
                    node.extra_ip(&client.network, family)
                }
            };
            let through = client.through.as_deref();
            pods_through_nodes(target, ETH0, family, plan.nodes(), |node| {
                address_of(through.and_then(|name| plan.node(name)).unwrap_or(node))
            });
            // A neighbour has no load balancer before it: it knows the first node.
            if let Some(first) = plan.nodes().iter().find_map(address_of) {
                for cidr in frontend_cidrs(family) {
                    target.steps.push(route(
                        cidr,
                        Via::Gateway {
                            link: ETH0,
                            addr: first,
                        },
                    ));
                }
                let out = if client.network == NODE_NETWORK {
                    gateway
                } else {
                    first
                };
                target.steps.push(default_route(family, ETH0, out));
            }
        }
        // What no proxy took comes here from the nodes' default route, and must end here.
        for cidr in frontend_cidrs(family) {
            router
                .steps
                .push(route(cidr, own_way_to_frontends(plan, family)));
        }
        router
            .steps
            .push(route(cluster_cidr(family), Via::Unreachable));
    }

    let mut outside = plan
        .topology()
        .outside
        .as_ref()
        .map(|spec| (namespace("outside", Role::Host), spec.mtu.unwrap_or(MTU)));
    if let Some((outside, mtu)) = &mut outside {
        wire_outside(plan, &mut router, outside, *mtu, &mut blueprint.wires);
    }

    blueprint.namespaces.extend([fabric, router]);
    blueprint.namespaces.append(&mut nodes);
    blueprint
        .namespaces
        .extend(outside.map(|(outside, _)| outside));
    blueprint.namespaces.append(&mut clients);
    blueprint
}

/// The fabric's own interface in the node network is the bridge itself.
const ETH0_OF_FABRIC: u32 = BRIDGE;

fn wire_outside(
    plan: &Plan,
    router: &mut Namespace,
    outside: &mut Namespace,
    mtu: u32,
    wires: &mut Vec<Wire>,
) {
    let (router4, router6) = both(|family| plan.router_outside(family));
    let sources: Vec<_> = plan
        .nodes()
        .iter()
        .filter_map(|node| Some((node, plan.outside(&node.name)?)))
        .collect();
    let outside_mac = Mac::facing(router4);
    let router_mac = Mac::holder(router4);
    wires.push(Wire {
        near: End {
            namespace: router.name.clone(),
            link: "eth1".to_owned(),
            index: ETH1,
            mac: router_mac,
        },
        far: End {
            namespace: outside.name.clone(),
            link: "eth0".to_owned(),
            index: ETH0,
            mac: outside_mac,
        },
        mtu,
        bridge: None,
    });
    router.steps.extend([
        address(ETH1, router4.into(), 24),
        address(ETH1, router6.into(), 64),
        Step::Up { link: ETH1 },
    ]);
    outside.steps.push(Step::Up { link: LOOPBACK });
    for (_, source) in &sources {
        outside.steps.push(address(ETH0, source.ipv4.into(), 24));
        outside.steps.push(address(ETH0, source.ipv6.into(), 64));
    }
    outside.steps.push(Step::Up { link: ETH0 });
    for family in Family::BOTH {
        let gateway = plan.router_outside(family);
        outside.steps.push(Step::Neighbour {
            link: ETH0,
            addr: gateway,
            mac: router_mac,
        });
        // Left to itself the kernel takes the first address of one family and the last of the other.
        if let Some((_, first)) = sources.first() {
            outside.steps.push(route(
                any(family),
                Via::GatewayFrom {
                    link: ETH0,
                    addr: gateway,
                    source: first.ip(family),
                    segment: asked_segment(family, mtu),
                },
            ));
        }
        for (node, source) in &sources {
            let table = TABLE + u32::from(node.index);
            router.steps.push(Step::Neighbour {
                link: ETH1,
                addr: source.ip(family),
                mac: outside_mac,
            });
            for to in frontend_cidrs(family) {
                router.steps.push(Step::Route {
                    to,
                    table,
                    via: Via::Gateway {
                        link: ETH0,
                        addr: node.ip(family),
                    },
                });
            }
            router.steps.push(Step::Rule {
                from: source.ip(family),
                table,
            });
        }
    }
    debug_assert!(
        Family::BOTH
            .iter()
            .all(|family| { outside_cidr(*family).contains(&plan.router_outside(*family)) })
    );
}

/// The namespace of a pod and its wire. `None` for a hostNetwork pod, which needs neither.
pub(crate) fn pod(plan: &Plan, pod: &PodAddresses) -> Option<PodBlueprint> {
    let node = plan.node(&pod.node)?;
    if pod.host_network {
        return None;
    }
    let index = node_end(pod);
    let mtu = pod.mtu.unwrap_or(MTU);
    let pod_mac = Mac::holder(pod.ipv4);
    let node_mac = Mac::facing(pod.ipv4);
    let mut inside = namespace(&pod.name, Role::Host);
    let mut node_steps = Vec::new();
    inside.steps.push(Step::Up { link: LOOPBACK });
    for family in Family::BOTH {
        inside.steps.push(host_address(ETH0, pod.ip(family)));
        node_steps.push(host_address(index, node.pod_gateway(family)));
    }
    inside.steps.push(Step::Up { link: ETH0 });
    node_steps.push(Step::Up { link: index });
    for family in Family::BOTH {
        let gateway = node.pod_gateway(family);
        inside.steps.push(Step::Neighbour {
            link: ETH0,
            addr: gateway,
            mac: node_mac,
        });
        let out = match asked_segment(family, mtu) {
            None => Via::Gateway {
                link: ETH0,
                addr: gateway,
            },
            segment => Via::GatewayFrom {
                link: ETH0,
                addr: gateway,
                source: pod.ip(family),
                segment,
            },
        };
        inside.steps.push(route(any(family), out));
        node_steps.push(Step::Neighbour {
            link: index,
            addr: pod.ip(family),
            mac: pod_mac,
        });
        node_steps.push(route(pod.ip(family).into(), Via::Link(index)));
    }
    Some(PodBlueprint {
        namespace: inside,
        wire: Wire {
            near: End {
                namespace: pod.node.clone(),
                link: format!("pod{}", pod.index),
                index,
                mac: node_mac,
            },
            far: End {
                namespace: pod.name.clone(),
                link: "eth0".to_owned(),
                index: ETH0,
                mac: pod_mac,
            },
            mtu,
            bridge: None,
        },
        node_steps,
    })
}

/// What one more address of a node on the node network needs: the address, and everybody else there to know whose it is.
pub(crate) fn another_address(
    plan: &Plan,
    node: &NodeAddresses,
    addr: IpNet,
) -> Vec<(String, Step)> {
    let (fabric, router) = ("fabric".to_owned(), "router".to_owned());
    let nodes = plan.nodes().iter().map(|node| node.name.clone());
    let clients = plan
        .clients()
        .iter()
        .filter(|client| client.network == NODE_NETWORK)
        .map(|client| client.name.clone());
    [(fabric, BRIDGE), (router, ETH0)]
        .into_iter()
        .chain(nodes.chain(clients).map(|name| (name, ETH0)))
        .map(|(name, link)| {
            let step = if name == node.name {
                Step::Address { link, addr }
            } else {
                Step::Neighbour {
                    link,
                    addr: addr.addr(),
                    mac: Mac::holder(node.ipv4),
                }
            };
            (name, step)
        })
        .collect()
}

/// Interface index of the node's end of a pod's wire.
pub(crate) fn node_end(pod: &PodAddresses) -> u32 {
    1000 + u32::from(pod.index)
}

/// The interfaces that a namespace's steps bring up and that have a carrier to wait for.
pub(crate) fn links_up(steps: &[Step]) -> Vec<u32> {
    steps
        .iter()
        .filter_map(|step| match step {
            Step::Up { link } if *link != LOOPBACK && !(BRIDGE..4000).contains(link) => Some(*link),
            _ => None,
        })
        .collect()
}

/// The IPv6 addresses that a namespace's steps give it.
pub(crate) fn addresses6(steps: &[Step]) -> Vec<IpAddr> {
    steps
        .iter()
        .filter_map(|step| match step {
            Step::Address { addr, .. } => Some(addr.addr()).filter(IpAddr::is_ipv6),
            _ => None,
        })
        .collect()
}

fn namespace(name: &str, role: Role) -> Namespace {
    Namespace {
        name: name.to_owned(),
        role,
        bridges: Vec::new(),
        steps: Vec::new(),
    }
}

fn port(
    bridge: u32,
    index: u32,
    name: &str,
    to: &str,
    link: &str,
    link_index: u32,
    addr: Ipv4Addr,
) -> Wire {
    Wire {
        near: End {
            namespace: "fabric".to_owned(),
            link: name.to_owned(),
            index,
            mac: Mac::facing(addr),
        },
        far: End {
            namespace: to.to_owned(),
            link: link.to_owned(),
            index: link_index,
            mac: Mac::holder(addr),
        },
        mtu: MTU,
        bridge: Some(bridge),
    }
}

fn join(target: &mut Namespace, me: &Member, members: &[Member], prefix4: u8, prefix6: u8) {
    target.steps.extend([
        address(me.link, me.v4.into(), prefix4),
        address(me.link, me.v6.into(), prefix6),
        Step::Up { link: me.link },
    ]);
    for other in members
        .iter()
        .filter(|other| other.namespace != me.namespace)
    {
        for family in Family::BOTH {
            target.steps.push(Step::Neighbour {
                link: me.link,
                addr: other.ip(family),
                mac: Mac::holder(other.v4),
            });
        }
    }
}

fn pods_through_nodes(
    target: &mut Namespace,
    link: u32,
    family: Family,
    nodes: &[NodeAddresses],
    address_of: impl Fn(&NodeAddresses) -> Option<IpAddr>,
) {
    for node in nodes {
        if let Some(addr) = address_of(node) {
            target
                .steps
                .push(route(node.pod_cidr(family), Via::Gateway { link, addr }));
        }
    }
}

fn both(of: impl Fn(Family) -> IpAddr) -> (Ipv4Addr, Ipv6Addr) {
    match (of(Family::Ipv4), of(Family::Ipv6)) {
        (IpAddr::V4(v4), IpAddr::V6(v6)) => (v4, v6),
        other => unreachable!("a plan gives addresses of the family asked for, not {other:?}"),
    }
}

fn address(link: u32, addr: IpAddr, prefix: u8) -> Step {
    Step::Address {
        link,
        addr: IpNet::new_assert(addr, prefix),
    }
}

fn host_address(link: u32, addr: IpAddr) -> Step {
    Step::Address {
        link,
        addr: addr.into(),
    }
}

fn route(to: IpNet, via: Via) -> Step {
    Step::Route {
        to,
        table: MAIN,
        via,
    }
}

/// How the router's own packets get to frontends. Only those of the outside client have a way by their source addresses; a router has
/// nothing to say to a frontend but that a packet was too long for the wire behind it, and that goes to the first node.
fn own_way_to_frontends(plan: &Plan, family: Family) -> Via {
    let outside = plan.topology().outside.as_ref();
    let narrow = outside
        .and_then(|outside| outside.mtu)
        .is_some_and(|mtu| mtu < MTU);
    match plan.nodes().first() {
        Some(first) if narrow => Via::Gateway {
            link: ETH0,
            addr: first.ip(family),
        },
        _ => Via::Unreachable,
    }
}

/// Who is behind a narrow wire asks for segments as if all its wires were wide, like one whose narrow wire is further away. Otherwise
/// nobody would ever send it a segment that is too long, and path MTU discovery would have nothing to discover.
fn asked_segment(family: Family, mtu: u32) -> Option<u32> {
    let headers = match family {
        Family::Ipv4 => 40,
        Family::Ipv6 => 60,
    };
    (mtu < MTU).then(|| MTU - headers)
}

fn default_route(family: Family, link: u32, addr: IpAddr) -> Step {
    route(any(family), Via::Gateway { link, addr })
}

fn any(family: Family) -> IpNet {
    let any = match family {
        Family::Ipv4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::Ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    IpNet::new_assert(any, 0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::topology::{ClientSpec, Topology};

    fn plan() -> Plan {
        let mut topology = Topology::uniform(2, 1);
        topology.pods[1].mtu = Some(1400);
        topology.nodes[1].networks = vec!["storage".to_owned()];
        for (name, network) in [("neighbour", NODE_NETWORK), ("disk", "storage")] {
            topology.clients.push(ClientSpec {
                name: name.to_owned(),
                network: network.to_owned(),
                through: (network == NODE_NETWORK).then(|| "node1".to_owned()),
            });
        }
        Plan::new(&topology).unwrap()
    }

    #[test]
    fn a_small_world_in_commands() {
        let plan = plan();
        let blueprint = world(&plan);
        let pods: Vec<_> = plan.pods().iter().filter_map(|p| pod(&plan, p)).collect();
        let mut text = String::new();
        let wires = pods.iter().map(|pod| &pod.wire);
        for wire in blueprint.wires.iter().chain(wires) {
            let Wire {
                near,
                far,
                mtu,
                bridge,
            } = wire;
            text += &format!(
                "wire {} {} #{} {:?} -- {} {} #{} {:?} mtu {mtu} bridge {bridge:?}\n",
                near.namespace,
                near.link,
                near.index,
                near.mac,
                far.namespace,
                far.link,
                far.index,
                far.mac
            );
        }
        for namespace in blueprint
            .namespaces
            .iter()
            .chain(pods.iter().map(|pod| &pod.namespace))
        {
            text += &format!("\n{} ({:?})\n", namespace.name, namespace.role);
            for step in &namespace.steps {
                text += &format!("  {step}\n");
            }
            for pod in pods
                .iter()
                .filter(|pod| pod.wire.near.namespace == namespace.name)
            {
                for step in &pod.node_steps {
                    text += &format!("  {step} (for {})\n", pod.namespace.name);
                }
            }
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn the_ends_of_a_wire_have_different_indexes_and_no_index_is_used_twice() {
        let mut topology = Topology::uniform(crate::plan::MAX_NODES, 2);
        for node in &mut topology.nodes {
            node.networks = vec!["a".to_owned(), "b".to_owned()];
        }
        let plan = Plan::new(&topology).unwrap();
        let blueprint = world(&plan);
        let pods: Vec<_> = plan.pods().iter().filter_map(|p| pod(&plan, p)).collect();
        let mut used = BTreeSet::new();
        for bridge in &blueprint.namespaces[0].bridges {
            assert!(used.insert(("fabric".to_owned(), bridge.index)));
        }
        let mut macs = BTreeSet::new();
        for wire in blueprint
            .wires
            .iter()
            .chain(pods.iter().map(|pod| &pod.wire))
        {
            assert_ne!(wire.near.index, wire.far.index, "{wire:?}");
            for end in [&wire.near, &wire.far] {
                assert!(used.insert((end.namespace.clone(), end.index)), "{end:?}");
                assert!(macs.insert(end.mac.0), "{end:?}");
                assert!(end.link.len() < 16, "{end:?}");
            }
        }
    }
}
