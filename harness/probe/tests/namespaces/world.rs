//! Two network namespaces joined by a veth pair, an agent in each, without root.
//!
//! ```text
//!   client 10.7.0.1, fd07::1 ──── veth, MTU 1500 ──── server 10.7.0.2, fd07::2 (forwards)
//!   default route via the server                      10.7.1.0/24, fd07:1::/64  unreachable
//!                                                      10.7.2.0/24, fd07:2::/64  prohibited
//!                                                      10.7.3.0/24, fd07:3::/64  blackhole
//!                                                      port 4000: rejected by the ruleset, with ICMP
//! ```

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use netlink_packet_core::{
    DefaultNla, Emitable, NLA_F_NESTED, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST,
    NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr};
use probe::client::Agent;
use probe::proto::{ConnectSpec, Listener, Protocol};

/// Exit code of the world process where user namespaces are forbidden.
const FORBIDDEN: i32 = 77;

pub const CLIENT4: &str = "10.7.0.1";
pub const CLIENT6: &str = "fd07::1";
pub const SERVER4: &str = "10.7.0.2";
pub const SERVER6: &str = "fd07::2";

/// The running pair.
pub struct World {
    pub client: Agent,
    pub server: Agent,
    // After the agents: dropping them closes the channels, and then the processes end.
    process: Process,
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Why there is no world.
pub enum NoWorld {
    /// This machine forbids user namespaces.
    Forbidden,
    /// Something is broken.
    Failed(String),
}

impl World {
    /// Builds it and waits until packets pass.
    pub async fn build() -> Result<World, NoWorld> {
        let (client, client_end) = UnixStream::pair().unwrap();
        let (server, server_end) = UnixStream::pair().unwrap();
        let fds = [client_end.as_raw_fd(), server_end.as_raw_fd()];
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("__world").args(fds.map(|fd| fd.to_string()));
        // SAFETY: only calls that are allowed between fork and exec.
        unsafe {
            command.pre_exec(move || {
                for fd in fds {
                    libc::fcntl(fd, libc::F_SETFD, 0);
                }
                Ok(())
            });
        }
        let mut world = {
            let process = Process(command.spawn().unwrap());
            drop((client_end, server_end));
            let agent = |stream: UnixStream| {
                stream.set_nonblocking(true).unwrap();
                Agent::new(tokio::net::UnixStream::from_std(stream).unwrap())
            };
            World {
                client: agent(client),
                server: agent(server),
                process,
            }
        };
        if let (Err(e), _) | (_, Err(e)) = (world.client.hello().await, world.server.hello().await)
        {
            let status = world.process.0.wait().unwrap();
            return Err(match status.code() {
                Some(FORBIDDEN) => NoWorld::Forbidden,
                _ => NoWorld::Failed(format!("world ended with {status}: {e}")),
            });
        }
        world.settle().await.map_err(NoWorld::Failed)?;
        Ok(world)
    }

