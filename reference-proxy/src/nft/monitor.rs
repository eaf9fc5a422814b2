//! Notices when somebody else changes or deletes our table.

use std::{io, mem, os::fd::AsRawFd as _};

use netlink_packet_core::NlasIterator;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::socket::{NETFILTER_HEADER, datagram};
use crate::ruleset::TABLE;

const NFNLGRP_NFTABLES: u32 = 7;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWGEN: u16 = 15;

/// A subscription to changes of the kernel's ruleset by others.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
}

impl Monitor {
    /// Subscribes. Changes made through the socket whose address is `own` are left out by the kernel, however large they are.
    ///
    /// # Errors
    ///
    /// The subscription was refused.
    pub fn open(own: Option<u32>) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        if let Some(own) = own {
            leave_out(&socket, own)?;
        }
        socket.add_membership(NFNLGRP_NFTABLES)?;
        Ok(Self { socket })
    }

    /// Waits until somebody touches our table, or until so much happened that it is not known what.
    ///
    /// # Errors
    ///
    /// The socket is unusable.
    pub fn wait(&self) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(1 << 16);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => continue,
                    Some(libc::ENOBUFS) => return Ok(()),
                    _ => return Err(error),
                },
            }
            if datagram(&buffer)
                .any(|message| concerns_us(message.message_type(), message.payload()))
            {
                return Ok(());
            }
        }
    }
}

/// Whether a notification is about our table: the first attribute of every kind of message but one is the table's name.
fn concerns_us(message_type: u16, payload: &[u8]) -> bool {
    if message_type >> 8 != NFNL_SUBSYS_NFTABLES || message_type & 0xff == NFT_MSG_NEWGEN {
        return false;
    }
    NlasIterator::new(payload.get(NETFILTER_HEADER..).unwrap_or_default())
        .map_while(Result::ok)
        .find(|nla| nla.kind() == 1)
        .is_some_and(|nla| {
            let name = nla.value();
            name.strip_suffix(&[0]).unwrap_or(name) == TABLE.as_bytes()
        })
}

/// A packet filter on the socket: drop datagrams whose first message was caused by `own`.
fn leave_out(socket: &Socket, own: u32) -> io::Result<()> {
    const NLMSG_PID_OFFSET: u32 = 12;
    let statement = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    // The filter machine reads words in network order.
    let own = u32::from_be_bytes(own.to_ne_bytes());
    let mut program = [
        statement(
            libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
            0,
            0,
            NLMSG_PID_OFFSET,
        ),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, own),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the program outlives the call, which copies it.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            mem::size_of_val(&program) as libc::socklen_t,
        )
    };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
