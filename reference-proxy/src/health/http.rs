//! The small HTTP/1.1 server below the health and metrics endpoints.
//!
//! It answers from memory, never reads a body, and its port and connections are gone as soon as [`Listening`] is closed: a
//! healthCheckNodePort may be given to another Service in the very next event, which a graceful shutdown would get in the way of.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt::Ipv6V6Only};
use tokio::{
    net::{TcpListener, TcpSocket},
    task::{JoinHandle, JoinSet},
};

/// Connections that wait in the kernel for `accept`. Load balancers probe from several addresses at once, but not from hundreds.
const BACKLOG: u32 = 128;
/// How long to leave a listener alone whose `accept` failed for lack of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a client may take to send its request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes the answer to one request, by its path.
pub(crate) type Handler = Arc<dyn Fn(&str) -> Response<String> + Send + Sync>;

/// A running listener. Dropping it closes the port too, but only when the runtime gets to it; [`Listening::close`] waits for that.
#[derive(Debug)]
pub(crate) struct Listening {
    task: JoinHandle<()>,
    local: SocketAddr,
}

impl Listening {
    /// Binds `addr` and serves it until closed or dropped. A wildcard address of either family means both families.
    pub(crate) fn start(addr: SocketAddr, handler: Handler) -> io::Result<Self> {
        let listener = bind(addr)?;
        let local = listener.local_addr()?;
        let task = tokio::spawn(accept(listener, handler));
        Ok(Self { task, local })
    }

    /// The address really bound, with the port that the kernel chose where none was asked for.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Ends the listener and its connections, and returns when the port is free.
    pub(crate) async fn close(mut self) {
        self.task.abort();
        // The task was told to end, so an error here says that it has.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    if !addr.ip().is_unspecified() {
        return listen(addr, None);
    }
    let both = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), addr.port());
    match listen(both, Some(false)) {
        // Only a host without IPv6 falls back: "address in use" must stay an error.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT)
            ) =>
        {
            listen(
                SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), addr.port()),
                None,
            )
        }
        outcome => outcome,
    }
}

fn listen(addr: SocketAddr, only_v6: Option<bool>) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // Connections of a former process in TIME_WAIT must not keep a restarted proxy from its port.
    socket.set_reuseaddr(true)?;
    if let Some(only_v6) = only_v6 {
        setsockopt(&socket, Ipv6V6Only, &only_v6)?;
    }
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: TcpListener, handler: Handler) {
    // Dropped with this task, and with it every connection.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let handler = Arc::clone(&handler);
                    connections.spawn(async move {
                        let service = service_fn(move |request: Request<Incoming>| {
                            let response = handler(request.uri().path());
                            async move { Ok::<_, Infallible>(response) }
                        });
                        let served = http1::Builder::new()
                            .timer(TokioTimer::new())
                            .header_read_timeout(HEAD_TIMEOUT)
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                        if let Err(error) = served {
                            tracing::trace!(%error, "an HTTP connection ended early");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Plain text.
pub(crate) fn text(status: u16, body: impl Into<String>) -> Response<String> {
    respond(status, "text/plain; charset=utf-8", body.into())
}

/// JSON.
pub(crate) fn json(status: u16, body: impl Into<String>) -> Response<String> {
    respond(status, "application/json", body.into())
}

/// A response with the headers that all of kube-proxy's endpoints have.
pub(crate) fn respond(status: u16, content_type: &'static str, body: String) -> Response<String> {
    Response::builder()
        .status(status)
        .header("Content-Type", content_type)
        .header("X-Content-Type-Options", "nosniff")
        .body(body)
        .expect("constant headers and status codes are valid")
}

/// The answer to a path that does not exist.
pub(crate) fn not_found() -> Response<String> {
    text(404, "404 page not found\n")
}

/// A minimal client, so that tests see exactly what goes over the wire.
#[cfg(test)]
pub(crate) mod test_client {
    use std::net::SocketAddr;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    /// What came back: the status code, the head in lower case, the body.
    pub(crate) struct Got {
        pub(crate) status: u16,
        pub(crate) head: String,
        pub(crate) body: String,
    }

    /// One GET on a new connection.
    pub(crate) async fn get(addr: SocketAddr, path: &str) -> std::io::Result<Got> {
        let mut stream = TcpStream::connect(addr).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .ok_or_else(|| std::io::Error::other("no end of head"))?;
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| std::io::Error::other("no status"))?;
        Ok(Got {
            status,
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        })
    }
}
