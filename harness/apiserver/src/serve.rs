//! Listening, accepting and speaking TLS and HTTP. The accept loop is written by hand because faults act on connections.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::connections::{Connection, Connections};
use crate::error::Error;
use crate::faults::{AcceptFault, Faults};

/// What answers on the connections of a listener.
pub(crate) trait Service: Send + Sync + 'static {
    /// What is done to it.
    fn faults(&self) -> &Faults;

    /// Where its connections are kept.
    fn connections(&self) -> &Connections;

    /// How it speaks TLS.
    fn acceptor(&self) -> &TlsAcceptor;

    /// Answers a request.
    fn answer(
        self: Arc<Self>,
        connection: Arc<Connection>,
        request: Request<Body>,
    ) -> BoxFuture<'static, Response<Body>>;
}

static NEXT_LISTENER: AtomicU64 = AtomicU64::new(0);

/// A listener that is being served. Dropping it stops serving and resets its connections.
#[must_use = "dropping it stops serving"]
pub struct Serving {
    service: Arc<dyn Service>,
    id: u64,
    address: SocketAddr,
    stop: CancellationToken,
    accepting: Option<tokio::task::JoinHandle<()>>,
}

impl Serving {
    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening and resets the connections that came in here.
    pub fn stop(self) {
        drop(self);
    }

    /// As [`Serving::stop`]; when this returns, the port is closed. Answers how many connections were reset.
    pub async fn close(mut self) -> usize {
        let cut = self.cut();
        if let Some(accepting) = self.accepting.take() {
            // It ends by itself; that it panicked would be as good.
            let _ = accepting.await;
        }
        let faults = self.service.faults();
        faults.count(|r| r.aborted_connections += cut as u64);
        cut
    }

    fn cut(&self) -> usize {
        self.stop.cancel();
        let connections = self.service.connections().of(None);
        let own: Vec<_> = connections
            .iter()
            .filter(|c| c.listener == self.id && !c.gone.is_cancelled())
            .collect();
        own.iter().for_each(|c| c.abort());
        own.len()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.cut();
    }
}

/// Starts to serve; must be called inside of a tokio runtime.
pub(crate) fn serve(
    service: Arc<dyn Service>,
    listener: std::net::TcpListener,
) -> Result<Serving, Error> {
    let runtime = tokio::runtime::Handle::try_current()?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let listener = TcpListener::from_std(listener)?;
    let id = NEXT_LISTENER.fetch_add(1, Ordering::Relaxed);
    let stop = CancellationToken::new();
    let accepting = runtime.spawn(accept_loop(service.clone(), listener, id, stop.clone()));
    Ok(Serving {
        service,
        id,
        address,
        stop,
        accepting: Some(accepting),
    })
}

async fn accept_loop(
    service: Arc<dyn Service>,
    listener: TcpListener,
    id: u64,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or the peer gave up already: the next accept may well succeed.
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                continue;
            }
        };
        let fault = service.faults().on_accept();
        if fault == AcceptFault::Reset {
            // Closing with a zero linger time sends RST. Should that fail, the peer gets a FIN: also an end.
            let _ = stream.set_zero_linger();
            continue;
        }
        // Without this, Nagle's algorithm and delayed acknowledgements hold watch events back for 40 ms.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "failed to set TCP_NODELAY");
        }
        let connection = service.connections().accepted(id, peer.ip());
        if fault == AcceptFault::Hold {
            connection.held.store(true, Ordering::Release);
        }
        if stop.is_cancelled() {
            connection.abort();
        }
        tokio::spawn(speak(service.clone(), stream, connection));
    }
}

/// One connection from its TLS handshake to its end.
async fn speak(service: Arc<dyn Service>, stream: TcpStream, connection: Arc<Connection>) {
    let gone = connection.gone.clone();
    let io = FaultyStream {
        stream,
        connection: connection.clone(),
    };
    let talk = async {
        let tls = match service.acceptor().accept(io).await {
            Ok(tls) => tls,
            Err(error) => {
                tracing::debug!(%error, "failed to complete a TLS handshake");
                return;
            }
        };
        let answers = service_fn(|request: Request<Incoming>| {
            let answer = service
                .clone()
                .answer(connection.clone(), request.map(Body::new));
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http2().max_concurrent_streams(1000);
        if let Err(error) = builder.serve_connection(TokioIo::new(tls), answers).await {
            tracing::debug!(%error, "a connection ended early");
        }
    };
    tokio::select! {
        () = gone.cancelled() => {}
        () = talk => {}
    }
    // Requests of this connection that still wait for something end with it.
    connection.gone.cancel();
    service.connections().closed(&connection);
}

/// A TCP stream that can fall silent, and that can end with a RST.
struct FaultyStream {
    stream: TcpStream,
    connection: Arc<Connection>,
}

impl FaultyStream {
    /// A held stream is never released, only aborted: its task is dropped then, so nobody needs to be woken.
    fn held(&self) -> bool {
        self.connection.held.load(Ordering::Acquire)
    }
}

impl Drop for FaultyStream {
    fn drop(&mut self) {
        if self.connection.reset.load(Ordering::Acquire) {
            // Should it fail, the peer gets a FIN: also an end.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for FaultyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.held() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        // The hold may have begun while data was on its way: swallow it.
        if polled.is_ready() && self.held() {
            buf.set_filled(before);
            return Poll::Pending;
        }
        polled
    }
}

impl AsyncWrite for FaultyStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.held() {
            Poll::Pending
        } else {
            Pin::new(&mut self.stream).poll_write(cx, buf)
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held() {
            Poll::Pending
        } else {
            Pin::new(&mut self.stream).poll_flush(cx)
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held() {
            Poll::Pending
        } else {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.held() {
            Poll::Pending
        } else {
            Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
        }
    }
}
