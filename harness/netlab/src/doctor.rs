//! What this machine can do for worlds, found out by doing each thing in a throwaway one.
//!
//! What a kernel claims and what a container lets through differ, so nothing here is read from a
//! configuration where it can be tried.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use netlink_packet_core::{
    DefaultNla, Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage,
};
use netlink_packet_route::{RouteNetlinkMessage, link::LinkLayerType};
use netlink_sys::{Socket, SocketAddr, protocols};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use crate::blueprint::{Bridge, End, Mac, Step, Wire};
use crate::error::{Fault, WorldError};
use crate::netlink::{self, Change, Netlink};
use crate::wire::{self, FromWorld};
use crate::world::{Options, SUBCOMMAND};

/// Mode of the hidden subcommand that tries things instead of building.
pub(crate) const MODE: &str = "doctor";

/// One thing that this machine can or cannot do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Short name that does not change, such as `veth`.
    pub id: &'static str,
    /// What was tried.
    pub what: &'static str,
    /// Whether no world works without it. What is not required makes some scenarios skip.
    pub required: bool,
    /// What needs it.
    pub needed_for: &'static str,
    /// Why it does not work; `None` when it does.
    pub missing: Option<String>,
    /// How to get it, when it is missing.
    pub remedy: Option<String>,
}

/// What a trial inside said.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Trial {
    id: String,
    missing: Option<String>,
}

struct Check {
    id: &'static str,
    what: &'static str,
    required: bool,
    needed_for: &'static str,
    remedy: Remedy,
    attempt: fn() -> Result<(), String>,
}

