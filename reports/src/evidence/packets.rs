//! Packets of the failing cell's last flow, decoded, from the capture of the node that handled it.
//!
//! A flow is known by the port of its client, which stays the same when a proxy translates the destination. Where the source is translated
//! too, connection tracking says to which port.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};

use super::excerpt::{Excerpt, Line};
use super::{Cell, Names};

/// Packets that are shown.
const MAX_PACKETS: usize = 24;

/// What is kept of one packet.
struct Packet {
    time: Duration,
    interface: u32,
    from: SocketAddr,
    to: SocketAddr,
    what: What,
    /// Bytes of payload, as far as they were captured.
    payload: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    Tcp {
        flags: u8,
    },
    Udp,
    /// An ICMP error, as `ICMP type/code`, with the ports of the packet that it is about where the addresses have theirs.
    Icmp {
        kind: u8,
        code: u8,
    },
}

/// The packets of the last flow from the source to the frontend; no line at all says that there is none.
pub(super) fn of_cell(
    bytes: &[u8],
    cell: &Cell,
    names: &Names,
    conntrack: Option<&str>,
) -> Option<Excerpt> {
    let frontend = cell.address?;
    let wanted = |what: What| match cell.protocol.as_deref() {
        Some("TCP") => matches!(what, What::Tcp { .. }),
        Some("UDP") => matches!(what, What::Udp),
        _ => false,
    };
    let (packets, interfaces) = decode(bytes)?;
    let of_source = |packet: &&Packet| {
        let address = packet.from.ip().to_string();
        names.sources.is_empty() || names.sources.contains(&address)
    };
    let client = packets
        .iter()
        .rev()
        .filter(|packet| packet.to == frontend && wanted(packet.what))
        .find(of_source)
        .map(|packet| packet.from);
    let mut excerpt = Excerpt {
        file: "packets.pcap".to_owned(),
        left_out: packets.len(),
        ..Excerpt::default()
    };
    let Some(client) = client else {
        return Some(excerpt);
    };
    let translated = conntrack.and_then(|text| translated(text, client, frontend));
    let ours = |packet: &&Packet| {
        let is = |address: SocketAddr| {
            let same = address == client || address.port() == client.port();
            same || translated.is_some_and(|translated| address == translated)
        };
        match packet.what {
            What::Icmp { .. } => packet.to == client || packet.from == client,
            what => wanted(what) && (is(packet.from) || is(packet.to)),
        }
    };
    let flow: Vec<&Packet> = packets.iter().filter(ours).collect();
    let flow = &flow[flow.len().saturating_sub(MAX_PACKETS)..];
    let start = flow.first().map_or(Duration::ZERO, |first| first.time);
    for packet in flow {
        let name = interfaces.get(packet.interface as usize);
        let name = name.map_or("?", String::as_str);
        let after = packet.time.saturating_sub(start).as_secs_f64() * 1000.0;
        let text = format!(
            "{after:>10.3} ms  {name:<5} {} > {}  {}",
            packet.from,
            packet.to,
            words(packet)
        );
        let refused = match packet.what {
            What::Tcp { flags } => flags & RST != 0,
            What::Udp => false,
            What::Icmp { .. } => true,
        };
        excerpt.lines.push(Line::new(&text, refused));
    }
    excerpt.left_out = packets.len() - excerpt.lines.len();
    Some(excerpt)
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

fn words(packet: &Packet) -> String {
    match packet.what {
        What::Tcp { flags } => {
            let names = [
                (SYN, "SYN"),
                (FIN, "FIN"),
                (RST, "RST"),
                (PSH, "PSH"),
                (ACK, "ACK"),
            ];
            let set = names.iter().filter(|(bit, _)| flags & bit != 0);
            let set: Vec<&str> = set.map(|(_, name)| *name).collect();
            format!("TCP {}, {} bytes", set.join(" "), packet.payload)
        }
        What::Udp => format!("UDP, {} bytes", packet.payload),
        What::Icmp { kind, code } => format!("ICMP error {kind}/{code}"),
    }
}

/// What a connection tracking entry says about the source address after translation: where replies go to.
fn translated(text: &str, client: SocketAddr, frontend: SocketAddr) -> Option<SocketAddr> {
    let (client, frontend) = (client.to_string(), frontend.to_string());
    text.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, from, "->", to, "reply", _, "->", back, ..] = words.as_slice() else {
            return None;
        };
        let ours = *from == client && *to == frontend;
        ours.then(|| back.parse().ok())?
    })
}

