//! Socket calls that the standard library does not offer: packet information, error queues, plain options.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;

use socket2::{SockAddr, SockAddrStorage};

/// Sets an integer-like socket option.
pub(crate) fn set_option<T: Copy>(fd: RawFd, level: i32, name: i32, value: T) -> io::Result<()> {
    // SAFETY: `value` lives for the call and its size is given.
    let r = unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            (&raw const value).cast(),
            mem::size_of::<T>() as u32,
        )
    };
    if r < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Reads an integer socket option.
pub(crate) fn get_option(fd: RawFd, level: i32, name: i32) -> io::Result<i32> {
    let (mut value, mut len) = (0i32, mem::size_of::<i32>() as u32);
    // SAFETY: both places are valid for writing and `len` holds the size of the first.
    let r = unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &mut len) };
    if r < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(value)
    }
}

/// Makes the kernel keep ICMP errors of this socket in its error queue (`IP_RECVERR`), or stop that.
pub(crate) fn set_recverr(fd: RawFd, ipv6: bool, on: bool) -> io::Result<()> {
    match ipv6 {
        false => set_option(fd, libc::IPPROTO_IP, libc::IP_RECVERR, i32::from(on)),
        true => set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, i32::from(on)),
    }
}

/// A datagram that was received into a caller's buffer.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub len: usize,
    pub from: SocketAddr,
    /// The address it was sent to, when the socket asks for packet information.
    pub to: Option<IpAddr>,
}

/// Control messages with the alignment the kernel wants.
#[repr(align(8))]
struct Control([u8; 512]);

/// Receives a datagram without blocking.
pub(crate) fn receive(fd: RawFd, buf: &mut [u8]) -> io::Result<Datagram> {
    let mut to = None;
    let (len, from) = receive_message(fd, buf, libc::MSG_DONTWAIT, |level, kind, data| {
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO)
                if data.len() >= mem::size_of::<libc::in_pktinfo>() =>
            {
                // SAFETY: the length was checked and the structure is plain data.
                let info: libc::in_pktinfo =
                    unsafe { std::ptr::read_unaligned(data.as_ptr().cast()) };
                to = Some(IpAddr::V4(Ipv4Addr::from(
                    info.ipi_addr.s_addr.to_ne_bytes(),
                )));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)
                if data.len() >= mem::size_of::<libc::in6_pktinfo>() =>
            {
                // SAFETY: as above.
                let info: libc::in6_pktinfo =
                    unsafe { std::ptr::read_unaligned(data.as_ptr().cast()) };
                to = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
            }
            _ => {}
        }
    })?;
    let from = from
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "datagram without a sender"))?;
    Ok(Datagram { len, from, to })
}

/// An entry of a socket's error queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueuedError {
    pub errno: i32,
    /// Type and code, when an ICMP or ICMPv6 message caused it.
    pub icmp: Option<(u8, u8)>,
    /// The beginning of the payload of the packet that caused it.
    pub payload: Vec<u8>,
}

