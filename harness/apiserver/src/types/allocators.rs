//! Which ClusterIPs and NodePorts are taken: the part of the API server that Services share.
//!
//! Unlike the real allocators these hand out addresses in a fixed order, so that the same scenario gets the same addresses in every run.
//! Like the real ones they leave the lower band of each range to people who ask for an address by number (KEP-3070, KEP-3668), go through the rest
//! before they give a released value out again, and know one number per NodePort whatever its protocol.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

/// An IP family, as `spec.ipFamilies` and `addressType` name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// `IPv4`.
    V4,
    /// `IPv6`.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }

    /// The name the API uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// Reads the name the API uses.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "IPv4" => Some(Self::V4),
            "IPv6" => Some(Self::V6),
            _ => None,
        }
    }

    /// The other family.
    pub fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

/// Why an address or a port could not be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError {
    /// Somebody else holds it.
    #[error("provided {0} is already allocated")]
    Taken(&'static str),
    /// It lies outside of every range.
    #[error("{0}")]
    OutOfRange(String),
    /// All of the range is given out.
    #[error("range is full")]
    Full,
    /// There is no range for this family.
    #[error("{0} is not configured on this cluster")]
    NoRange(&'static str),
}

/// One service CIDR: addresses are `base + offset`, the dynamic ones from `band` on.
#[derive(Clone, Debug)]
struct AddressRange {
    cidr: IpNet,
    base: u128,
    /// Offsets that may be given out: `1..=last`.
    last: u128,
    /// The first offset that is given out dynamically.
    band: u128,
    /// Where the next search begins.
    cursor: u128,
    /// How many addresses of this range are taken.
    taken: u128,
}

impl AddressRange {
    fn new(cidr: IpNet) -> Self {
        let cidr = cidr.trunc();
        let base = to_bits(cidr.network());
        let host_bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len()).min(64);
        let size = 1u128 << host_bits;
        // The subnet address is never given out, nor the IPv4 broadcast address.
        let last = match cidr {
            IpNet::V4(_) => size.saturating_sub(2),
            IpNet::V6(_) => size.saturating_sub(1),
        };
        // The offset formula of KEP-3070: min(max(16, size / 16), 256), and no band at all in tiny ranges.
        let band = if last < 16 {
            0
        } else {
            (last / 16).clamp(16, 256)
        };
        let band = band.min(last.saturating_sub(1)) + 1;
        Self {
            cidr,
            base,
            last,
            band,
            cursor: band,
            taken: 0,
        }
    }

    fn usable(&self, address: IpAddr) -> bool {
        let offset = to_bits(address).wrapping_sub(self.base);
        self.cidr.contains(&address) && (1..=self.last).contains(&offset)
    }

    fn address(&self, offset: u128) -> IpAddr {
        match self.cidr {
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from((self.base + offset) as u32)),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(self.base + offset)),
        }
    }
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The ClusterIPs and NodePorts of one cluster.
#[derive(Clone, Debug)]
pub struct ServiceAllocators {
    ranges: Vec<AddressRange>,
    addresses: HashSet<IpAddr>,
    node_ports: RangeInclusive<u16>,
    ports: HashSet<u16>,
    /// The first port that is given out dynamically.
    port_band: u16,
    port_cursor: u16,
}

impl ServiceAllocators {
    /// Empty allocators. The family of the first CIDR is the cluster's primary one.
    pub fn new(service_cidrs: &[IpNet], node_ports: RangeInclusive<u16>) -> Self {
        let size =
            (u32::from(*node_ports.end()) + 1).saturating_sub(u32::from(*node_ports.start()));
        // The offset formula of KEP-3668: min(max(16, size / 32), 128), and no band in ranges of at most 16 ports.
        let offset = if size <= 16 {
            0
        } else {
            (size / 32).clamp(16, 128)
        };
        let port_band = node_ports.start().saturating_add(offset as u16);
        Self {
            ranges: service_cidrs
                .iter()
                .copied()
                .map(AddressRange::new)
                .collect(),
            addresses: HashSet::new(),
            node_ports,
            ports: HashSet::new(),
            port_band,
            port_cursor: port_band,
        }
    }

    /// The family of a Service that asks for none: that of the first service CIDR.
    pub fn primary_family(&self) -> Family {
        self.ranges
            .first()
            .map_or(Family::V4, |range| Family::of(range.cidr.addr()))
    }

    /// Whether the cluster has a service CIDR of this family.
    pub fn has_family(&self, family: Family) -> bool {
        self.ranges
            .iter()
            .any(|range| Family::of(range.cidr.addr()) == family)
    }

    /// The range of NodePorts, both ends included.
    pub fn node_port_range(&self) -> RangeInclusive<u16> {
        self.node_ports.clone()
    }

