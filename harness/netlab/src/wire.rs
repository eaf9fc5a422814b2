//! The conversation between the harness and a world's PID 1: frames of JSON with file descriptors attached.
//!
//! A frame is a little-endian `u32` length and that many bytes. Descriptors travel with the first byte of
//! the frame, so the reader gets them with the length.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use ipnet::IpNet;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};

use crate::doctor::Trial;
use crate::error::Fault;
use crate::plan::PodAddresses;
use crate::topology::Topology;

/// The kernel passes at most 253 descriptors at a time.
pub(crate) const MAX_FDS: usize = 250;

/// What the harness asks of PID 1. The descriptors that go along are named with each.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Everything of the topology except its pods. Descriptors: one agent channel per name in `agents`.
    Build {
        topology: Topology,
        read_only_binds: Vec<PathBuf>,
        agents: Vec<String>,
    },
    /// Descriptors: one agent channel per pod.
    AddPods {
        pods: Vec<PodAddresses>,
    },
    RemovePod {
        name: String,
    },
    /// One more address on a node's interface in the node network.
    AddAddress {
        node: String,
        addr: IpNet,
    },
    /// The answer carries the socket.
    Listen {
        who: String,
        addr: SocketAddr,
    },
    /// Descriptors: stdin, stdout, stderr, then the executable if `exe`, then one per file. The answer
    /// carries a pidfd.
    Spawn(SpawnCommand),
    Signal {
        pid: i32,
        signal: i32,
        group: bool,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SpawnCommand {
    pub who: String,
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: Option<PathBuf>,
    pub exe: bool,
    pub files: Vec<FileEntry>,
    /// Make it the foreground process group of the terminal that is its stdin.
    pub terminal: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FileEntry {
    pub path: PathBuf,
    pub mode: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub id: u64,
    pub command: Command,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    /// One descriptor goes along.
    Socket,
    /// A pidfd goes along.
    Spawned {
        pid: i32,
    },
}

/// What PID 1 sends.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromWorld {
    Answer {
        id: u64,
        result: Result<Reply, Fault>,
    },
    /// A spawned process has ended, with its wait status.
    Exited { pid: i32, status: i32 },
    /// An agent has ended without having been told to.
    AgentExited { who: String, status: i32 },
    /// What the doctor found.
    Trials(Vec<Trial>),
    /// The world could not even start.
    Fault(Fault),
}

pub(crate) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// Writes some of `bytes`, all descriptors with the first of them.
pub(crate) fn send_some(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd]) -> io::Result<usize> {
    let iov = [IoSlice::new(bytes)];
    let rights = [ControlMessage::ScmRights(fds)];
    let control = if fds.is_empty() {
        &rights[..0]
    } else {
        &rights[..]
    };
    Ok(sendmsg::<()>(
        socket.as_raw_fd(),
        &iov,
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?)
}

/// Reads up to `buffer.len()` bytes; 0 means that the other end is closed.
pub(crate) fn receive_some(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut iov = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut iov,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            // SAFETY: the kernel has just installed these descriptors for us and nobody else knows them.
            fds.extend(
                received
                    .into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    Ok(message.bytes)
}

/// Sends a whole frame on a blocking socket.
pub(crate) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[RawFd],
) -> io::Result<()> {
    let bytes = encode(message)?;
    let mut sent = 0;
    while sent < bytes.len() {
        let fds = if sent == 0 { fds } else { &[] };
        match send_some(socket, &bytes[sent..], fds) {
            Ok(n) => sent += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Receives a whole frame from a blocking socket; `None` when the other end is closed.
pub(crate) fn receive<T: for<'de> Deserialize<'de>>(
    socket: BorrowedFd<'_>,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut fds = Vec::new();
    let mut fill = |buffer: &mut [u8]| {
        let mut got = 0;
        while got < buffer.len() {
            match receive_some(socket, &mut buffer[got..], &mut fds) {
                Ok(0) => return Ok(false),
                Ok(n) => got += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    };
    let mut length = [0; 4];
    if !fill(&mut length)? {
        return Ok(None);
    }
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    if !fill(&mut bytes)? {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&bytes)?, fds)))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn frames_of_any_size_arrive_with_their_own_descriptors() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let sizes = [0, 1, 100_000, 3_000_000, 5];
        let sender = std::thread::spawn(move || {
            for (n, size) in sizes.into_iter().enumerate() {
                // Pipes that say which frame they belong to, one more with each frame.
                let pipes: Vec<_> = (0..n).map(|_| std::io::pipe().unwrap()).collect();
                let raw: Vec<RawFd> = pipes.iter().map(|(read, _)| read.as_raw_fd()).collect();
                let message = FromWorld::Fault(Fault {
                    kind: crate::error::FaultKind::System,
                    step: "x".repeat(size),
                    errno: n as i32,
                    message: None,
                });
                send(theirs.as_fd(), &message, &raw).unwrap();
                for (_, mut write) in pipes {
                    write.write_all(&[n as u8]).unwrap();
                }
            }
        });
        for (n, size) in sizes.into_iter().enumerate() {
            let (message, fds) = receive::<FromWorld>(ours.as_fd()).unwrap().unwrap();
            let FromWorld::Fault(fault) = message else {
                panic!("{message:?}");
            };
            assert_eq!((fault.step.len(), fault.errno), (size, n as i32));
            assert_eq!(fds.len(), n);
            for fd in fds {
                let mut text = Vec::new();
                File::from(fd).read_to_end(&mut text).unwrap();
                assert_eq!(text, [n as u8]);
            }
        }
        sender.join().unwrap();
        assert!(receive::<FromWorld>(ours.as_fd()).unwrap().is_none());
    }
}
