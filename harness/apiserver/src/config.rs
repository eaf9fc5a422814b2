//! What an embedded API server is made of: address ranges, controllers, extra resources.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use crate::registry::ResourceType;

/// The settings of one [`ApiServer`](crate::ApiServer).
///
/// The default is the dual-stack plan of the netns provider.
#[derive(Clone, Debug)]
pub struct Config {
    /// The ranges ClusterIPs are allocated from, at most one per family. The first one's family is the primary family.
    pub service_cidrs: Vec<IpNet>,
    /// The ports NodePorts (and health check node ports) are allocated from.
    pub node_port_range: RangeInclusive<u16>,
    /// Whether EndpointSlices are derived from Pods and Service selectors.
    pub endpointslice_controller: bool,
    /// The addresses the server's certificate is valid for, besides the loopback addresses.
    pub server_addresses: Vec<IpAddr>,
    /// The DNS names the server's certificate is valid for, besides `localhost` and `kubernetes.default.svc`.
    pub server_names: Vec<String>,
    /// Resources served besides the built-in ones, as plain JSON objects.
    pub extra_resources: Vec<ResourceType>,
    /// Whether a write into a namespace that does not exist makes that namespace. Kubernetes answers 404.
    pub create_missing_namespaces: bool,
    /// How many events per resource a watch may lag behind before it is told 410 Gone.
    pub watch_window: usize,
    /// How often a watch that allows bookmarks gets one. Kubernetes sends about one a minute.
    pub bookmark_interval: Duration,
    /// The version that `/version` reports, such as `v1.36.0`.
    pub version: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            service_cidrs: vec![
                IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 0)), 16),
                IpNet::new_assert(
                    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0)),
                    112,
                ),
            ],
            node_port_range: 30000..=32767,
            endpointslice_controller: true,
            server_addresses: Vec::new(),
            server_names: Vec::new(),
            extra_resources: Vec::new(),
            create_missing_namespaces: false,
            watch_window: 200_000,
            bookmark_interval: Duration::from_secs(60),
            version: "v1.36.0".to_owned(),
        }
    }
}