    /// Adds a service CIDR (a ServiceCIDR object was created). A CIDR that is there already is left as it is.
    pub fn add_cidr(&mut self, cidr: IpNet) {
        let mut range = AddressRange::new(cidr);
        if !self.ranges.iter().any(|known| known.cidr == range.cidr) {
            range.taken = self.addresses.iter().filter(|a| range.usable(**a)).count() as u128;
            self.ranges.push(range);
        }
    }

    /// Stops giving out addresses of a service CIDR. Addresses that Services hold stay theirs.
    pub fn remove_cidr(&mut self, cidr: IpNet) {
        let cidr = cidr.trunc();
        self.ranges.retain(|range| range.cidr != cidr);
    }

    /// Gives out a ClusterIP of this family: the one that is wanted, or a free one.
    pub fn cluster_ip(
        &mut self,
        family: Family,
        wanted: Option<IpAddr>,
    ) -> Result<IpAddr, AllocationError> {
        if !self.has_family(family) {
            return Err(AllocationError::NoRange(family.name()));
        }
        if let Some(address) = wanted {
            if !self.ranges.iter().any(|range| range.usable(address)) {
                let cidrs: Vec<String> = self
                    .ranges
                    .iter()
                    .filter(|range| Family::of(range.cidr.addr()) == family)
                    .map(|range| range.cidr.to_string())
                    .collect();
                return Err(AllocationError::OutOfRange(format!(
                    "the provided IP ({address}) is not in the valid range. The range of valid IPs is {}",
                    cidrs.join(",")
                )));
            }
            if !self.addresses.insert(address) {
                return Err(AllocationError::Taken("IP"));
            }
            self.count(address, true);
            return Ok(address);
        }
        let found = self
            .ranges
            .iter_mut()
            .filter(|range| Family::of(range.cidr.addr()) == family)
            .find_map(|range| next_address(range, &self.addresses));
        let address = found.ok_or(AllocationError::Full)?;
        self.addresses.insert(address);
        self.count(address, true);
        Ok(address)
    }

    /// Gives out a NodePort (or a healthCheckNodePort): the one that is wanted, or a free one.
    ///
    /// A number belongs to one Service whatever the protocol; ports of one Service that share a number by using different protocols
    /// are the caller's matter.
    pub fn node_port(&mut self, wanted: Option<u16>) -> Result<u16, AllocationError> {
        if let Some(port) = wanted {
            if !self.node_ports.contains(&port) {
                return Err(AllocationError::OutOfRange(format!(
                    "provided port is not in the valid range. The range of valid ports is {}-{}",
                    self.node_ports.start(),
                    self.node_ports.end()
                )));
            }
            return if self.ports.insert(port) {
                Ok(port)
            } else {
                Err(AllocationError::Taken("port"))
            };
        }
        let (start, end) = (*self.node_ports.start(), *self.node_ports.end());
        let upper = (self.port_cursor..=end).chain(self.port_band..self.port_cursor);
        let port = upper
            .chain(start..self.port_band)
            .find(|port| !self.ports.contains(port))
            .ok_or(AllocationError::Full)?;
        if port >= self.port_band {
            self.port_cursor = if port == end {
                self.port_band
            } else {
                port + 1
            };
        }
        self.ports.insert(port);
        Ok(port)
    }

    /// Gives a ClusterIP back. Nothing happens when nobody holds it.
    pub fn release_cluster_ip(&mut self, address: IpAddr) {
        if self.addresses.remove(&address) {
            self.count(address, false);
        }
    }

    /// Gives a NodePort back. Nothing happens when nobody holds it.
    pub fn release_node_port(&mut self, port: u16) {
        self.ports.remove(&port);
    }

    /// Whether somebody holds this ClusterIP.
    pub fn holds_cluster_ip(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// Whether somebody holds this NodePort.
    pub fn holds_node_port(&self, port: u16) -> bool {
        self.ports.contains(&port)
    }

    fn count(&mut self, address: IpAddr, taken: bool) {
        for range in self.ranges.iter_mut().filter(|range| range.usable(address)) {
            range.taken = if taken {
                range.taken + 1
            } else {
                range.taken.saturating_sub(1)
            };
        }
    }
}

/// The next free address: from the cursor up, then the upper band again, and the lower band when nothing else is left.
fn next_address(range: &mut AddressRange, taken: &HashSet<IpAddr>) -> Option<IpAddr> {
    // A full range is known without walking through it.
    if range.taken >= range.last {
        return None;
    }
    let upper = (range.cursor..=range.last).chain(range.band..range.cursor);
    let offset = upper
        .chain(1..range.band)
        .find(|offset| !taken.contains(&range.address(*offset)))?;
    if offset >= range.band {
        range.cursor = if offset == range.last {
            range.band
        } else {
            offset + 1
        };
    }
    Some(range.address(offset))
}
