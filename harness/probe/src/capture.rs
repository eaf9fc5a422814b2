//! Captures packets of every link of the network namespace, the newest in bounded memory.
//!
//! The kernel writes into a ring that is shared with it, so that a busy machine does not lose packets to a small socket buffer. A thread
//! copies them out. Each link becomes an interface block of a pcapng file, with the name it had when its first packet was seen.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};

use crate::proto::Capture;
use crate::sys;

/// Largest capture that fits into one answer.
const MAX_BYTES: u64 = 40 << 20;
/// What a packet costs in the file besides its bytes.
const OVERHEAD: usize = 36;
/// Memory of the ring, and of one of its blocks.
const RING: usize = 8 << 20;
const BLOCK: usize = 64 << 10;
/// Room the kernel needs in front of a packet in its frame: its header, the address, alignment.
const FRAME_HEAD: usize = 112;

/// A capture that runs.
pub(crate) struct Running {
    thread: JoinHandle<io::Result<Kept>>,
    stop: OwnedFd,
}

struct Packet {
    link: u32,
    time: Duration,
    length: u32,
    data: Vec<u8>,
}

#[derive(Default)]
struct Kept {
    packets: VecDeque<Packet>,
    bytes: usize,
    dropped: u64,
    /// Names and link types by index, in order of appearance.
    links: BTreeMap<u32, (String, DataLink)>,
    snaplen: u32,
}

/// Starts a capture; every packet from now on is seen.
pub(crate) fn start(max_bytes: u64, snaplen: u32) -> anyhow::Result<Running> {
    let snaplen = match snaplen as usize {
        0 => BLOCK - FRAME_HEAD,
        n => n.min(BLOCK - FRAME_HEAD),
    };
    let ring = Ring::open(snaplen).context("cannot capture packets")?;
    // SAFETY: a plain system call; the descriptor is owned right away.
    let stop = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    anyhow::ensure!(
        stop >= 0,
        "cannot make an eventfd: {}",
        io::Error::last_os_error()
    );
    // SAFETY: a fresh descriptor that nobody else owns.
    let stop = unsafe { OwnedFd::from_raw_fd(stop) };
    let wake = stop.try_clone()?;
    let limit = max_bytes.min(MAX_BYTES) as usize;
    let thread = std::thread::Builder::new()
        .name("capture".into())
        .spawn(move || run(ring, &wake, limit, snaplen as u32))
        .context("cannot start a thread")?;
    Ok(Running { thread, stop })
}

impl Running {
    /// Ends the capture and writes the file.
    pub fn stop(self) -> anyhow::Result<Capture> {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight bytes are what an eventfd takes.
        if unsafe { libc::write(self.stop.as_raw_fd(), one.as_ptr().cast(), 8) } != 8 {
            return Err(io::Error::last_os_error()).context("cannot stop the capture");
        }
        let kept = self
            .thread
            .join()
            .map_err(|_| anyhow::anyhow!("the capture thread panicked"))??;
        let file = kept.pcapng()?;
        Ok(Capture {
            pcap_base64: base64::engine::general_purpose::STANDARD.encode(file),
            packets: kept.packets.len() as u64,
            dropped: kept.dropped,
        })
    }
}

fn run(mut ring: Ring, stop: &OwnedFd, limit: usize, snaplen: u32) -> io::Result<Kept> {
    let mut kept = Kept {
        snaplen,
        ..Kept::default()
    };
    loop {
        let wait = |fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let mut fds = [wait(ring.socket.as_raw_fd()), wait(stop.as_raw_fd())];
        // SAFETY: two valid entries.
        if unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) } < 0 {
            let e = io::Error::last_os_error();
            if e.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(e);
        }
        // What came before the stop is in the ring by now.
        ring.drain(|frame| kept.take(frame, limit));
        if fds[1].revents != 0 {
            kept.dropped += ring.lost();
            return Ok(kept);
        }
    }
}

impl Kept {
    fn take(&mut self, frame: &Frame<'_>, limit: usize) {
        let loopback = frame.hardware == libc::ARPHRD_LOOPBACK;
        // Loopback shows every packet twice, on its way out and in.
        if loopback && frame.direction == libc::PACKET_OUTGOING {
            return;
        }
        self.links.entry(frame.link).or_insert_with(|| {
            let kind = match frame.hardware {
                libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => DataLink::ETHERNET,
                _ => DataLink::RAW,
            };
            (link_name(frame.link), kind)
        });
        // Frames have room for somewhat more than was asked for.
        let data = &frame.data[..frame.data.len().min(self.snaplen as usize)];
        self.bytes += data.len() + OVERHEAD;
        self.packets.push_back(Packet {
            link: frame.link,
            time: frame.time,
            length: frame.length,
            data: data.to_vec(),
        });
        while self.bytes > limit
            && let Some(oldest) = self.packets.pop_front()
        {
            self.bytes -= oldest.data.len() + OVERHEAD;
            self.dropped += 1;
        }
    }

