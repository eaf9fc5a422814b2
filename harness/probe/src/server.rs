//! The servers of an agent: listeners, their connections, and what flows delivered to them.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{AbortHandle, JoinHandle};

use crate::proto::{Listener, Protocol, Received, now};
use crate::{sys, wire};

/// Requests remembered per flow; a flow of one datagram per millisecond fills this in a quarter of an hour.
const MAX_RECEIVED: usize = 1_000_000;

/// All servers of an agent.
#[derive(Default)]
pub(crate) struct Servers {
    running: tokio::sync::Mutex<HashMap<String, Running>>,
    shared: Arc<Shared>,
}

struct Running {
    spec: Listener,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    connections: Mutex<Connections>,
    received: Mutex<HashMap<String, Vec<Received>>>,
}

#[derive(Default)]
struct Connections {
    next: u64,
    open: HashMap<u64, Connection>,
}

/// One established connection of a listener.
#[derive(Clone)]
pub(crate) struct Connection {
    pub listener: String,
    /// Valid as long as the entry exists; only used on the agent's one runtime thread, which also removes the entry before it closes the socket.
    pub fd: RawFd,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    task: Option<AbortHandle>,
}

impl Servers {
    /// Starts listeners: all of them or none.
    pub async fn serve(&self, listeners: Vec<Listener>) -> anyhow::Result<()> {
        let mut running = self.running.lock().await;
        let mut new = Vec::new();
        for spec in listeners {
            match running.get(&spec.id) {
                Some(old) if old.spec == spec => continue,
                Some(_) => anyhow::bail!(
                    "listener {} is already running with other settings",
                    spec.id
                ),
                None => {}
            }
            let addr = SocketAddr::new(spec.addr, spec.port);
            let bound = bind(&spec, addr).with_context(|| {
                format!("{:?} listener {} cannot use {addr}", spec.protocol, spec.id)
            })?;
            new.push((spec, bound));
        }
        for (spec, bound) in new {
            let (shared, settings) = (self.shared.clone(), spec.clone());
            let task = match bound {
                Bound::Stream(listener) => tokio::spawn(accept(listener, settings, shared)),
                Bound::Datagram(socket) => tokio::spawn(serve_datagrams(socket, settings, shared)),
            };
            running.insert(spec.id.clone(), Running { spec, task });
        }
        Ok(())
    }

    /// Stops listeners; their ports are free when this returns.
    pub async fn stop(
        &self,
        ids: Option<Vec<String>>,
        reset_established: bool,
    ) -> anyhow::Result<()> {
        let mut running = self.running.lock().await;
        let ids = ids.unwrap_or_else(|| running.keys().cloned().collect());
        for id in &ids {
            if let Some(listener) = running.remove(id) {
                listener.task.abort();
                // Only a finished task has closed its socket.
                let _ = listener.task.await;
            }
        }
        if reset_established {
            for connection in self
                .connections()
                .into_iter()
                .filter(|c| ids.contains(&c.listener))
            {
                let linger = libc::linger {
                    l_onoff: 1,
                    l_linger: 0,
                };
                let _ = sys::set_option(connection.fd, libc::SOL_SOCKET, libc::SO_LINGER, linger);
                if let Some(task) = connection.task {
                    task.abort();
                }
            }
        }
        Ok(())
    }

    /// The established connections of all listeners.
    pub fn connections(&self) -> Vec<Connection> {
        self.shared
            .connections
            .lock()
            .unwrap()
            .open
            .values()
            .cloned()
            .collect()
    }

    /// What was received for a flow.
    pub fn received(&self, flow: &str) -> Vec<Received> {
        self.shared
            .received
            .lock()
            .unwrap()
            .get(flow)
            .cloned()
            .unwrap_or_default()
    }
}

enum Bound {
    Stream(TcpListener),
    Datagram(UdpSocket),
}

fn bind(spec: &Listener, addr: SocketAddr) -> io::Result<Bound> {
    let (kind, protocol) = match spec.protocol {
        Protocol::Tcp => (Type::STREAM, socket2::Protocol::TCP),
        Protocol::Udp => (Type::DGRAM, socket2::Protocol::UDP),
        Protocol::Sctp => (Type::STREAM, socket2::Protocol::SCTP),
    };
    let socket = Socket::new(Domain::for_address(addr), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if spec.protocol == Protocol::Udp {
        let fd = socket.as_raw_fd();
        if addr.is_ipv4() {
            sys::set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1i32)?;
        } else {
            sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1i32)?;
        }
        // The kernel gives as much as the machine allows, usually twice the default.
        let _ = socket.set_recv_buffer_size(4 << 20);
        socket.bind(&addr.into())?;
        Ok(Bound::Datagram(UdpSocket::from_std(socket.into())?))
    } else {
        // A server that was stopped a moment ago leaves connections behind that would block the port.
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        socket.listen(4096)?;
        Ok(Bound::Stream(TcpListener::from_std(socket.into())?))
    }
}