    /// Waits until both families pass in both protocols.
    async fn settle(&self) -> Result<(), String> {
        let listener = |address: &str| Listener {
            id: format!("settle-{address}"),
            identity: "settle".into(),
            protocol: Protocol::Tcp,
            addr: address.parse().unwrap(),
            port: 1,
        };
        self.server
            .serve(vec![listener("0.0.0.0"), listener("::")])
            .await
            .map_err(|e| e.to_string())?;
        let deadline = Instant::now() + Duration::from_secs(20);
        for target in [SERVER4, SERVER6] {
            let spec = ConnectSpec::new(
                Protocol::Tcp,
                std::net::SocketAddr::new(target.parse().unwrap(), 1),
            );
            loop {
                let report = self
                    .client
                    .connect(spec.clone())
                    .await
                    .map_err(|e| e.to_string())?;
                if report.all_answered() {
                    break;
                }
                if Instant::now() > deadline {
                    return Err(format!(
                        "{target} is not reachable: {:?}",
                        report.outcomes()
                    ));
                }
            }
        }
        self.server
            .stop_serving(None, true)
            .await
            .map_err(|e| e.to_string())
    }
}

/// The process that makes the namespaces and becomes the client's agent; it forks the server's. It has one thread.
pub fn main(args: &[String]) -> ! {
    let fd = |i: usize| -> OwnedFd {
        let fd = args[i].parse().unwrap();
        // SAFETY: the descriptor was left open for this process by its parent.
        unsafe { OwnedFd::from_raw_fd(fd) }
    };
    let (client, server) = (fd(0), fd(1));
    // SAFETY: plain system calls in a process of one thread.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let (uid, gid) = (libc::getuid(), libc::getgid());
        if libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) < 0 {
            eprintln!(
                "user namespaces are forbidden: {}",
                std::io::Error::last_os_error()
            );
            libc::_exit(FORBIDDEN);
        }
        let _ = std::fs::write("/proc/self/setgroups", "deny");
        let mapped = std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))
            .and_then(|()| std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")));
        if mapped.is_err() {
            libc::_exit(FORBIDDEN);
        }
    }
    let (mut here, mut there) = UnixStream::pair().unwrap();
    // SAFETY: one thread.
    match unsafe { libc::fork() } {
        0 => {
            drop((client, here));
            // SAFETY: as above.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                assert_eq!(libc::unshare(libc::CLONE_NEWNET), 0);
            }
            there.write_all(&[1]).unwrap();
            there.read_exact(&mut [0]).unwrap();
            let mut route = Route::open();
            route.up("lo");
            route.join("wire", SERVER4, SERVER6);
            for (third, kind) in [
                (1, RouteType::Unreachable),
                (2, RouteType::Prohibit),
                (3, RouteType::BlackHole),
            ] {
                route.special(&format!("10.7.{third}.0"), 24, kind);
                route.special(&format!("fd07:{third}::"), 64, kind);
            }
            // One ICMP error a second for each client would hide most of those that the tests wait for.
            std::fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0").unwrap();
            std::fs::write("/proc/sys/net/ipv6/icmp/ratelimit", "0").unwrap();
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
            reject_port(4000);
            agent(server)
        }
        child => {
            assert!(child > 0);
            drop((server, there));
            here.read_exact(&mut [0]).unwrap();
            let mut route = Route::open();
            route.up("lo");
            route.veth("wire", child as u32);
            route.join("wire", CLIENT4, CLIENT6);
            route.default_via("wire", SERVER4);
            route.default_via("wire", SERVER6);
            here.write_all(&[1]).unwrap();
            agent(client)
        }
    }
}

fn agent(channel: OwnedFd) -> ! {
    let write = channel.try_clone().unwrap();
    let result = probe::agent::run(channel, write);
    std::process::exit(i32::from(result.is_err()))
}

struct Route {
    socket: Socket,
    sequence: u32,
}

