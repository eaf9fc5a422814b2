//! The agent: reads requests, runs them concurrently, writes answers, exits when the channel closes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use crate::frame;
use crate::proto::*;

/// Serves requests from `read`, answers on `write`, and returns when `read` ends.
///
/// Builds a runtime of its own, so it may be called in a freshly forked single-threaded child without exec. Both descriptors must
/// be sockets or pipes; they are made non-blocking. They may be duplicates of one socket.
///
/// # Errors
/// The runtime cannot be made or the channel fails other than by its end.
pub fn run(read: OwnedFd, write: OwnedFd) -> io::Result<()> {
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
            let result = match state.handle(request.request).await {
                Ok(response) => Reply::Ok(response),
                Err(e) => Reply::Err(format!("{e:#}")),
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
struct State {}

impl State {
    async fn handle(&self, request: Request) -> anyhow::Result<Response> {
        Ok(match request {
            Request::Hello => Response::Hello {
                version: VERSION,
                pid: std::process::id(),
            },
            other => anyhow::bail!("{other:?} is not known to this agent"),
        })
    }
}