async fn accept(listener: TcpListener, spec: Listener, shared: Arc<Shared>) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(_) => {
                // Out of descriptors, or the connection died in the queue: the pause keeps the former from spinning.
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
        };
        let Ok(local) = stream.local_addr() else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (spec, shared) = (spec.clone(), shared.clone());
        let entry = Connection {
            listener: spec.id.clone(),
            fd: stream.as_raw_fd(),
            local,
            peer,
            // Set below, when the task exists.
            task: None,
        };
        let id = {
            let mut connections = shared.connections.lock().unwrap();
            connections.next += 1;
            let id = connections.next;
            connections.open.insert(id, entry);
            id
        };
        let registry = shared.clone();
        let task = tokio::spawn(async move {
            let mut stream = stream;
            // Declared after the stream, so dropped before it: the entry is gone when the descriptor is closed.
            let _entry = Entry {
                shared: shared.clone(),
                id,
            };
            let _ = converse(&mut stream, &spec, local, peer, &shared).await;
        });
        if let Some(entry) = registry.connections.lock().unwrap().open.get_mut(&id) {
            entry.task = Some(task.abort_handle());
        }
    }
}

struct Entry {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.shared
            .connections
            .lock()
            .unwrap()
            .open
            .remove(&self.id);
    }
}

/// Answers requests of one connection until the client closes or asks for the close.
async fn converse(
    stream: &mut TcpStream,
    spec: &Listener,
    local: SocketAddr,
    peer: SocketAddr,
    shared: &Shared,
) -> io::Result<()> {
    loop {
        let mut head = Vec::with_capacity(wire::REQUEST);
        while head.len() < wire::REQUEST && wire::may_be_header(&head) {
            let mut rest = (&mut *stream).take((wire::REQUEST - head.len()) as u64);
            if rest.read_buf(&mut head).await? == 0 {
                break;
            }
        }
        let Some(request) = wire::parse_request(&head) else {
            // Raw: everything up to the client's half-close. An empty one is only a request as the first of a connection,
            // but a client that has closed for good does not mind the answer.
            (&mut *stream)
                .take(wire::MAX_RAW - head.len() as u64)
                .read_to_end(&mut head)
                .await?;
            stream
                .write_all(&wire::answer(
                    0,
                    0,
                    &spec.identity,
                    peer,
                    local,
                    &head,
                    &head,
                ))
                .await?;
            return stream.shutdown().await;
        };
        if request.payload as usize > wire::MAX_PAYLOAD
            || request.reply as usize > wire::MAX_PAYLOAD
        {
            return Ok(());
        }
        let mut body = vec![0; request.flow_len + request.payload as usize];
        stream.read_exact(&mut body).await?;
        let (flow, payload) = body.split_at(request.flow_len);
        record(shared, spec, flow, &request, payload, peer, local);
        if request.flags & wire::ONE_WAY == 0 {
            let reply = wire::filler(request.seq, request.reply as usize);
            let answer = wire::answer(
                request.nonce,
                request.seq,
                &spec.identity,
                peer,
                local,
                payload,
                &reply,
            );
            stream.write_all(&answer).await?;
        }
        if request.flags & wire::LAST != 0 {
            // The server closes first; see the client for why.
            return stream.shutdown().await;
        }
    }
}

async fn serve_datagrams(socket: UdpSocket, spec: Listener, shared: Arc<Shared>) {
    let mut buf = vec![0; 65536];
    let fd = socket.as_raw_fd();
    let wildcard = spec.addr.is_unspecified();
    loop {
        let Ok(got) = socket
            .async_io(Interest::READABLE, || sys::receive(fd, &mut buf))
            .await
        else {
            continue;
        };
        let local = SocketAddr::new(got.to.unwrap_or(spec.addr), spec.port);
        let data = &buf[..got.len];
        let request =
            wire::parse_request(data).filter(|r| data.len() >= wire::REQUEST + r.flow_len);
        let answer = match request {
            Some(request) => {
                let (flow, payload) = data[wire::REQUEST..].split_at(request.flow_len);
                record(&shared, &spec, flow, &request, payload, got.from, local);
                if request.flags & wire::ONE_WAY != 0 {
                    continue;
                }
                // The largest datagram bounds what can be sent back.
                let reply = wire::filler(request.seq, (request.reply as usize).min(65_507));
                wire::answer(
                    request.nonce,
                    request.seq,
                    &spec.identity,
                    got.from,
                    local,
                    payload,
                    &reply,
                )
            }
            None => wire::answer(0, 0, &spec.identity, got.from, local, data, data),
        };
        let source = wildcard.then_some(got.to).flatten();
        // A datagram that cannot be sent is lost like any other; the client sees that.
        let _ = socket
            .async_io(Interest::WRITABLE, || {
                sys::send(fd, &answer, got.from, source)
            })
            .await;
    }
}

/// Remembers a request that belongs to a flow and arrived intact.
fn record(
    shared: &Shared,
    spec: &Listener,
    flow: &[u8],
    request: &wire::Request,
    payload: &[u8],
    peer: SocketAddr,
    local: SocketAddr,
) {
    if flow.is_empty() || xxhash_rust::xxh3::xxh3_64(payload) != request.hash {
        return;
    }
    let flow = String::from_utf8_lossy(flow).into_owned();
    let mut received = shared.received.lock().unwrap();
    let list = received.entry(flow.clone()).or_default();
    if list.len() < MAX_RECEIVED {
        list.push(Received {
            flow,
            identity: spec.identity.clone(),
            seq: request.seq,
            at: now(),
            peer,
            local_port: local.port(),
        });
    }
}