enum Remedy {
    /// Kernel modules to load.
    Modules(&'static str),
    Advice(&'static str),
}

impl Remedy {
    fn text(&self) -> String {
        match self {
            Remedy::Modules(names) => {
                format!("on the host, as root: `modprobe -a {names}`; or use a kernel that has it")
            }
            Remedy::Advice(advice) => (*advice).to_owned(),
        }
    }
}

/// In this order they are tried and shown. The first two are about the namespaces that the others run in.
const CHECKS: [Check; 15] = [
    Check {
        id: "mounts",
        what: "a mount namespace with a file system, /proc and /sys of its own",
        required: true,
        needed_for: "every world",
        remedy: Remedy::Advice(
            "in a container: `--security-opt systempaths=unconfined --security-opt apparmor=unconfined`",
        ),
        attempt: || crate::init::try_root().map_err(text),
    },
    Check {
        id: "network-namespaces",
        what: "a network namespace whose sysctls can be set",
        required: true,
        needed_for: "every world",
        remedy: Remedy::Advice(
            "use a kernel with CONFIG_NET_NS, and raise the sysctl user.max_net_namespaces",
        ),
        attempt: || {
            let path = "/proc/sys/net/ipv4/ip_forward";
            std::fs::write(path, "1").map_err(|e| format!("{path} cannot be set: {e}"))
        },
    },
    Check {
        id: "ipv6",
        what: "IPv6 addresses",
        required: true,
        needed_for: "every world (each has both families)",
        remedy: Remedy::Advice("boot without ipv6.disable=1, on a kernel with CONFIG_IPV6"),
        attempt: || {
            std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "0")
                .map_err(|e| e.to_string())?;
            let addr = ipnet::Ipv6Net::new_assert("fd00::1".parse().map_err(text)?, 128).into();
            change(netlink::step(&Step::Address { link: 1, addr }, "world"))
        },
    },
    Check {
        id: "veth",
        what: "veth pairs",
        required: true,
        needed_for: "every world",
        remedy: Remedy::Modules("veth"),
        attempt: || {
            let end = |link: &str, index| End {
                namespace: "world".to_owned(),
                link: link.to_owned(),
                index,
                mac: Mac([2, 0, 0, 0, 0, index as u8]),
            };
            let own = std::fs::File::open("/proc/self/ns/net").map_err(text)?;
            change(netlink::add_wire(
                &Wire {
                    near: end("near", 10),
                    far: end("far", 11),
                    mtu: 1500,
                    bridge: None,
                },
                own.as_fd(),
            ))
        },
    },
    Check {
        id: "bridge",
        what: "bridges",
        required: true,
        needed_for: "every world",
        remedy: Remedy::Modules("bridge"),
        attempt: || {
            change(netlink::add_bridge(&Bridge {
                name: "bridge".to_owned(),
                index: 10,
                mac: Mac([2, 0, 0, 0, 0, 1]),
            }))
        },
    },
    Check {
        id: "policy-routing",
        what: "routing rules and tables",
        required: true,
        needed_for: "every world (an outside client's address chooses the node)",
        remedy: Remedy::Advice(
            "use a kernel with CONFIG_IP_MULTIPLE_TABLES and CONFIG_IPV6_MULTIPLE_TABLES",
        ),
        attempt: || {
            ["192.0.2.1", "2001:db8::1"]
                .into_iter()
                .try_for_each(|from| {
                    let from = from.parse().map_err(text)?;
                    change(netlink::step(&Step::Rule { from, table: 100 }, "world"))
                })
        },
    },
    Check {
        id: "nf-tables-nat",
        what: "nf_tables with NAT chains in both families",
        required: false,
        needed_for: "the reference proxy, and every proxy that programs nftables or iptables-nft",
        remedy: Remedy::Modules("nf_tables nft_chain_nat nft_nat nft_masq nft_numgen nft_ct"),
        attempt: || [2, 10].into_iter().try_for_each(nat_chain),
    },
    Check {
        id: "conntrack-netlink",
        what: "reading the conntrack table over netlink",
        required: false,
        needed_for: "scenarios that look at or clean up conntrack entries",
        remedy: Remedy::Modules("nf_conntrack_netlink"),
        attempt: || {
            const GET: u16 = (1 << 8) | 1;
            request(
                protocols::NETLINK_NETFILTER,
                &frame(GET, NLM_F_DUMP, &[2, 0, 0, 0]),
            )
        },
    },
    Check {
        id: "af-packet",
        what: "packet sockets",
        required: false,
        needed_for: "captures in the evidence of failed cases",
        remedy: Remedy::Modules("af_packet"),
        attempt: || {
            let all = i32::from((libc::ETH_P_ALL as u16).to_be());
            socket(libc::AF_PACKET, libc::SOCK_RAW, all)
        },
    },
    Check {
        id: "vxlan",
        what: "vxlan links",
        required: false,
        needed_for: "scenarios over an overlay network",
        remedy: Remedy::Modules("vxlan"),
        attempt: || {
            let mut link = LinkMessage::default();
            link.header.link_layer_type = LinkLayerType::Ether;
            link.attributes = vec![
                LinkAttribute::IfName("overlay".to_owned()),
                LinkAttribute::LinkInfo(vec![
                    LinkInfo::Kind(InfoKind::Vxlan),
                    LinkInfo::Data(InfoData::Vxlan(vec![
                        InfoVxlan::Id(1),
                        InfoVxlan::Port(4789),
                    ])),
                ]),
            ];
            let message = RouteNetlinkMessage::NewLink(link);
            change(netlink::create(message, "ip link add overlay type vxlan"))
        },
    },
    Check {
        id: "sctp",
        what: "SCTP sockets",
        required: false,
        needed_for: "scenarios with protocol SCTP",
        remedy: Remedy::Modules("sctp"),
        attempt: || socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
    },
    Check {
        id: "netem",
        what: "the netem queueing discipline",
        required: false,
        needed_for: "scenarios with delay or loss on a wire",
        remedy: Remedy::Modules("sch_netem"),
        attempt: netem,
    },
    Check {
        id: "dummy",
        what: "dummy links",
        required: false,
        needed_for: "proxies that keep service addresses on one (kube-proxy in ipvs mode)",
        remedy: Remedy::Modules("dummy"),
        attempt: || change(netlink::add_plain("dummy0", InfoKind::Dummy)),
    },
    Check {
        id: "ipvs",
        what: "IPVS",
        required: false,
        needed_for: "proxies that use it (kube-proxy in ipvs mode)",
        remedy: Remedy::Modules("ip_vs"),
        attempt: ipvs,
    },
    Check {
        id: "descriptors",
        what: "pidfds and close_range",
        required: true,
        needed_for: "every world",
        remedy: Remedy::Advice("use Linux 5.12 or later"),
        attempt: || {
            // SAFETY: the pid is this process's own, and nothing is open at the end of the descriptor range.
            let (pidfd, closed) = unsafe {
                (
                    libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0),
                    libc::syscall(
                        libc::SYS_close_range,
                        libc::c_uint::MAX,
                        libc::c_uint::MAX,
                        0,
                    ),
                )
            };
            nix::Error::result(pidfd.min(closed))
                .map(drop)
                .map_err(text)
        },
    },
];