impl Route {
    fn open() -> Route {
        Route {
            socket: Socket::new(netlink_sys::protocols::NETLINK_ROUTE).unwrap(),
            sequence: 0,
        }
    }

    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket
            .send_to(&bytes, &SocketAddr::new(0, 0), 0)
            .unwrap();
        let (answer, _) = self.socket.recv_from_full().unwrap();
        let code = i32::from_ne_bytes(answer[16..20].try_into().unwrap());
        assert_eq!(
            code,
            0,
            "netlink answered {}",
            std::io::Error::from_raw_os_error(-code)
        );
    }

    fn index(link: &str) -> u32 {
        let name = std::ffi::CString::new(link).unwrap();
        // SAFETY: a zero-terminated string.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        assert_ne!(index, 0, "no link {link}");
        index
    }

    fn up(&mut self, link: &str) {
        let mut message = LinkMessage::default();
        message.header.index = Self::index(link);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::SetLink(message), 0);
    }

    fn veth(&mut self, name: &str, peer_pid: u32) {
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(name.into()));
        peer.attributes.push(LinkAttribute::NetNsPid(peer_pid));
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.request(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
        );
    }

    /// Addresses (/24 and /64) without duplicate detection, then up.
    fn join(&mut self, link: &str, v4: &str, v6: &str) {
        for (address, length) in [(v4, 24), (v6, 64)] {
            let address: IpAddr = address.parse().unwrap();
            let mut message = AddressMessage::default();
            message.header.family = family(address);
            message.header.prefix_len = length;
            message.header.index = Self::index(link);
            if address.is_ipv6() {
                message.header.flags = AddressHeaderFlags::Nodad;
            }
            message.attributes.push(AddressAttribute::Local(address));
            message.attributes.push(AddressAttribute::Address(address));
            self.request(
                RouteNetlinkMessage::NewAddress(message),
                NLM_F_CREATE | NLM_F_EXCL,
            );
        }
        self.up(link);
    }

    fn route(
        &mut self,
        family: AddressFamily,
        kind: RouteType,
        length: u8,
        attributes: Vec<RouteAttribute>,
    ) {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.destination_prefix_length = length;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = kind;
        message.attributes = attributes;
        self.request(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_EXCL,
        );
    }

    fn default_via(&mut self, link: &str, gateway: &str) {
        let gateway: IpAddr = gateway.parse().unwrap();
        let attributes = vec![
            RouteAttribute::Gateway(RouteAddress::from(gateway)),
            RouteAttribute::Oif(Self::index(link)),
        ];
        self.route(family(gateway), RouteType::Unicast, 0, attributes);
    }

    fn special(&mut self, network: &str, length: u8, kind: RouteType) {
        let network: IpAddr = network.parse().unwrap();
        let attributes = vec![RouteAttribute::Destination(RouteAddress::from(network))];
        self.route(family(network), kind, length, attributes);
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

/// `table inet test { chain in { type filter hook input priority 0; ct state new; th dport PORT reject } }`: the way a Service without
/// endpoints is refused. The `ct` expression also turns connection tracking on.
fn reject_port(port: u16) {
    let text = |kind, value: &str| DefaultNla::new(kind, [value.as_bytes(), &[0]].concat());
    let number = |kind, value: u32| DefaultNla::new(kind, value.to_be_bytes().to_vec());
    let nest = |kind: u16, inner: &[DefaultNla]| {
        let mut value = vec![0; inner.buffer_len()];
        inner.emit(&mut value);
        DefaultNla::new(kind | NLA_F_NESTED, value)
    };
    let expression = |name: &str, data: &[DefaultNla]| nest(1, &[text(1, name), nest(2, data)]);
    let value = |bytes: &[u8]| nest(3, &[DefaultNla::new(1, bytes.to_vec())]);
    let rule = [
        expression("ct", &[number(2, 0), number(1, 8)]),
        expression(
            "payload",
            &[number(1, 9), number(2, 2), number(3, 2), number(4, 2)],
        ),
        expression(
            "cmp",
            &[number(1, 9), number(2, 0), value(&port.to_be_bytes())],
        ),
        expression("counter", &[]),
        // icmpx, port unreachable.
        expression("reject", &[number(1, 2), DefaultNla::new(2, vec![1])]),
    ];
    let messages: [(u16, Vec<DefaultNla>); 3] = [
        (0xa00, vec![text(1, "test")]),
        (
            0xa03,
            vec![
                text(1, "test"),
                text(3, "in"),
                nest(4, &[number(1, 1), number(2, 0)]),
                text(7, "filter"),
            ],
        ),
        (0xa06, vec![text(1, "test"), text(2, "in"), nest(4, &rule)]),
    ];
    let mut bytes = Vec::new();
    let mut put = |kind: u16, flags: u16, header: [u8; 4], attributes: &[DefaultNla]| {
        let mut inner = vec![0; attributes.buffer_len()];
        attributes.emit(&mut inner);
        bytes.extend_from_slice(&(20 + inner.len() as u32).to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&inner);
    };
    put(0x10, 0, [0, 0, 0, 10], &[]);
    for (i, (kind, attributes)) in messages.iter().enumerate() {
        let ack = if i + 1 == messages.len() {
            NLM_F_ACK
        } else {
            0
        };
        put(*kind, NLM_F_CREATE | ack, [1, 0, 0, 0], attributes);
    }
    put(0x11, 0, [0, 0, 0, 10], &[]);
    let socket = Socket::new(netlink_sys::protocols::NETLINK_NETFILTER).unwrap();
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).unwrap();
    let (answer, _) = socket.recv_from_full().unwrap();
    let code = i32::from_ne_bytes(answer[16..20].try_into().unwrap());
    assert_eq!(
        code,
        0,
        "nftables answered {}",
        std::io::Error::from_raw_os_error(-code)
    );
}
