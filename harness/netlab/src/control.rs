//! The harness's end of the conversation with a world's PID 1.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{oneshot, watch};

use crate::error::{Fault, Result, WorldError};
use crate::wire::{self, Command, FromWorld, Reply, Request};

/// How much of the world's standard error is kept for error texts.
const TAIL: usize = 4096;

pub(crate) type Exit = watch::Receiver<Option<ExitStatus>>;

pub(crate) struct Answer {
    pub fds: Vec<OwnedFd>,
    /// For a spawned process: its pid inside, and its end.
    pub process: Option<(i32, Exit)>,
}

pub(crate) struct Control {
    stream: UnixStream,
    writing: tokio::sync::Mutex<()>,
    next: AtomicU64,
    state: Mutex<State>,
}

struct State {
    /// `None` once the world has ended.
    waiting: Option<HashMap<u64, oneshot::Sender<Result<Answer, Fault>>>>,
    exits: HashMap<i32, watch::Sender<Option<ExitStatus>>>,
    fault: Option<Fault>,
    stderr: String,
}

impl Control {
    /// Takes the harness's ends of the control socket and of the pipe that is the world's standard error.
    pub fn start(stream: std::os::unix::net::UnixStream, stderr: OwnedFd) -> io::Result<Arc<Self>> {
        stream.set_nonblocking(true)?;
        let control = Arc::new(Control {
            stream: UnixStream::from_std(stream)?,
            writing: tokio::sync::Mutex::default(),
            next: AtomicU64::new(1),
            state: Mutex::new(State {
                waiting: Some(HashMap::new()),
                exits: HashMap::new(),
                fault: None,
                stderr: String::new(),
            }),
        });
        let stderr = pipe::Receiver::from_owned_fd(stderr)?;
        let (reader, listener) = (control.clone(), control.clone());
        let drained = tokio::spawn(async move { listener.drain(stderr).await });
        tokio::spawn(async move {
            let result = reader.read().await;
            // Last words come with the end; they explain it. A candidate may hold the pipe open, though.
            let _ = tokio::time::timeout(Duration::from_millis(200), drained).await;
            let mut state = reader.lock();
            if let Err(error) = result {
                state.stderr.push_str(&error.to_string());
            }
            state.waiting = None;
            state.exits.clear();
        });
        Ok(control)
    }

    /// Asks and waits for the answer.
    pub async fn call(
        &self,
        command: Command,
        fds: &[RawFd],
        what: &str,
        within: Duration,
    ) -> Result<Answer> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let alive = match &mut self.lock().waiting {
            Some(waiting) => {
                waiting.insert(id, answer);
                true
            }
            None => false,
        };
        if !alive {
            return Err(self.gone());
        }
        let asked = async {
            self.send(&Request { id, command }, fds).await.ok()?;
            answered.await.ok()
        };
        match tokio::time::timeout(within, asked).await {
            Ok(Some(answer)) => Ok(answer?),
            Ok(None) => {
                // The reader knows why, and says so when it is through.
                let read_up = async {
                    while self.lock().waiting.is_some() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                };
                let _ = tokio::time::timeout(Duration::from_secs(1), read_up).await;
                Err(self.gone())
            }
            Err(_) => Err(WorldError::TimedOut {
                step: what.to_owned(),
                seconds: within.as_secs(),
            }),
        }
    }

    /// What the world's own processes last wrote to standard error.
    pub fn stderr(&self) -> String {
        self.lock().stderr.clone()
    }

    fn gone(&self) -> WorldError {
        let state = self.lock();
        match &state.fault {
            Some(fault) => fault.clone().into(),
            None => WorldError::Gone {
                stderr: state.stderr.clone(),
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, request: &Request, fds: &[RawFd]) -> io::Result<()> {
        let bytes = wire::encode(request)?;
        let _writing = self.writing.lock().await;
        let mut sent = 0;
        while sent < bytes.len() {
            let fds = if sent == 0 { fds } else { &[] };
            sent += self
                .stream
                .async_io(Interest::WRITABLE, || {
                    wire::send_some(self.stream.as_fd(), &bytes[sent..], fds)
                })
                .await?;
        }
        Ok(())
    }

    async fn read(&self) -> io::Result<()> {
        let mut fds = Vec::new();
        loop {
            let mut length = [0; 4];
            if !self.fill(&mut length, &mut fds).await? {
                return Ok(());
            }
            let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
            if !self.fill(&mut bytes, &mut fds).await? {
                return Ok(());
            }
            self.dispatch(serde_json::from_slice(&bytes)?, std::mem::take(&mut fds));
        }
    }

    async fn fill(&self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<bool> {
        let mut got = 0;
        while got < buffer.len() {
            let n = self
                .stream
                .async_io(Interest::READABLE, || {
                    wire::receive_some(self.stream.as_fd(), &mut buffer[got..], fds)
                })
                .await;
            match n {
                Ok(0) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
                n => got += n?,
            }
        }
        Ok(true)
    }

    fn dispatch(&self, message: FromWorld, fds: Vec<OwnedFd>) {
        let mut state = self.lock();
        match message {
            FromWorld::Answer { id, result } => {
                let answer = result.map(|reply| Answer {
                    fds,
                    process: match reply {
                        Reply::Spawned { pid } => {
                            let (exited, exit) = watch::channel(None);
                            state.exits.insert(pid, exited);
                            Some((pid, exit))
                        }
                        Reply::Done | Reply::Socket => None,
                    },
                });
                if let Some(asker) = state.waiting.as_mut().and_then(|w| w.remove(&id)) {
                    let _ = asker.send(answer);
                }
            }
            FromWorld::Exited { pid, status } => {
                if let Some(exited) = state.exits.remove(&pid) {
                    exited.send_replace(Some(ExitStatus::from_raw(status)));
                }
            }
            FromWorld::AgentExited { who, status } => {
                let status = ExitStatus::from_raw(status);
                tracing::warn!(%who, %status, "a probe agent has ended");
            }
            FromWorld::Fault(fault) => state.fault = Some(fault),
            // Only the doctor asks for these, and it reads its own socket.
            FromWorld::Trials(_) => {}
        }
    }

    async fn drain(&self, mut stderr: pipe::Receiver) {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = stderr.read(&mut buffer).await {
            let text = String::from_utf8_lossy(&buffer[..n]);
            for line in text.lines() {
                tracing::debug!(target: "netlab::world", "{line}");
            }
            let mut state = self.lock();
            state.stderr.push_str(&text);
            let excess = state.stderr.len().saturating_sub(TAIL);
            let cut = (excess..).find(|at| state.stderr.is_char_boundary(*at));
            state.stderr.drain(..cut.unwrap_or(0));
        }
    }
}

/// The raw descriptors of owned ones, for passing along.
pub(crate) fn raw(fds: &[OwnedFd]) -> Vec<RawFd> {
    fds.iter().map(AsRawFd::as_raw_fd).collect()
}
