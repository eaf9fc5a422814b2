//! Network namespaces as PID 1 holds them: made, entered, wired.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use netlink_packet_route::link::LinkFlags;
use nix::sched::{CloneFlags, setns, unshare};

use crate::blueprint::{self, Namespace, Need, Role, Step, Wire};
use crate::error::Fault;
use crate::netlink::{self, Change, Netlink};

/// It takes microseconds; this bounds a machine that has come to a stop.
const READY: Duration = Duration::from_secs(30);

/// One network namespace.
pub(super) struct Net {
    fd: OwnedFd,
    netlink: Netlink,
}

/// All network namespaces of the world, by name.
#[derive(Default)]
pub(super) struct Nets {
    by_name: BTreeMap<String, Net>,
}

impl Nets {
    /// Makes a namespace; the calling process is in it afterwards.
    pub fn create(&mut self, name: &str, role: Role) -> Result<(), Fault> {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|e| Fault::user_namespace("make a network namespace", e))?;
        let fd = fs::File::open("/proc/self/ns/net")
            .map_err(|e| Fault::system("hold a network namespace", e))?
            .into();
        for (path, value, need) in blueprint::sysctls(role) {
            match fs::write(format!("/proc/sys/{path}"), value) {
                Err(error) if need == Need::Required => {
                    return Err(Fault::user_namespace(
                        format!("set /proc/sys/{path}"),
                        error,
                    ));
                }
                _ => {}
            }
        }
        let netlink = Netlink::open().map_err(|e| Fault::system("open a netlink socket", e))?;
        self.by_name.insert(name.to_owned(), Net { fd, netlink });
        Ok(())
    }

    /// Moves the calling process into a namespace.
    pub fn enter(&self, name: &str) -> Result<(), Fault> {
        setns(self.fd(name)?, CloneFlags::CLONE_NEWNET)
            .map_err(|e| Fault::system(format!("enter the network of {name}"), e))
    }

    /// Forgets a namespace. It ends with the last process in it.
    pub fn remove(&mut self, name: &str) {
        self.by_name.remove(name);
    }

    /// Makes bridges, then wires.
    pub fn wire(&mut self, namespaces: &[&Namespace], wires: &[&Wire]) -> Result<(), Fault> {
        let mut changes: BTreeMap<&str, Vec<Change>> = BTreeMap::new();
        for namespace in namespaces.iter().filter(|n| !n.bridges.is_empty()) {
            let bridges = namespace.bridges.iter().map(netlink::add_bridge);
            changes.entry(&namespace.name).or_default().extend(bridges);
        }
        for wire in wires {
            let change = netlink::add_wire(wire, self.fd(&wire.far.namespace)?);
            changes
                .entry(&wire.near.namespace)
                .or_default()
                .push(change);
        }
        for (name, changes) in changes {
            self.get(name)?.netlink.apply(changes)?;
        }
        Ok(())
    }

    /// Takes a namespace through its steps.
    pub fn set_up(&mut self, name: &str, steps: &[Step]) -> Result<(), Fault> {
        self.get(name)?
            .netlink
            .apply(steps.iter().map(|step| netlink::step(step, name)))
    }

    /// Waits until what these steps set up carries packets: links have a carrier, and addresses are used.
    ///
    /// The kernel does the last part of both in work queues: a link's first end hears later of the second one, and an IPv6
    /// address gets the route that makes it local in the work that would otherwise detect duplicates.
    pub fn await_ready(&mut self, name: &str, steps: &[Step]) -> Result<(), Fault> {
        let deadline = Instant::now() + READY;
        let net = self.get(name)?;
        let ready = LinkFlags::Running | LinkFlags::LowerUp;
        for link in blueprint::links_up(steps) {
            await_that(
                deadline,
                || format!("get a carrier on #{link} of {name}"),
                || {
                    let flags = net.netlink.link_flags(link)?;
                    Ok(flags.is_some_and(|flags| flags.contains(ready)))
                },
            )?;
        }
        for addr in blueprint::addresses6(steps) {
            await_that(
                deadline,
                || format!("take packets for {addr} in {name}"),
                || net.netlink.is_local(addr),
            )?;
        }
        Ok(())
    }

    /// Removes an interface.
    pub fn delete_link(&mut self, name: &str, index: u32) -> Result<(), Fault> {
        self.get(name)?.netlink.apply([netlink::delete_link(index)])
    }

    fn fd(&self, name: &str) -> Result<BorrowedFd<'_>, Fault> {
        let net = self
            .by_name
            .get(name)
            .ok_or_else(|| Fault::no_such_place(name))?;
        Ok(net.fd.as_fd())
    }

    fn get(&mut self, name: &str) -> Result<&mut Net, Fault> {
        self.by_name
            .get_mut(name)
            .ok_or_else(|| Fault::no_such_place(name))
    }
}

fn await_that(
    deadline: Instant,
    step: impl Fn() -> String,
    mut done: impl FnMut() -> io::Result<bool>,
) -> Result<(), Fault> {
    while !done().map_err(|e| Fault::system(step(), e))? {
        if Instant::now() > deadline {
            return Err(Fault::system(step(), nix::Error::ETIMEDOUT));
        }
        // There is nothing to wait on but the notifications of every namespace; this is over in microseconds.
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}