/// Takes the oldest entry of the error queue.
pub(crate) fn take_queued_error(fd: RawFd) -> Option<QueuedError> {
    let mut buf = [0; 512];
    let mut found = None;
    let (len, _) = receive_message(
        fd,
        &mut buf,
        libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT,
        |level, kind, data| {
            let ours = matches!(
                (level, kind),
                (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
            );
            if ours && data.len() >= mem::size_of::<libc::sock_extended_err>() {
                // SAFETY: the length was checked and the structure is plain data.
                let e: libc::sock_extended_err =
                    unsafe { std::ptr::read_unaligned(data.as_ptr().cast()) };
                let icmp = matches!(
                    e.ee_origin,
                    libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6
                );
                found = Some((e.ee_errno as i32, icmp.then_some((e.ee_type, e.ee_code))));
            }
        },
    )
    .ok()?;
    found.map(|(errno, icmp)| QueuedError {
        errno,
        icmp,
        payload: buf[..len].to_vec(),
    })
}

fn receive_message(
    fd: RawFd,
    buf: &mut [u8],
    flags: i32,
    mut control: impl FnMut(i32, i32, &[u8]),
) -> io::Result<(usize, Option<SocketAddr>)> {
    let mut storage = SockAddrStorage::zeroed();
    let mut space = Control([0; 512]);
    let mut iov = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    };
    // SAFETY: an all-zero msghdr is valid; every pointer set below outlives the call.
    let mut msg: libc::msghdr = unsafe { mem::zeroed() };
    msg.msg_name = (&raw mut storage).cast();
    msg.msg_namelen = storage.size_of();
    msg.msg_iov = &mut iov;
    msg.msg_iovlen = 1;
    msg.msg_control = space.0.as_mut_ptr().cast();
    msg.msg_controllen = space.0.len();
    // SAFETY: `msg` describes valid buffers.
    let n = unsafe { libc::recvmsg(fd, &mut msg, flags) };
    if n < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel filled in the control messages; the macros walk within `msg_controllen`.
    unsafe {
        let mut c = libc::CMSG_FIRSTHDR(&msg);
        while !c.is_null() {
            let header = (*c).cmsg_len - libc::CMSG_LEN(0) as usize;
            control(
                (*c).cmsg_level,
                (*c).cmsg_type,
                std::slice::from_raw_parts(libc::CMSG_DATA(c), header),
            );
            c = libc::CMSG_NXTHDR(&msg, c);
        }
    }
    // SAFETY: the kernel wrote an address of this length.
    let from = unsafe { SockAddr::new(storage, msg.msg_namelen) }.as_socket();
    Ok((n as usize, from))
}

/// Sends a datagram without blocking, from `source` when given (which must be an address of this namespace).
pub(crate) fn send(
    fd: RawFd,
    data: &[u8],
    to: SocketAddr,
    source: Option<IpAddr>,
) -> io::Result<usize> {
    let to = SockAddr::from(to);
    let mut space = Control([0; 512]);
    let mut iov = libc::iovec {
        iov_base: data.as_ptr().cast_mut().cast(),
        iov_len: data.len(),
    };
    // SAFETY: an all-zero msghdr is valid; every pointer set below outlives the call.
    let mut msg: libc::msghdr = unsafe { mem::zeroed() };
    msg.msg_name = to.as_ptr().cast_mut().cast();
    msg.msg_namelen = to.len();
    msg.msg_iov = &mut iov;
    msg.msg_iovlen = 1;
    if let Some(source) = source {
        msg.msg_control = space.0.as_mut_ptr().cast();
        match source {
            IpAddr::V4(ip) => {
                // SAFETY: plain data; zero is valid.
                let mut info: libc::in_pktinfo = unsafe { mem::zeroed() };
                info.ipi_spec_dst.s_addr = u32::from_ne_bytes(ip.octets());
                put_control(&mut msg, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
            IpAddr::V6(ip) => {
                // SAFETY: plain data; zero is valid.
                let mut info: libc::in6_pktinfo = unsafe { mem::zeroed() };
                info.ipi6_addr.s6_addr = ip.octets();
                put_control(&mut msg, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            }
        }
    }
    // SAFETY: `msg` describes valid buffers.
    let n = unsafe { libc::sendmsg(fd, &msg, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    if n < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(n as usize)
    }
}

/// Writes the only control message of `msg`, whose control buffer is large enough for it.
fn put_control<T: Copy>(msg: &mut libc::msghdr, level: i32, kind: i32, value: T) {
    // SAFETY: the buffer has 512 bytes, more than any value used here needs.
    unsafe {
        msg.msg_controllen = libc::CMSG_SPACE(mem::size_of::<T>() as u32) as usize;
        let c = libc::CMSG_FIRSTHDR(msg);
        (*c).cmsg_level = level;
        (*c).cmsg_type = kind;
        (*c).cmsg_len = libc::CMSG_LEN(mem::size_of::<T>() as u32) as usize;
        std::ptr::write_unaligned(libc::CMSG_DATA(c).cast(), value);
    }
}
