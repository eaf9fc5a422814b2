//! ClusterIPs and NodePorts that a write takes and gives up: all of them when it succeeds, none when it is refused.

use std::net::IpAddr;

use super::super::{AllocationError, Family, ServiceAllocators};

/// What is taken is given back when the transaction is dropped; what is given up is given up by [`Transaction::commit`].
pub(super) struct Transaction<'a> {
    allocators: &'a mut ServiceAllocators,
    taken_addresses: Vec<IpAddr>,
    taken_ports: Vec<u16>,
    given_addresses: Vec<IpAddr>,
    given_ports: Vec<u16>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(allocators: &'a mut ServiceAllocators) -> Self {
        Self {
            allocators,
            taken_addresses: Vec::new(),
            taken_ports: Vec::new(),
            given_addresses: Vec::new(),
            given_ports: Vec::new(),
        }
    }

    pub(super) fn take_address(
        &mut self,
        family: Family,
        wanted: Option<IpAddr>,
    ) -> Result<IpAddr, AllocationError> {
        let address = self.allocators.cluster_ip(family, wanted)?;
        self.taken_addresses.push(address);
        Ok(address)
    }

    pub(super) fn take_port(&mut self, wanted: Option<u16>) -> Result<u16, AllocationError> {
        let port = self.allocators.node_port(wanted)?;
        self.taken_ports.push(port);
        Ok(port)
    }

    pub(super) fn give_up_address(&mut self, address: IpAddr) {
        self.given_addresses.push(address);
    }

    pub(super) fn give_up_port(&mut self, port: u16) {
        self.given_ports.push(port);
    }

    /// The write succeeds.
    pub(super) fn commit(mut self) {
        self.taken_addresses.clear();
        self.taken_ports.clear();
        for address in std::mem::take(&mut self.given_addresses) {
            self.allocators.release_cluster_ip(address);
        }
        for port in std::mem::take(&mut self.given_ports) {
            self.allocators.release_node_port(port);
        }
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        for address in &self.taken_addresses {
            self.allocators.release_cluster_ip(*address);
        }
        for port in &self.taken_ports {
            self.allocators.release_node_port(*port);
        }
    }
}
