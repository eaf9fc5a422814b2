//! Ephemeral ports of the namespace, held so that others find none: for connections of its own, a program is then told `EADDRNOTAVAIL`.
//!
//! The range that the kernel chooses from is made small first (it belongs to the namespace), and every port of it is bound by a TCP and a UDP
//! socket. Agents' own probes take ports from elsewhere ([`crate::ports`]), and so does the address translation of the kernel.

use std::net::{Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use anyhow::{Context, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::proto::HeldPorts;
use crate::sysctl;

const RANGE: &str = "ipv4/ip_local_port_range";

/// The range while ports are held: above NodePorts and ports of probes, and small enough for a few hundred sockets.
const PORTS: RangeInclusive<u16> = 33_024..=33_151;

/// How many ports there are in it.
pub(crate) const SIZE: u16 = *PORTS.end() - *PORTS.start() + 1;

/// Ports that are held.
#[derive(Debug)]
pub(crate) struct Holding {
    before: String,
    sockets: Vec<Socket>,
}

/// Holds all but `free` ports of the range.
pub(crate) fn hold(free: u16) -> anyhow::Result<(Holding, HeldPorts)> {
    ensure!(
        free < SIZE,
        "{free} free ports are all that there are: {SIZE}"
    );
    let before = sysctl::read(RANGE)?;
    sysctl::write(RANGE, &format!("{} {}", PORTS.start(), PORTS.end()))?;
    // From here on the range is put back, also when something goes wrong.
    let mut holding = Holding {
        before,
        sockets: Vec::new(),
    };
    let mut held = 0;
    for port in PORTS.take(usize::from(SIZE - free)) {
        for kind in [Type::STREAM, Type::DGRAM] {
            match socket(kind, port) {
                Ok(socket) => holding.sockets.push(socket),
                // Somebody else holds it: nobody else gets it.
                Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {}
                Err(e) => return Err(e).with_context(|| format!("cannot hold port {port}")),
            }
        }
        held += 1;
    }
    let left = left()?;
    Ok((
        holding,
        HeldPorts {
            range: SIZE,
            held,
            left,
        },
    ))
}

impl Holding {
    /// Tells how many ports are left to others now, gives all of them back, and makes the range what it was.
    pub fn release(self) -> anyhow::Result<HeldPorts> {
        let left = left()?;
        Ok(HeldPorts {
            range: SIZE,
            held: SIZE - left.min(SIZE),
            left,
        })
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.sockets.clear();
        // The namespace may be on its way out; then nobody needs it.
        let _ = sysctl::write(RANGE, &self.before.replace('\t', " "));
    }
}

/// A socket for both families at a port, bound without any permission to share.
fn socket(kind: Type, port: u16) -> std::io::Result<Socket> {
    let protocol = match kind {
        Type::STREAM => Protocol::TCP,
        _ => Protocol::UDP,
    };
    let socket = Socket::new(Domain::IPV6, kind, Some(protocol))?;
    socket.set_only_v6(false)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    Ok(socket)
}

/// How many TCP ports the kernel still hands out.
fn left() -> anyhow::Result<u16> {
    let mut got = Vec::new();
    while got.len() < usize::from(SIZE) {
        match socket(Type::STREAM, 0) {
            Ok(socket) => got.push(socket),
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => break,
            Err(e) => return Err(e).context("cannot ask for an ephemeral port"),
        }
    }
    Ok(got.len() as u16)
}
