//! Drawings of packet paths. Addresses are those of the worlds: pods of node1 in 10.244.1.0/24, nodes in 10.89.0.0/24.

/// A packet path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drawing {
    /// What requirements call it in `path`.
    pub id: &'static str,
    /// Heading.
    pub title: &'static str,
    /// ASCII, which renders everywhere.
    pub picture: &'static str,
    /// What to see in it.
    pub text: &'static str,
}

/// All of them, in the order of the document.
pub(super) const DRAWINGS: &[Drawing] = &[
    Drawing {
        id: "cluster-ip",
        title: "A pod connects to a ClusterIP",
        picture: r"
   node1                                                  node2
  +------------------------------------------+           +----------------------+
  |  client 10.244.1.11                      |           |  endpoint 10.244.2.11|
  |     |                                    |           |        ^             |
  |     | 1  10.244.1.11:p > 10.96.0.10:80   |           |        | 2           |
  |     v                                    |           |        |             |
  |  [ proxy: choose an endpoint,            |           |        |             |
  |    change the destination ]--------------+-----------+--------+             |
  |     2  10.244.1.11:p > 10.244.2.11:8080  |           |                      |
  +------------------------------------------+           +----------------------+

   reply  10.244.2.11:8080 > 10.244.1.11:p  is translated back on node1:
          10.96.0.10:80    > 10.244.1.11:p
",
        text: "The choice is made on the client's node, once per flow. The source stays the client's own address (SRC-1), so that the \
               endpoint, network policies and logs see who asks; the reply comes back to the node that chose, because that is where the client is.",
    },
    Drawing {
        id: "node-port-cluster",
        title: "A client outside connects to a NodePort, externalTrafficPolicy Cluster",
        picture: r"
  client 10.99.0.12
     |  1  10.99.0.12:p > 10.89.0.11:30080
     v
   node1 10.89.0.11                                       node2 10.89.0.12
  +------------------------------------------+           +----------------------+
  |  [ proxy: choose among all endpoints,    |     2     |  endpoint 10.244.2.11|
  |    change the destination,               |---------->|                      |
  |    masquerade the source ]               |<----------|                      |
  +------------------------------------------+     3     +----------------------+
     |  4  10.89.0.11:30080 > 10.99.0.12:p
     v
   2  10.89.0.11:q > 10.244.2.11:8080       3  10.244.2.11:8080 > 10.89.0.11:q
",
        text: "The endpoint may be on another node. Without masquerading, its reply would go to the client directly, from an address \
               that the client never asked; so the reply has to come back through node1. The price is that the endpoint sees a node for a client (SRC-4).",
    },
    Drawing {
        id: "node-port-local",
        title: "A client outside connects to a NodePort, externalTrafficPolicy Local",
        picture: r"
  client 10.99.0.12                               client 10.99.0.13
     |  10.99.0.12:p > 10.89.0.11:30080              |  10.99.0.13:p > 10.89.0.12:30080
     v                                               v
   node1, with an endpoint                         node2, without an endpoint
  +--------------------------------------+        +--------------------------------+
  |  [ proxy: choose among the endpoints |        |  [ proxy: drop ]               |
  |    of this node, change the          |        |                                |
  |    destination only ]                |        |  healthCheckNodePort: 503      |
  |     v  10.99.0.12:p > 10.244.1.11:8080        +--------------------------------+
  |  endpoint 10.244.1.11                |
  |  healthCheckNodePort: 200            |
  +--------------------------------------+
",
        text: "The endpoint sees the client's own address (SRC-2), because its reply leaves through the node that translated the request in any case. A \
               node without endpoints drops (TP-5) instead of refusing, so that a load balancer that has not noticed yet tries again elsewhere; its health check (HC-1) \
               is what keeps traffic away.",
    },
    Drawing {
        id: "hairpin",
        title: "A pod connects to a Service and is chosen itself",
        picture: r"
   node1
  +-----------------------------------------------------------------+
  |  pod 10.244.1.11                                                |
  |     |  1  10.244.1.11:p > 10.96.0.10:80                         |
  |     v                                                           |
  |  [ proxy: change the destination to 10.244.1.11:8080,           |
  |    and the source too, because it is the same pod ]             |
  |     |  2  10.244.1.1:q > 10.244.1.11:8080                       |
  |     v                                                           |
  |  pod 10.244.1.11                                                |
  |     3  10.244.1.11:8080 > 10.244.1.1:q, translated back:        |
  |        10.96.0.10:80    > 10.244.1.11:p                         |
  +-----------------------------------------------------------------+
",
        text: "With its source unchanged, packet 2 would come from the pod's own address; the pod would answer itself within its own \
               namespace, past the translation, and the connection would never form (SRC-3). This is the only flow to a ClusterIP from a pod whose source is changed.",
    },
    Drawing {
        id: "load-balancer-from-pod",
        title: "A pod connects to a LoadBalancer address",
        picture: r"
   node1                                                            load balancer
  +------------------------------------------+                     203.0.113.10
  |  client 10.244.1.11                      |                          :
  |     |  1  10.244.1.11:p > 203.0.113.10:443                          :
  |     v                                    |                          :
  |  [ proxy: ipMode VIP: short-cut to an    |- - - never - - - - - - ->:
  |    endpoint, policy Cluster;             |
  |    ipMode Proxy: leave alone ]-----------+--- ipMode Proxy only --->:
  |     |  2  > 10.244.2.11:8080             |
  +-----+------------------------------------+
        v
   endpoint on any node
",
        text: "A load balancer need not accept connections from within the cluster, so the proxy answers in its place (SVC-LB-2), with \
               every endpoint allowed whatever externalTrafficPolicy says (TP-6). Where the load balancer does work of its own (ipMode Proxy), the packet leaves the node unchanged (SVC-LB-3).",
    },
    Drawing {
        id: "no-endpoints",
        title: "A Service without usable endpoints",
        picture: r"
  client                          node1
     |  1  SYN or datagram      +----------------------------------------+
     +------------------------->|  [ proxy: nobody to choose ]           |
     |<-------------------------|  TCP: RST, or ICMP port unreachable    |
        2  refused at once      |  UDP: ICMP port unreachable            |
                                +----------------------------------------+
",
        text: "A refusal lets a client fail over within a millisecond; silence costs it a timeout (NOEP-1 to NOEP-3). It also has to reach \
               UDP flows that were translated while there were endpoints: their conntrack entries outlive the rule (UDP-2).",
    },
];

/// A drawing by id.
pub(super) fn drawing(id: &str) -> Option<&'static Drawing> {
    DRAWINGS.iter().find(|drawing| drawing.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawings_render_everywhere() {
        for drawing in DRAWINGS {
            assert!(drawing.picture.is_ascii(), "{}", drawing.id);
            assert!(
                drawing.picture.lines().all(|line| line.len() <= 100),
                "{}",
                drawing.id
            );
        }
    }
}