/// All packets that have ports, and the names of the interfaces. What is cut off at the end is left out.
fn decode(bytes: &[u8]) -> Option<(Vec<Packet>, Vec<String>)> {
    let mut reader = PcapNgReader::new(bytes).ok()?;
    let (mut packets, mut interfaces) = (Vec::new(), Vec::new());
    while let Some(Ok(block)) = reader.next_block() {
        match block {
            Block::InterfaceDescription(interface) => {
                let name = interface.options.iter().find_map(|option| match option {
                    InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                    _ => None,
                });
                interfaces.push(name.unwrap_or_default());
            }
            Block::EnhancedPacket(captured) => {
                let packet = packet(captured.timestamp, captured.interface_id, &captured.data);
                packets.extend(packet);
            }
            _ => {}
        }
    }
    Some((packets, interfaces))
}

fn packet(time: Duration, interface: u32, data: &[u8]) -> Option<Packet> {
    let sliced = LaxSlicedPacket::from_ethernet(data).ok()?;
    let (from, to) = match sliced.net? {
        LaxNetSlice::Ipv4(ip) => (
            IpAddr::from(ip.header().source_addr()),
            IpAddr::from(ip.header().destination_addr()),
        ),
        LaxNetSlice::Ipv6(ip) => (
            IpAddr::from(ip.header().source_addr()),
            IpAddr::from(ip.header().destination_addr()),
        ),
        LaxNetSlice::Arp(_) => return None,
    };
    let (what, ports, payload) = match sliced.transport? {
        TransportSlice::Tcp(tcp) => {
            let flags = [
                (tcp.fin(), FIN),
                (tcp.syn(), SYN),
                (tcp.rst(), RST),
                (tcp.psh(), PSH),
                (tcp.ack(), ACK),
            ];
            let flags = flags.iter().filter(|(set, _)| *set).map(|(_, bit)| bit);
            (
                What::Tcp { flags: flags.sum() },
                (tcp.source_port(), tcp.destination_port()),
                tcp.payload().len(),
            )
        }
        TransportSlice::Udp(udp) => (
            What::Udp,
            (udp.source_port(), udp.destination_port()),
            udp.payload().len(),
        ),
        TransportSlice::Icmpv4(icmp) if matches!(icmp.type_u8(), 3 | 11 | 12) => (
            What::Icmp {
                kind: icmp.type_u8(),
                code: icmp.code_u8(),
            },
            quoted_ports(icmp.payload(), false)?,
            0,
        ),
        TransportSlice::Icmpv6(icmp) if icmp.type_u8() < 128 => (
            What::Icmp {
                kind: icmp.type_u8(),
                code: icmp.code_u8(),
            },
            quoted_ports(icmp.payload(), true)?,
            0,
        ),
        _ => return None,
    };
    Some(Packet {
        time,
        interface,
        from: SocketAddr::new(from, ports.0),
        to: SocketAddr::new(to, ports.1),
        what,
        payload,
    })
}

