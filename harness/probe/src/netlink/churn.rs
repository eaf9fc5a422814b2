//! Links and addresses that come and go, to disturb whoever reads them; and an own reader that shows that they do.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;

use super::{Netlink, route};
use crate::proto::{Churn, Churned};

/// A churn that runs.
pub(crate) struct Running {
    counts: Arc<Counts>,
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
}

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    links: AtomicU64,
    addresses: AtomicU64,
    dumps: AtomicU64,
    interrupted: AtomicU64,
}

impl Counts {
    /// Whether to go on, after the pause.
    fn pause(&self, pause: Duration) -> bool {
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
        !self.stop.load(Ordering::Relaxed)
    }

    fn so_far(&self) -> Churned {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Churned {
            links: read(&self.links),
            addresses: read(&self.addresses),
            dumps: read(&self.dumps),
            interrupted_dumps: read(&self.interrupted),
        }
    }
}

/// Starts a churn: a thread per kind of change, and one that dumps. Blocks until all links are there.
pub(crate) fn start(churn: &Churn) -> anyhow::Result<Running> {
    let counts = Arc::new(Counts::default());
    let pause = Duration::from_micros(churn.pause_us.into());
    let (links, addresses) = (churn.links, churn.addresses);
    let mut running = Running {
        counts: counts.clone(),
        threads: Vec::new(),
    };
    let spawn = |name: &str, work: Box<dyn FnOnce() -> anyhow::Result<()> + Send>| {
        std::thread::Builder::new()
            .name(name.into())
            .spawn(work)
            .context("cannot start a thread")
    };
    if links > 0 {
        fill_links(&counts, links)?;
        let counts = counts.clone();
        running.threads.push(spawn(
            "churn-links",
            Box::new(move || churn_links(&counts, links, pause)),
        )?);
    }
    if addresses > 0 {
        let counts = counts.clone();
        running.threads.push(spawn(
            "churn-addresses",
            Box::new(move || churn_addresses(&counts, addresses, pause)),
        )?);
    }
    if churn.dump {
        running
            .threads
            .push(spawn("churn-dump", Box::new(move || dump(&counts)))?);
    }
    Ok(running)
}

impl Running {
    /// Stops it, removes what it left, and tells what it did. Blocks for a few changes' time.
    pub fn stop(self) -> anyhow::Result<Churned> {
        self.counts.stop.store(true, Ordering::Relaxed);
        let results: Vec<_> = self.threads.into_iter().map(JoinHandle::join).collect();
        for result in results {
            result
                .map_err(|_| anyhow::anyhow!("a churn thread panicked"))?
                .context("churn failed")?;
        }
        Ok(self.counts.so_far())
    }

    /// What it did so far.
    pub fn so_far(&self) -> Churned {
        self.counts.so_far()
    }
}

/// Replaces one of the pairs: `slot` tells which.
fn replace_link(netlink: &mut Netlink, counts: &Counts, slot: u32) -> anyhow::Result<()> {
    let (name, peer) = (format!("churn{slot}a"), format!("churn{slot}b"));
    route::link_del(netlink, &name).context("cannot delete a veth pair")?;
    route::veth_add(netlink, &name, &peer).context("cannot make a veth pair")?;
    let index = route::index_of(&name)?;
    let v4 = IpAddr::V4(Ipv4Addr::new(192, 0, 2, (slot % 254 + 1) as u8));
    let v6 = format!("2001:db8:dead::{:x}", slot + 1).parse::<IpAddr>()?;
    for (address, length) in [(v4, 32), (v6, 128)] {
        route::address_add_at_once(netlink, index, address, length)
            .context("cannot add an address")?;
    }
    counts.links.fetch_add(1, Ordering::Relaxed);
    counts.addresses.fetch_add(2, Ordering::Relaxed);
    Ok(())
}

/// Makes `count` pairs with two addresses each (from 192.0.2.0/24 and 2001:db8:dead::/64, documentation ranges): dumps are long, and can be
/// interrupted, from the beginning.
fn fill_links(counts: &Counts, count: u32) -> anyhow::Result<()> {
    let mut netlink = route::open()?;
    let made = (0..count).try_for_each(|slot| replace_link(&mut netlink, counts, slot));
    if made.is_err() {
        remove_links(&mut netlink, count)?;
    }
    made
}

/// Replaces the oldest of `count` pairs again and again, and removes all of them at the end.
fn churn_links(counts: &Counts, count: u32, pause: Duration) -> anyhow::Result<()> {
    let mut netlink = route::open()?;
    let mut slot = 0;
    let result = loop {
        if let Err(e) = replace_link(&mut netlink, counts, slot) {
            break Err(e);
        }
        slot = (slot + 1) % count;
        if !counts.pause(pause) {
            break Ok(());
        }
    };
    remove_links(&mut netlink, count)?;
    result
}

fn remove_links(netlink: &mut Netlink, count: u32) -> anyhow::Result<()> {
    (0..count).try_for_each(|slot| {
        route::link_del(netlink, &format!("churn{slot}a")).context("cannot delete a veth pair")
    })
}

/// Keeps up to `count` addresses on `lo` (from 198.18.0.0/15, the benchmark range) and replaces the oldest again and again.
fn churn_addresses(counts: &Counts, count: u32, pause: Duration) -> anyhow::Result<()> {
    let mut netlink = route::open()?;
    let lo = route::index_of("lo")?;
    let count = count.min(1 << 16);
    let address = |slot: u32| {
        IpAddr::V4(Ipv4Addr::from(
            u32::from(Ipv4Addr::new(198, 18, 0, 0)) + slot,
        ))
    };
    let mut slot = 0;
    let result = loop {
        let mut replace = || -> std::io::Result<()> {
            route::address_del(&mut netlink, lo, address(slot), 32)?;
            route::address_add_at_once(&mut netlink, lo, address(slot), 32)
        };
        if let Err(e) = replace() {
            break Err(e).context("cannot change an address of lo");
        }
        counts.addresses.fetch_add(1, Ordering::Relaxed);
        slot = (slot + 1) % count;
        if !counts.pause(pause) {
            break Ok(());
        }
    };
    for slot in 0..count {
        route::address_del(&mut netlink, lo, address(slot), 32)
            .context("cannot delete an address of lo")?;
    }
    result
}

fn dump(counts: &Counts) -> anyhow::Result<()> {
    let mut netlink = route::open()?;
    let mut tables = route::Table::ALL.into_iter().cycle();
    // A breath between two dumps: they hold the lock that the changes need.
    while counts.pause(Duration::from_micros(100)) {
        let Some(table) = tables.next() else {
            break;
        };
        let interrupted = route::dump_marked(&mut netlink, table)
            .with_context(|| format!("cannot dump {table:?}"))?;
        counts.dumps.fetch_add(1, Ordering::Relaxed);
        counts
            .interrupted
            .fetch_add(u64::from(interrupted), Ordering::Relaxed);
    }
    Ok(())
}
