//! The elements of the ruleset: everything that differs from Service to Service.
//!
//! An [`Element`] is a typed value. `text.rs` writes it the way `nft` reads it, `nft/encode.rs` the way the kernel does. It knows nothing of
//! Services; `compile.rs` makes elements out of those.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

/// An address family. Every set and map exists once for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, in the order in which they are rendered.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The digit that names end with.
    pub fn digit(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }
}

/// A transport protocol of a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol with this number in the IP header.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.number() == number)
    }

    /// The protocol that the API calls `name`.
    pub fn from_api(name: &str) -> Option<Self> {
        match name {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// An address, protocol and port at which clients reach a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frontend {
    /// A cluster IP, a node's address, an external IP or a load balancer IP.
    pub ip: IpAddr,
    /// The protocol of the Service port.
    pub protocol: Protocol,
    /// The Service's port, or its node port where `ip` is a node's address.
    pub port: u16,
}

/// Whose choice of endpoints is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum View {
    /// Everybody's, as long as there is no other.
    Common,
    /// That of clients beyond the cluster when `externalTrafficPolicy` is `Local`.
    External,
}

/// What happens to a new connection to a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// It is dropped: a `Local` traffic policy and no endpoint on this node.
    Drop,
    /// It is refused: no usable endpoint anywhere.
    Refuse,
    /// One of `endpoints` endpoints gets it.
    Balance {
        /// Which endpoint map holds them.
        view: View,
        /// How many endpoints there are; more than 0.
        endpoints: u32,
        /// Whether a client that was here before returns to its endpoint (`sessionAffinity: ClientIP`).
        sticky: bool,
    },
}

/// What a set or map is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetKind {
    /// Map: slot and frontend to endpoint, for [`View::Common`].
    Endpoints,
    /// Map: slot and frontend to endpoint, for [`View::External`].
    ExternalEndpoints,
    /// Map: client and frontend to the endpoint that the client used last. Filled by packets.
    Affinity,
    /// Set: endpoints' addresses and ports; INVALID segments from there are not passed on.
    Targets,
    /// Set: an endpoint's address twice, for endpoints that may call themselves on this node.
    Hairpin,
    /// Set: frontends whose external traffic gets the node's address as its source.
    Masquerade,
    /// Set: frontends with session affinity of this many seconds.
    Sticky(u32),
    /// Set: frontends that only some sources may use.
    Restricted,
    /// Set: frontend and permitted source.
    SourceRanges,
    /// Map: frontend to verdict, for clients beyond the cluster where [`View::External`] differs.
    External,
    /// Map: frontend to verdict.
    Services,
    /// Set: cluster IPs; what reaches them at another port is refused.
    ClusterIps,
    /// Set: sources that use a cluster IP without being masqueraded.
    ClusterSources,
    /// Set: pods that are "in the cluster" for `externalTrafficPolicy: Local`.
    Pods,
    /// Set: sources on this node, whose replies pass this node anyway.
    LocalSources,
}

impl SetKind {
    /// Everything that exists whatever the Services are, in the order in which elements are added so that no intermediate state is wrong:
    /// endpoints before the verdicts that lead to them, the refusal of unused ports last.
    pub const FIXED: [Self; 14] = [
        Self::ClusterSources,
        Self::Pods,
        Self::LocalSources,
        Self::Endpoints,
        Self::ExternalEndpoints,
        Self::Affinity,
        Self::Targets,
        Self::Hairpin,
        Self::Masquerade,
        Self::SourceRanges,
        Self::Restricted,
        Self::External,
        Self::Services,
        Self::ClusterIps,
    ];

    /// Whether its keys are ranges. The kernel refuses ranges that overlap, so old ones go before new ones come.
    pub fn has_ranges(self) -> bool {
        matches!(
            self,
            Self::SourceRanges | Self::ClusterSources | Self::Pods | Self::LocalSources
        )
    }

    /// The place in the order of additions; removals go the other way round.
    pub fn rank(self) -> usize {
        let place = match self {
            // Recording an affinity that nobody looks up yet does no harm.
            Self::Sticky(_) => Self::Masquerade,
            other => other,
        };
        Self::FIXED
            .iter()
            .position(|kind| *kind == place)
            .unwrap_or_default()
    }
}

/// A set or map of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId {
    /// What it is for.
    pub kind: SetKind,
    /// The family of the addresses in it.
    pub family: Family,
}

impl SetId {
    /// The set of this kind and family.
    pub fn new(kind: SetKind, family: Family) -> Self {
        Self { kind, family }
    }

    /// Whether its elements carry data.
    pub fn is_map(self) -> bool {
        matches!(
            self.kind,
            SetKind::Endpoints
                | SetKind::ExternalEndpoints
                | SetKind::Affinity
                | SetKind::External
                | SetKind::Services
        )
    }

    /// Whether it maps to verdicts.
    pub fn is_verdict_map(self) -> bool {
        matches!(self.kind, SetKind::External | SetKind::Services)
    }

    /// The set with this name in the kernel, the reverse of `Display`.
    pub fn parse(name: &str) -> Option<Self> {
        if let Some(rest) = name.strip_prefix("sticky") {
            let (digit, seconds) = rest.split_once('-')?;
            let family = Family::ALL
                .into_iter()
                .find(|f| f.digit().to_string() == digit)?;
            return Some(Self::new(SetKind::Sticky(seconds.parse().ok()?), family));
        }
        SetKind::FIXED
            .into_iter()
            .flat_map(|kind| Family::ALL.map(|family| Self::new(kind, family)))
            .find(|set| set.to_string() == name)
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit = self.family.digit();
        let stem = match self.kind {
            SetKind::Endpoints => "endpoints",
            SetKind::ExternalEndpoints => "external-endpoints",
            SetKind::Affinity => "affinity",
            SetKind::Targets => "targets",
            SetKind::Hairpin => "hairpin",
            SetKind::Masquerade => "masquerade",
            SetKind::Sticky(seconds) => return write!(f, "sticky{digit}-{seconds}"),
            SetKind::Restricted => "restricted",
            SetKind::SourceRanges => "source-ranges",
            SetKind::External => "external",
            SetKind::Services => "services",
            SetKind::ClusterIps => "cluster-ips",
            SetKind::ClusterSources => "cluster-sources",
            SetKind::Pods => "pods",
            SetKind::LocalSources => "local-sources",
        };
        write!(f, "{stem}{digit}")
    }
}

/// The key of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// An address, protocol and port.
    Frontend(Frontend),
    /// One of the places of a frontend's endpoints, counted from 0.
    Slot(u32, Frontend),
    /// An address.
    Ip(IpAddr),
    /// A packet from an address to the same address.
    Itself(IpAddr),
    /// A range of addresses.
    Net(IpNet),
    /// A frontend and a range of sources.
    Source(Frontend, IpNet),
    /// A client address and a frontend.
    Client(IpAddr, Frontend),
}

/// The data of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Data {
    /// Of a set: none.
    None,
    /// Of a dispatch map.
    Verdict(Verdict),
    /// Of an endpoint or affinity map: where the connection goes.
    Endpoint(IpAddr, u16),
}

/// One element of one set or map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Element {
    /// Where it is.
    pub set: SetId,
    /// What is looked up.
    pub key: Key,
    /// What is found.
    pub data: Data,
}