/// The ports of the packet that an ICMP error quotes, those of the receiver of the error (who had sent it) second.
fn quoted_ports(quoted: &[u8], v6: bool) -> Option<(u16, u16)> {
    let header = if v6 {
        40
    } else {
        usize::from(quoted.first()? & 15) * 4
    };
    let ports = quoted.get(header..header + 4)?;
    let sent_from = u16::from_be_bytes([ports[0], ports[1]]);
    let sent_to = u16::from_be_bytes([ports[2], ports[3]]);
    Some((sent_to, sent_from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use pcap_file::DataLink;
    use pcap_file::pcapng::PcapNgWriter;
    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
    use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;

    type End = ([u8; 4], u16);

    fn tcp(from: End, to: End, syn: bool, rst: bool) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4(from.0, to.0, 64);
        let mut builder = builder.tcp(from.1, to.1, 7, 100);
        builder = if syn { builder.syn() } else { builder };
        builder = if rst { builder.rst().ack(8) } else { builder };
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &[]).unwrap();
        bytes
    }

    fn icmp(to: End, about: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4([10, 9, 9, 9], to.0, 64);
        let mut bytes = Vec::new();
        builder
            .icmpv4_raw(3, 3, [0; 4])
            .write(&mut bytes, &about[14..42])
            .unwrap();
        bytes
    }

    fn capture(packets: &[Vec<u8>]) -> Vec<u8> {
        let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
        let name = InterfaceDescriptionOption::IfName("eth0".into());
        let interface = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0,
            options: vec![name],
        };
        writer.write_pcapng_block(interface).unwrap();
        for (n, data) in (0..).zip(packets) {
            let block = EnhancedPacketBlock {
                interface_id: 0,
                timestamp: Duration::from_millis(1000 + n),
                original_len: data.len() as u32,
                data: data.into(),
                options: Vec::new(),
            };
            writer.write_pcapng_block(block).unwrap();
        }
        writer.into_inner()
    }

    #[test]
    fn the_last_flow_is_shown_before_and_after_translation() {
        let (client, frontend, endpoint) = (
            ([10, 1, 0, 1], 5000),
            ([10, 96, 0, 1], 80),
            ([10, 1, 0, 2], 8080),
        );
        let earlier = ([10, 1, 0, 1], 4999);
        let masqueraded = ([10, 0, 0, 1], 6000);
        let unrelated = ([10, 1, 0, 9], 4000);
        let first = tcp(client, frontend, true, false);
        let bytes = capture(&[
            tcp(earlier, frontend, true, false),
            first.clone(),
            tcp(masqueraded, endpoint, true, false),
            tcp(unrelated, frontend, true, false),
            icmp(client, &first),
            tcp(frontend, client, false, true),
        ]);
        let cell = Cell::parse("pod client -> web ClusterIP 10.96.0.1:80/TCP").unwrap();
        let names = Names {
            frontend: cell.address,
            sources: vec!["10.1.0.1".into()],
            node_port: false,
        };
        let conntrack =
            "tcp 10.1.0.1:5000 -> 10.96.0.1:80 reply 10.1.0.2:8080 -> 10.0.0.1:6000 mark 0x0";
        let shown = of_cell(&bytes, &cell, &names, Some(conntrack)).unwrap();
        let lines: Vec<&str> = shown.lines.iter().map(|line| line.text.trim()).collect();
        assert_eq!(
            lines,
            [
                "0.000 ms  eth0  10.1.0.1:5000 > 10.96.0.1:80  TCP SYN, 0 bytes",
                "1.000 ms  eth0  10.0.0.1:6000 > 10.1.0.2:8080  TCP SYN, 0 bytes",
                "3.000 ms  eth0  10.9.9.9:80 > 10.1.0.1:5000  ICMP error 3/3",
                "4.000 ms  eth0  10.96.0.1:80 > 10.1.0.1:5000  TCP RST ACK, 0 bytes",
            ]
        );
        let hits: Vec<bool> = shown.lines.iter().map(|line| line.hit).collect();
        assert_eq!(hits, [false, false, true, true]);
        // A capture that is cut off is read as far as it goes, and one that is none is left out.
        let cut = of_cell(&bytes[..bytes.len() - 9], &cell, &names, None).unwrap();
        assert_eq!(cut.lines.len(), 2);
        assert!(of_cell(b"nonsense", &cell, &names, None).is_none());
        let other = Cell::parse("pod client -> web ClusterIP 10.96.0.2:80/TCP").unwrap();
        assert!(
            of_cell(&bytes, &other, &names, None)
                .unwrap()
                .lines
                .is_empty()
        );
    }
}
