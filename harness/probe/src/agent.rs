//! The agent: reads requests, runs them concurrently, writes answers, exits when the channel closes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use anyhow::Context as _;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use crate::flow::Flows;
use crate::netlink::{churn, conntrack, foreign, pressure, route, ruleset};
use crate::proto::*;
use crate::server::Servers;
use crate::{
    capture, connect, frame, holding, http, inject, neighbour, processes, sockets, sys, sysctl,
};

/// Serves requests from `read`, answers on `write`, and returns when `read` ends.
///
/// Builds a runtime of its own, so it may be called in a freshly forked single-threaded child without exec. Both descriptors must
/// be sockets or pipes; they are made non-blocking. They may be duplicates of one socket.
///
/// # Errors
/// The runtime cannot be made or the channel fails other than by its end.
pub fn run(read: OwnedFd, write: OwnedFd) -> io::Result<()> {
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(read, write));
    // A blocking helper thread that hangs in the kernel must not keep the process.
    runtime.shutdown_background();
    result
}

async fn serve(read: OwnedFd, write: OwnedFd) -> io::Result<()> {
    let mut read = Channel::new(read)?;
    let mut write = Channel::new(write)?;
    let (answers, mut queue) = mpsc::unbounded_channel::<Vec<u8>>();
    let writer = tokio::spawn(async move {
        while let Some(encoded) = queue.recv().await {
            if frame::write(&mut write, &encoded).await.is_err() {
                break;
            }
        }
    });
    let state = Arc::new(State::default());
    while let Some(body) = frame::read(&mut read).await? {
        let request: RequestFrame = match serde_json::from_slice(&body) {
            Ok(request) => request,
            Err(e) => {
                // Without the whole frame understood its id may still be known, so that the caller learns why at once.
                #[derive(serde::Deserialize)]
                struct Id {
                    id: u64,
                }
                let Ok(Id { id }) = serde_json::from_slice(&body) else {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, e));
                };
                let _ = answers.send(encode(ResponseFrame {
                    id,
                    result: Reply::Err(format!("bad request: {e}")),
                }));
                continue;
            }
        };
        let (answers, state) = (answers.clone(), state.clone());
        tokio::spawn(async move {
            // A task of its own: should it panic, the caller learns that at once rather than by its deadline.
            let handled = tokio::spawn(async move { state.handle(request.request).await });
            let result = match handled.await {
                Ok(Ok(response)) => Reply::Ok(response),
                Ok(Err(e)) => Reply::Err(format!("{e:#}")),
                Err(e) => Reply::Err(format!("the agent's task ended: {e}")),
            };
            let answer = ResponseFrame {
                id: request.id,
                result,
            };
            // Long answers are encoded beside the event loop: servers and flows keep their timing.
            let large = matches!(&answer.result, Reply::Ok(Response::Flow(f)) if f.samples.len() > 500)
                || matches!(&answer.result, Reply::Ok(Response::Received(r)) if r.len() > 500)
                || matches!(
                    &answer.result,
                    Reply::Ok(Response::Capture(_) | Response::Text(_) | Response::Conntrack(_))
                );
            let encoded = if large {
                tokio::task::spawn_blocking(move || encode(answer))
                    .await
                    .unwrap_or_default()
            } else {
                encode(answer)
            };
            let _ = answers.send(encoded);
        });
    }
    drop(answers);
    writer.abort();
    Ok(())
}

fn encode(answer: ResponseFrame) -> Vec<u8> {
    let id = answer.id;
    let framed = serde_json::to_vec(&answer)
        .map_err(io::Error::from)
        .and_then(|body| frame::encode(&body));
    framed.unwrap_or_else(|e| {
        let error = ResponseFrame {
            id,
            result: Reply::Err(format!("answer cannot be sent: {e}")),
        };
        frame::encode(&serde_json::to_vec(&error).unwrap_or_default()).unwrap_or_default()
    })
}

/// A non-blocking socket or pipe as a tokio stream.
struct Channel(AsyncFd<File>);

impl Channel {
    fn new(fd: OwnedFd) -> io::Result<Channel> {
        // SAFETY: plain fcntl on a descriptor that is owned here.
        let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
        // SAFETY: as above.
        if flags < 0
            || unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) } < 0
        {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a `File` owns its descriptor and always names the same one.
        Ok(Channel(unsafe { AsyncFd::register(File::from(fd)) }?))
    }
}