/// Tries everything. Takes a fraction of a second, and leaves nothing behind.
pub fn doctor() -> Vec<Finding> {
    doctor_with(&Options::default())
}

/// [`doctor`] with another program to run as a world, see [`Options::harness`].
pub fn doctor_with(options: &Options) -> Vec<Finding> {
    let (trials, failure) = match run(options) {
        Ok(trials) => (trials, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let (missing, remedy) = match &failure {
        Some(WorldError::UserNamespacesForbidden { what, hint }) => {
            (Some(format!("forbidden by {what}")), Some(hint.clone()))
        }
        Some(error) => (Some(error.to_string()), None),
        None => (None, None),
    };
    let mut findings = vec![Finding {
        id: "user-namespaces",
        what: "user, PID, IPC and UTS namespaces",
        required: true,
        needed_for: "every world",
        missing,
        remedy,
    }];
    for check in &CHECKS {
        let missing = match trials.iter().find(|trial| trial.id == check.id) {
            Some(trial) => trial.missing.clone(),
            None => Some("not tried, because what comes before it is missing".to_owned()),
        };
        let remedy = missing.is_some().then(|| check.remedy.text());
        findings.push(Finding {
            id: check.id,
            what: check.what,
            required: check.required,
            needed_for: check.needed_for,
            missing,
            remedy,
        });
    }
    findings
}

fn run(options: &Options) -> Result<Vec<Trial>, WorldError> {
    let failed = |e| WorldError::system("start a throwaway world", e);
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let exe = options
        .harness
        .clone()
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
    // This thread waits for the child, so its parent outlives it.
    let mut command = Command::new(exe);
    command
        .args([SUBCOMMAND, &std::process::id().to_string(), MODE])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().map_err(failed)?;
    drop(command);
    let answer = wire::receive::<FromWorld>(ours.as_fd());
    drop(ours);
    let _ = child.wait();
    match answer.map_err(failed)? {
        Some((FromWorld::Trials(trials), _)) => Ok(trials),
        Some((FromWorld::Fault(fault), _)) => Err(fault.into()),
        _ => Err(WorldError::Gone {
            stderr: String::new(),
        }),
    }
}

/// Runs all checks, as PID 1 of a throwaway world.
pub(crate) fn examine(control: BorrowedFd<'_>) -> Result<(), Fault> {
    let trials = CHECKS
        .iter()
        .map(|check| {
            let fresh = unshare(CloneFlags::CLONE_NEWNET).map_err(text);
            Trial {
                id: check.id.to_owned(),
                missing: fresh.and_then(|()| (check.attempt)()).err(),
            }
        })
        .collect();
    wire::send(control, &FromWorld::Trials(trials), &[])
        .map_err(|e| Fault::system("report findings", e))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn change(change: Change) -> Result<(), String> {
    let mut netlink = Netlink::open().map_err(text)?;
    netlink.apply([change]).map_err(|fault| {
        WorldError::from(Fault {
            kind: crate::error::FaultKind::System,
            ..fault
        })
        .to_string()
    })
}

fn socket(family: i32, kind: i32, protocol: i32) -> Result<(), String> {
    // SAFETY: the descriptor is ours alone and is closed at once.
    unsafe {
        let fd = nix::Error::result(libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol))
            .map_err(text)?;
        libc::close(fd);
    }
    Ok(())
}

/// A base chain of type nat, in a transaction of its own.
fn nat_chain(family: u8) -> Result<(), String> {
    const NFTABLES: u16 = 10;
    let generic = |family: u8, resource: u16| {
        let [high, low] = resource.to_be_bytes();
        vec![family, 0, high, low]
    };
    let message = |kind: u16, flags, attributes: &[DefaultNla]| {
        let mut payload = generic(family, 0);
        payload.extend(attributes_of(attributes));
        frame((NFTABLES << 8) | kind, flags, &payload)
    };
    let name = || DefaultNla::new(1, b"netlab\0".to_vec());
    let hook = [
        DefaultNla::new(1, 0u32.to_be_bytes().to_vec()),
        DefaultNla::new(2, (-100i32).to_be_bytes().to_vec()),
    ];
    let chain = [
        name(),
        DefaultNla::new(3, b"prerouting\0".to_vec()),
        DefaultNla::new(4 | libc::NLA_F_NESTED as u16, attributes_of(&hook)),
        DefaultNla::new(7, b"nat\0".to_vec()),
    ];
    const BATCH_BEGIN: u16 = 16;
    const BATCH_END: u16 = 17;
    const NEW_TABLE: u16 = 0;
    const NEW_CHAIN: u16 = 3;
    let batch = [
        frame(BATCH_BEGIN, 0, &generic(0, NFTABLES)),
        message(NEW_TABLE, NLM_F_CREATE, &[name()]),
        message(NEW_CHAIN, NLM_F_CREATE | NLM_F_ACK, &chain),
        frame(BATCH_END, 0, &generic(0, NFTABLES)),
    ];
    request(protocols::NETLINK_NETFILTER, &batch.concat())
}

fn netem() -> Result<(), String> {
    const NEW_QDISC: u16 = 36;
    let mut payload = vec![0; 4];
    payload.extend(1i32.to_ne_bytes());
    payload.extend(0u32.to_ne_bytes());
    payload.extend(u32::MAX.to_ne_bytes());
    payload.extend(0u32.to_ne_bytes());
    // struct tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter.
    let options: Vec<u8> = [0u32, 1000, 0, 0, 0, 0]
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect();
    payload.extend(attributes_of(&[
        DefaultNla::new(1, b"netem\0".to_vec()),
        DefaultNla::new(2, options),
    ]));
    let flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK;
    request(protocols::NETLINK_ROUTE, &frame(NEW_QDISC, flags, &payload))
}

fn ipvs() -> Result<(), String> {
    const CONTROL: u16 = 16;
    let mut payload = vec![3, 1, 0, 0];
    payload.extend(attributes_of(&[DefaultNla::new(2, b"IPVS\0".to_vec())]));
    request(
        protocols::NETLINK_GENERIC,
        &frame(CONTROL, NLM_F_ACK, &payload),
    )
}

fn attributes_of(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

fn frame(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    const HEADER: usize = 16;
    let length = HEADER + payload.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend((length as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(payload);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// Sends messages and takes the first answer for all of them: an error code is an error, anything else is success.
fn request(protocol: isize, bytes: &[u8]) -> Result<(), String> {
    let socket = Socket::new(protocol).map_err(text)?;
    socket
        .send_to(bytes, &SocketAddr::new(0, 0), 0)
        .map_err(text)?;
    let mut answer = vec![0; 32 * 1024];
    let length = socket.recv(&mut &mut answer[..], 0).map_err(text)?;
    match (answer[..length].get(4..6), answer[..length].get(16..20)) {
        (Some([2, 0]), Some(&[a, b, c, d])) => match i32::from_ne_bytes([a, b, c, d]) {
            0 => Ok(()),
            code => Err(text(io::Error::from_raw_os_error(-code))),
        },
        (Some(_), _) => Ok(()),
        _ => Err("the kernel's answer is too short".to_owned()),
    }
}
