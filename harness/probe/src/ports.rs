//! Source ports that nobody used before: connection tracking remembers a flow by its ports longer than the flow lasts.
//!
//! A UDP flow is remembered for half a minute and longer, a SYN that nobody answered for two. The kernel chooses ports at random, so one of a
//! few hundred sockets would get a port of such a flow and be part of it, with its old endpoint: no new flow at all.
//!
//! Agents may share a network namespace. They take their ports in blocks; who holds a block has the abstract socket of its name, which is
//! the namespace's own and is given back by the kernel when the agent ends.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as Name, UnixDatagram};
use std::sync::Mutex;

use socket2::Socket;

use crate::proto::now;

/// Below the ports that the kernel chooses from, that NodePorts have and that scenarios name; above those of servers, a proxy's own
/// (10256) included.
const PORTS: Range<u16> = 11_000..30_000;

/// Ports of a block: enough for a whole attempt of most agents, and two agents of a namespace are far from taking all.
const BLOCK: u16 = 500;

/// The ports that one agent takes.
pub(crate) struct Fresh {
    /// Distinguishes the blocks of tests from those of agents.
    scope: &'static str,
    /// Numbers of the blocks held, in the order of their use, each with what proves it.
    held: Vec<(u16, UnixDatagram)>,
    /// Which of them is in use, and its ports that were not used yet.
    current: usize,
    left: Range<u16>,
}

impl Fresh {
    const fn new(scope: &'static str) -> Fresh {
        Fresh {
            scope,
            held: Vec::new(),
            current: 0,
            left: 0..0,
        }
    }

    /// The next port: one that no agent of this namespace has used, or when all were used, the one whose last use by this agent is longest ago.
    fn next(&mut self) -> u16 {
        loop {
            if let Some(port) = self.left.next() {
                return port;
            }
            match self.lease() {
                Some((block, lease)) => {
                    self.current = self.held.len();
                    self.held.push((block, lease));
                }
                None => self.current = (self.current + 1) % self.held.len().max(1),
            }
            // Without any block of its own the agent has all ports: many agents, or no abstract sockets.
            self.left = match self.held.get(self.current) {
                Some((block, _)) => ports(*block),
                None => PORTS,
            };
        }
    }

    /// Takes a block that nobody holds.
    fn lease(&self) -> Option<(u16, UnixDatagram)> {
        let blocks = (PORTS.end - PORTS.start) / BLOCK;
        // Whoever comes after an agent that ended starts elsewhere.
        let start = match self.held.last() {
            Some((block, _)) => block + 1,
            None => ((now() >> 10) % u64::from(blocks)) as u16,
        };
        (0..blocks).find_map(|n| {
            let block = (start + n) % blocks;
            let name = format!("{}/ports/{block}", self.scope);
            let name = Name::from_abstract_name(name).ok()?;
            Some((block, UnixDatagram::bind_addr(&name).ok()?))
        })
    }
}

fn ports(block: u16) -> Range<u16> {
    let start = PORTS.start + block * BLOCK;
    start..start + BLOCK
}

/// The address of its family that is none in particular.
pub(crate) fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Binds a socket to a port that was not used before.
pub(crate) fn bind(socket: &Socket, source: IpAddr) -> io::Result<()> {
    static FRESH: Mutex<Fresh> = Mutex::new(Fresh::new("probe"));
    let mut tries = 100;
    loop {
        let port = FRESH
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .next();
        match socket.bind(&SocketAddr::new(source, port).into()) {
            // A server, or a connection that was not closed in the way of this crate.
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && tries > 0 => tries -= 1,
            bound => return bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn two_agents_of_a_namespace_never_use_one_port() {
        let (mut one, mut other) = (Fresh::new("probe-test-two"), Fresh::new("probe-test-two"));
        let mut seen = BTreeSet::new();
        for _ in 0..3 * BLOCK {
            assert!(seen.insert(one.next()));
            assert!(seen.insert(other.next()));
        }
        assert!(seen.iter().all(|port| PORTS.contains(port)));
    }

    #[test]
    fn a_port_comes_round_after_all_others() {
        let mut fresh = Fresh::new("probe-test-all");
        let round = usize::from((PORTS.end - PORTS.start) / BLOCK * BLOCK);
        let first: Vec<u16> = (0..round).map(|_| fresh.next()).collect();
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), round);
        let again: Vec<u16> = (0..round).map(|_| fresh.next()).collect();
        assert_eq!(first, again);
    }

    #[test]
    fn an_agent_that_finds_no_block_still_gets_ports() {
        let mut first = Fresh::new("probe-test-none");
        while let Some(lease) = first.lease() {
            first.held.push(lease);
        }
        let mut late = Fresh::new("probe-test-none");
        assert!(late.held.is_empty());
        assert_eq!([late.next(), late.next()], [PORTS.start, PORTS.start + 1]);
    }
}
