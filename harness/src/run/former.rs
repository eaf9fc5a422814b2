//! Every frontend and endpoint that an attempt has had, so that those that are gone can be asked after.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use oracle::{Destination, Frontend, FrontendKind};

/// What was there at some time, whether it still is or not.
#[derive(Debug, Default)]
pub struct Former {
    frontends: BTreeMap<Destination, Frontend>,
    endpoints: BTreeSet<IpAddr>,
    /// Services that had session affinity.
    sticky: BTreeSet<(String, String)>,
}

impl Former {
    /// Adds what the objects say now.
    pub fn remember(&mut self, cluster: &oracle::Cluster) {
        for frontend in oracle::frontends(cluster) {
            self.frontends.insert(frontend.destination(), frontend);
        }
        let addresses = cluster
            .slices
            .iter()
            .flat_map(oracle::EndpointSlice::endpoints)
            .flat_map(|endpoint| &endpoint.addresses)
            .filter_map(|address| oracle::parse_ip(address));
        self.endpoints.extend(addresses);
        let sticky = cluster
            .services
            .iter()
            .filter(|service| service.affinity().is_some());
        self.sticky.extend(sticky.map(oracle::Service::key));
    }

    /// Whether clients of this Service ever stuck to their endpoints.
    pub fn had_affinity(&self, service: &(String, String)) -> bool {
        self.sticky.contains(service)
    }

    /// Frontends that are none any more.
    pub fn gone<'a>(
        &'a self,
        current: &'a BTreeSet<Destination>,
    ) -> impl Iterator<Item = &'a Frontend> {
        self.frontends
            .iter()
            .filter(|(destination, _)| !current.contains(destination))
            .map(|(_, frontend)| frontend)
    }

    /// Where there ever was one.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        self.frontends.keys()
    }

    /// Addresses of frontends and endpoints that belong to Services alone: not those of nodes.
    pub fn addresses(&self, cluster: &oracle::Cluster) -> BTreeSet<IpAddr> {
        let frontends = self
            .frontends
            .values()
            .filter(|frontend| frontend.kind != FrontendKind::NodePort)
            .map(|frontend| frontend.ip);
        frontends
            .chain(self.endpoints.iter().copied())
            .filter(|ip| cluster.node_owning(*ip).is_none())
            .collect()
    }

    /// Numbers of all NodePorts.
    pub fn node_ports(&self) -> BTreeSet<u16> {
        self.frontends
            .values()
            .filter(|frontend| frontend.kind == FrontendKind::NodePort)
            .map(|frontend| frontend.port)
            .collect()
    }

    /// How many frontends and endpoints there were.
    pub fn len(&self) -> usize {
        self.frontends.len() + self.endpoints.len()
    }
}