    fn pcapng(&self) -> anyhow::Result<Vec<u8>> {
        let mut writer = PcapNgWriter::new(Vec::new())?;
        let mut ids = BTreeMap::new();
        for (index, (name, kind)) in &self.links {
            ids.insert(*index, ids.len() as u32);
            writer.write_pcapng_block(InterfaceDescriptionBlock {
                linktype: *kind,
                snaplen: self.snaplen,
                // Ten to the minus nine: nanoseconds.
                options: vec![
                    InterfaceDescriptionOption::IfName(name.as_str().into()),
                    InterfaceDescriptionOption::IfTsResol(9),
                ],
            })?;
        }
        for packet in &self.packets {
            writer.write_pcapng_block(EnhancedPacketBlock {
                interface_id: ids.get(&packet.link).copied().unwrap_or(0),
                timestamp: packet.time,
                original_len: packet.length,
                data: packet.data.as_slice().into(),
                options: Vec::new(),
            })?;
        }
        Ok(writer.into_inner())
    }
}

fn link_name(index: u32) -> String {
    let mut name = [0u8; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size this call wants.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) };
    if found.is_null() {
        return format!("link-{index}");
    }
    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into_owned()
}

/// A packet in the ring.
struct Frame<'a> {
    link: u32,
    hardware: u16,
    direction: u8,
    time: Duration,
    length: u32,
    data: &'a [u8],
}

/// A packet socket whose receive ring is mapped here (`TPACKET_V2`: fixed frames, each handed over by its status word).
struct Ring {
    socket: OwnedFd,
    memory: NonNull<u8>,
    frame: usize,
    frames: usize,
    next: usize,
}

// SAFETY: the mapping belongs to this value alone; moving it to another thread moves all access to it.
unsafe impl Send for Ring {}

impl Ring {
    fn open(snaplen: usize) -> io::Result<Ring> {
        // Protocol 0: nothing arrives before the ring stands.
        // SAFETY: plain system calls; the descriptor is owned right away.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        sys::set_option(
            fd,
            libc::SOL_PACKET,
            libc::PACKET_VERSION,
            libc::tpacket_versions::TPACKET_V2 as i32,
        )?;
        let frame = (snaplen + FRAME_HEAD).next_power_of_two().clamp(256, BLOCK);
        let frames = RING / frame;
        let request = libc::tpacket_req {
            tp_block_size: BLOCK as u32,
            tp_block_nr: (RING / BLOCK) as u32,
            tp_frame_size: frame as u32,
            tp_frame_nr: frames as u32,
        };
        sys::set_option(fd, libc::SOL_PACKET, libc::PACKET_RX_RING, request)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of the ring that was just made, of exactly its size.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                RING,
                protection,
                libc::MAP_SHARED,
                fd,
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast())
            .ok_or_else(|| io::Error::other("ring mapped at address zero"))?;
        let ring = Ring {
            socket,
            memory,
            frame,
            frames,
            next: 0,
        };
        // SAFETY: an all-zero address is valid.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        let length = mem::size_of::<libc::sockaddr_ll>() as u32;
        // SAFETY: the address is valid for its length.
        if unsafe { libc::bind(fd, (&raw const address).cast(), length) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(ring)
    }

    /// Hands over every frame that is ready.
    fn drain(&mut self, mut each: impl FnMut(&Frame<'_>)) {
        loop {
            // SAFETY: frame `next` lies within the mapping; headers are aligned to 16 bytes there. The kernel writes the frame only while its status
            // is 0, which the acquiring load excludes, and gets it back with the releasing store.
            unsafe {
                let start = self.memory.as_ptr().add(self.next * self.frame);
                let header = start.cast::<libc::tpacket2_hdr>();
                let status = AtomicU32::from_ptr(&raw mut (*header).tp_status);
                if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
                    return;
                }
                let address_at = mem::size_of::<libc::tpacket2_hdr>().next_multiple_of(16);
                let address =
                    std::ptr::read_unaligned(start.add(address_at).cast::<libc::sockaddr_ll>());
                let offset = usize::from((*header).tp_mac).min(self.frame);
                let length = ((*header).tp_snaplen as usize).min(self.frame - offset);
                each(&Frame {
                    link: address.sll_ifindex as u32,
                    hardware: address.sll_hatype,
                    direction: address.sll_pkttype,
                    time: Duration::new((*header).tp_sec.into(), (*header).tp_nsec),
                    length: (*header).tp_len,
                    data: std::slice::from_raw_parts(start.add(offset), length),
                });
                status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
            }
            self.next = (self.next + 1) % self.frames;
        }
    }

    /// Packets the kernel had no room for.
    fn lost(&self) -> u64 {
        let mut stats = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        let mut length = mem::size_of::<libc::tpacket_stats>() as u32;
        // SAFETY: both places are valid for writing.
        let r = unsafe {
            let place = (&raw mut stats).cast();
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                place,
                &mut length,
            )
        };
        if r == 0 { stats.tp_drops.into() } else { 0 }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `open`, not used after this.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), RING) };
    }
}