impl AsyncRead for Channel {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let unfilled = buf.initialize_unfilled();
            match guard.try_io(|fd| fd.get_ref().read(unfilled)) {
                Ok(Ok(n)) => {
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                // A peer that died with answers unread resets the socket; for an agent that is the end like any other.
                Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionReset => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(e)) => return Poll::Ready(Err(e)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Channel {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            match guard.try_io(|fd| fd.get_ref().write(data)) {
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Everything an agent holds between requests.
#[derive(Default)]
struct State {
    servers: Servers,
    flows: Flows,
    capture: Mutex<Option<capture::Running>>,
    churn: Arc<Mutex<Option<churn::Running>>>,
    holding: Mutex<Option<holding::Holding>>,
    seized: Mutex<Option<foreign::Seized>>,
}

impl State {
    async fn handle(&self, request: Request) -> anyhow::Result<Response> {
        Ok(match request {
            Request::Hello => Response::Hello {
                version: VERSION,
                pid: std::process::id(),
            },
            Request::Clock => Response::Clock {
                own_ns: own_clock(),
            },
            Request::SetClock { ahead_ns } => {
                set_clock(ahead_ns);
                Response::Done
            }
            Request::Serve { listeners } => {
                self.servers.serve(listeners).await?;
                Response::Done
            }
            Request::StopServing {
                ids,
                reset_established,
            } => {
                self.servers.stop(ids, reset_established).await?;
                Response::Done
            }
            Request::Connect(spec) => Response::Connect(connect::connect(&spec).await),
            Request::ConnectMany(specs) => {
                Response::ConnectMany(connect::connect_many(&specs).await)
            }
            Request::FlowStart(spec) => {
                self.flows.start(spec)?;
                Response::Done
            }
            Request::FlowRead { id, from_seq } => Response::Flow(self.flows.read(&id, from_seq)?),
            Request::FlowStop { id } => Response::Flow(self.flows.stop(&id).await?),
            Request::Received { flow } => Response::Received(self.servers.received(&flow)),
            // On the runtime's thread: the connections' descriptors are only valid here.
            Request::Inject(inject) => Response::Injected {
                packets: inject::inject(&inject, &self.servers.connections())?,
            },
            Request::AskNeighbour(ask) => {
                Response::Neighbour(blocking(move || neighbour::ask(&ask)).await?)
            }
            Request::CaptureStart { max_bytes, snaplen } => {
                let mut capture = self.capture.lock().unwrap();
                anyhow::ensure!(capture.is_none(), "a capture is already running");
                *capture = Some(capture::start(max_bytes, snaplen)?);
                Response::Done
            }
            Request::CaptureStop => {
                let running = self
                    .capture
                    .lock()
                    .unwrap()
                    .take()
                    .context("there is no capture")?;
                Response::Capture(blocking(move || running.stop()).await?)
            }
            Request::Dump(kind) => Response::Text(blocking(move || dump(kind)).await?),
            Request::Conntrack => Response::Conntrack(blocking(conntrack::entries).await?),
            Request::ConntrackFlush => done(conntrack::flush).await?,
            Request::ConntrackForget { addresses, sockets } => Response::Forgotten {
                entries: blocking(move || conntrack::forget(&addresses, &sockets)).await?,
            },
            Request::SignalPod { uid, signal } => Response::Signalled {
                processes: blocking(move || processes::signal_pod(&uid, signal)).await?,
            },
            Request::RulesetFlush => done(foreign::flush_ruleset).await?,
            Request::TablesDelete { tables } => done(move || foreign::delete(&tables)).await?,
            Request::ForeignTable { name, present } => {
                done(move || foreign::set_table(&name, present)).await?
            }
            Request::SeizeTables => {
                anyhow::ensure!(
                    self.seized.lock().unwrap().is_none(),
                    "the tables are seized already"
                );
                let seized = blocking(foreign::seize).await?;
                *self.seized.lock().unwrap() = Some(seized);
                Response::Done
            }
            Request::ReleaseTables => {
                let seized = self.seized.lock().unwrap().take();
                let seized = seized.context("no table is seized")?;
                done(move || seized.release()).await?
            }
            Request::ChurnStart(spec) => {
                let running = self.churn.clone();
                done(move || {
                    let mut churn = running.lock().unwrap();
                    anyhow::ensure!(churn.is_none(), "a churn is already running");
                    *churn = Some(churn::start(&spec)?);
                    Ok(())
                })
                .await?
            }
            Request::ChurnRead => {
                let churn = self.churn.lock().unwrap();
                Response::Churned(churn.as_ref().context("there is no churn")?.so_far())
            }
            Request::ConntrackFill { entries } => {
                Response::Table(blocking(move || pressure::fill(entries)).await?)
            }
            Request::ConntrackDrain => Response::Table(blocking(pressure::drain).await?),
            Request::PortsHold { free } => {
                let mut held = self.holding.lock().unwrap();
                anyhow::ensure!(held.is_none(), "ports are held already");
                let (holding, ports) = holding::hold(free)?;
                *held = Some(holding);
                Response::Ports(ports)
            }
            Request::PortsRelease => {
                let holding = self.holding.lock().unwrap().take();
                Response::Ports(holding.context("no ports are held")?.release()?)
            }
            Request::ChurnStop => {
                let running = self
                    .churn
                    .lock()
                    .unwrap()
                    .take()
                    .context("there is no churn")?;
                Response::Churned(blocking(move || running.stop()).await?)
            }
            Request::AddressAdd { link, addr } => {
                done(move || change_address(&link, &addr, true)).await?
            }
            Request::AddressDel { link, addr } => {
                done(move || change_address(&link, &addr, false)).await?
            }
            Request::RoutesFrom {
                from,
                via,
                link,
                to,
                table,
            } => done(move || route::routes_from(from, via, &link, &to, table)).await?,
            Request::LinkSet { link, up, mtu } => {
                done(move || {
                    let index = route::index_of(&link)?;
                    route::link_set(&mut route::open()?, index, up, mtu)
                        .with_context(|| format!("cannot change link {link}"))
                })
                .await?
            }
            Request::Sysctl { path, value } => done(move || sysctl::write(&path, &value)).await?,
            Request::SysctlRead { path } => {
                Response::Text(blocking(move || sysctl::read(&path)).await?)
            }
            Request::SockOpts => Response::SockOpts(sock_opts()?),
            Request::HttpGet {
                url_host,
                path,
                timeout_ms,
            } => Response::Http(http::get(url_host, &path, timeout_ms).await?),
        })
    }
}

/// Runs what may wait for the kernel beside the event loop.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("the work was cancelled")?
}

async fn done(
    work: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<Response> {
    blocking(work).await.map(|()| Response::Done)
}

fn dump(kind: DumpKind) -> anyhow::Result<String> {
    match kind {
        DumpKind::Links => route::links_text(),
        DumpKind::Addresses => route::addresses_text(),
        DumpKind::Routes => route::routes_text(),
        DumpKind::Rules => route::rules_text(),
        DumpKind::Conntrack => Ok(conntrack::text(&conntrack::entries()?)),
        DumpKind::Ruleset => ruleset::dump(),
        DumpKind::Sockets => sockets::text(),
    }
}

fn change_address(link: &str, text: &str, add: bool) -> anyhow::Result<()> {
    let (address, length) = route::parse_address(text)?;
    let index = route::index_of(link)?;
    let netlink = &mut route::open()?;
    if add {
        route::address_add(netlink, index, address, length)
            .with_context(|| format!("cannot add {text} to {link}"))
    } else {
        route::address_del(netlink, index, address, length)
            .with_context(|| format!("cannot delete {text} from {link}"))
    }
}

fn sock_opts() -> anyhow::Result<SockOpts> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv6Addr::UNSPECIFIED, 0))
        .context("no IPv6 UDP socket")?;
    let fd = socket.as_raw_fd();
    Ok(SockOpts {
        ipv6_dontfrag: sys::get_option(fd, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG)?,
        ipv6_mtu_discover: sys::get_option(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)?,
    })
}

/// Lets the process open as many descriptors as it may: a thousand connections in flight need them.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid for reading and writing; failure leaves the limit as it was.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}
