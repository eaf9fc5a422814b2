//! What clients and servers say to each other over the network under test: the header in front of every payload.
//!
//! ```text
//! request   magic 4 | flags 1 | flow length 1 | nonce 2 | sequence 8 | payload length 4 | wanted reply 4 | payload hash 8 | flow | payload
//! answer    magic 4 | flags 1 | name length 1 | nonce 2 | sequence 8 | payload length 4 | got length 4 | payload hash 8 | got hash 8
//!           | peer 19 | local 19 | name | payload
//! ```
//!
//! All numbers are little-endian; an address is its family (4 or 6), 16 bytes, and the port. A UDP datagram holds exactly one message.
//!
//! Requests of an exact size: from [`REQUEST`] bytes on, a request is a header whose payload fills the rest. Below that
//! it is *raw*: bytes that cannot be taken for a header. A server answers whatever does not begin with the magic with a normal answer
//! (sequence 0) that repeats all it got as payload, so that the answer's size runs through the same residues. Over TCP a raw request ends where the
//! client half-closes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use xxhash_rust::xxh3::xxh3_64;

/// First bytes of every message. No raw request begins with the first of them.
const MAGIC: [u8; 4] = [0xd7, b'P', b'R', b'1'];

/// Bytes of a request's header without a flow's name: the smallest request that is not raw.
pub const REQUEST: usize = 32;

/// Bytes of an answer's header without the server's name.
pub const ANSWER: usize = 40 + 2 * ADDRESS;

const ADDRESS: usize = 19;

/// Largest payload a server takes or sends.
pub const MAX_PAYLOAD: usize = 64 << 20;

/// Largest raw request a server takes.
pub(crate) const MAX_RAW: u64 = 1 << 20;

/// Flag of a request: no answer wanted.
pub(crate) const ONE_WAY: u8 = 1;
/// Flag of a request: the server closes the connection after its answer.
pub(crate) const LAST: u8 = 2;

/// The header of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub flags: u8,
    /// Tells the exchanges of one client port apart: a late answer to an earlier one is not taken for this one's.
    pub nonce: u16,
    pub seq: u64,
    pub payload: u32,
    pub reply: u32,
    pub hash: u64,
    /// Bytes of the flow's name that follow the fixed header.
    pub flow_len: usize,
}

/// Whether bytes can be the beginning of a request with a header.
pub(crate) fn may_be_header(bytes: &[u8]) -> bool {
    bytes.iter().zip(MAGIC).all(|(a, b)| *a == b)
}

/// Builds a request with a header.
pub(crate) fn request(
    flags: u8,
    nonce: u16,
    seq: u64,
    flow: &str,
    payload: &[u8],
    reply: u32,
) -> Vec<u8> {
    let flow = &flow.as_bytes()[..flow.len().min(255)];
    let mut out = Vec::with_capacity(REQUEST + flow.len() + payload.len());
    out.extend_from_slice(&MAGIC);
    out.push(flags);
    out.push(flow.len() as u8);
    out.extend_from_slice(&nonce.to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&reply.to_le_bytes());
    out.extend_from_slice(&xxh3_64(payload).to_le_bytes());
    out.extend_from_slice(flow);
    out.extend_from_slice(payload);
    out
}

/// Reads the fixed header of a request; `None` when the bytes are raw.
pub(crate) fn parse_request(bytes: &[u8]) -> Option<Request> {
    if bytes.len() < REQUEST || bytes[..4] != MAGIC {
        return None;
    }
    Some(Request {
        flags: bytes[4],
        flow_len: bytes[5] as usize,
        nonce: u16::from_le_bytes([bytes[6], bytes[7]]),
        seq: u64_at(bytes, 8),
        payload: u32_at(bytes, 16),
        reply: u32_at(bytes, 20),
        hash: u64_at(bytes, 24),
    })
}

/// Builds an answer to a request of which `got` was received as payload.
#[allow(clippy::too_many_arguments)]
pub(crate) fn answer(
    nonce: u16,
    seq: u64,
    identity: &str,
    peer: SocketAddr,
    local: SocketAddr,
    got: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let name = &identity.as_bytes()[..identity.len().min(255)];
    let mut out = Vec::with_capacity(ANSWER + name.len() + payload.len());
    out.extend_from_slice(&MAGIC);
    out.push(0);
    out.push(name.len() as u8);
    out.extend_from_slice(&nonce.to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&(got.len() as u32).to_le_bytes());
    out.extend_from_slice(&xxh3_64(payload).to_le_bytes());
    out.extend_from_slice(&xxh3_64(got).to_le_bytes());
    put_address(&mut out, peer);
    put_address(&mut out, local);
    out.extend_from_slice(name);
    out.extend_from_slice(payload);
    out
}

/// An answer as a client reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub nonce: u16,
    pub seq: u64,
    pub identity: String,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    got_len: u32,
    got_hash: u64,
    payload_len: u32,
    payload_intact: bool,
}

/// Bytes that follow the fixed header of an answer, known from that header: name and payload.
pub(crate) fn answer_rest(head: &[u8]) -> Result<usize, String> {
    if head.len() < ANSWER || head[..4] != MAGIC {
        return Err("answer does not begin with the magic".into());
    }
    let payload = u32_at(head, 16) as usize;
    if payload > MAX_PAYLOAD {
        return Err(format!("answer claims {payload} bytes of payload"));
    }
    Ok(head[5] as usize + payload)
}

/// Reads a complete answer.
pub(crate) fn parse_answer(bytes: &[u8]) -> Result<Answer, String> {
    let rest = answer_rest(bytes)?;
    if bytes.len() != ANSWER + rest {
        return Err(format!(
            "answer is {} bytes long, its header says {}",
            bytes.len(),
            ANSWER + rest
        ));
    }
    let name_len = bytes[5] as usize;
    let payload = &bytes[ANSWER + name_len..];
    Ok(Answer {
        nonce: u16::from_le_bytes([bytes[6], bytes[7]]),
        seq: u64_at(bytes, 8),
        identity: String::from_utf8_lossy(&bytes[ANSWER..ANSWER + name_len]).into_owned(),
        peer: address_at(bytes, 40)?,
        local: address_at(bytes, 40 + ADDRESS)?,
        got_len: u32_at(bytes, 20),
        got_hash: u64_at(bytes, 32),
        payload_len: u32_at(bytes, 16),
        payload_intact: u64_at(bytes, 24) == xxh3_64(payload),
    })
}

impl Answer {
    /// Whether the server got what was sent and its payload arrived undamaged with the wanted length.
    pub fn check(&self, sent: &[u8], reply: u32) -> Result<(), String> {
        if self.got_len as usize != sent.len() {
            return Err(format!(
                "server got {} bytes of payload instead of {}",
                self.got_len,
                sent.len()
            ));
        }
        if self.got_hash != xxh3_64(sent) {
            return Err("payload was changed on its way to the server".into());
        }
        if self.payload_len != reply {
            return Err(format!(
                "answer carries {} bytes of payload instead of {reply}",
                self.payload_len
            ));
        }
        if !self.payload_intact {
            return Err("payload was changed on its way back".into());
        }
        Ok(())
    }
}

/// Payload bytes that look random and are the same for the same seed.
pub(crate) fn filler(seed: u64, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 8);
    let mut x = seed ^ 0x9e37_79b9_7f4a_7c15;
    while out.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// A raw request: below [`REQUEST`] bytes, never like a header.
pub(crate) fn raw(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + 13) as u8 & 0x7f).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
}

fn put_address(out: &mut Vec<u8>, addr: SocketAddr) {
    match addr.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
            out.extend_from_slice(&[0; 12]);
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&addr.port().to_le_bytes());
}

fn address_at(bytes: &[u8], at: usize) -> Result<SocketAddr, String> {
    let octets: [u8; 16] = bytes[at + 1..at + 17].try_into().unwrap_or_default();
    let ip = match bytes[at] {
        4 => IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])),
        6 => IpAddr::V6(Ipv6Addr::from(octets)),
        other => return Err(format!("answer holds an address of family {other}")),
    };
    Ok(SocketAddr::new(
        ip,
        u16::from_le_bytes([bytes[at + 17], bytes[at + 18]]),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_back() {
        let payload = filler(3, 100);
        let bytes = request(LAST, 77, 5, "flow-a", &payload, 12);
        let head = parse_request(&bytes).unwrap();
        assert_eq!(
            (head.flags, head.nonce, head.seq, head.payload, head.reply),
            (LAST, 77, 5, 100, 12)
        );
        assert_eq!(&bytes[REQUEST..REQUEST + head.flow_len], b"flow-a");
        assert_eq!(head.hash, xxh3_64(&bytes[REQUEST + head.flow_len..]));
    }

    #[test]
    fn an_answer_is_read_back_and_checked() {
        let (peer, local) = (
            "10.0.0.1:5".parse().unwrap(),
            "[fd00::1]:80".parse().unwrap(),
        );
        let bytes = answer(9, 4, "pod-1", peer, local, b"ping", b"pong!");
        assert_eq!(bytes.len(), ANSWER + answer_rest(&bytes[..ANSWER]).unwrap());
        let got = parse_answer(&bytes).unwrap();
        assert_eq!(
            (
                got.identity.as_str(),
                got.peer,
                got.local,
                got.seq,
                got.nonce
            ),
            ("pod-1", peer, local, 4, 9)
        );
        assert_eq!(got.check(b"ping", 5), Ok(()));
        assert!(got.check(b"pinG", 5).unwrap_err().contains("on its way to"));
        assert!(got.check(b"pin", 5).unwrap_err().contains("instead of 3"));
        assert!(got.check(b"ping", 6).unwrap_err().contains("instead of 6"));
        let mut damaged = bytes.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(
            parse_answer(&damaged)
                .unwrap()
                .check(b"ping", 5)
                .unwrap_err()
                .contains("way back")
        );
        assert!(parse_answer(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn raw_requests_are_never_headers() {
        for len in 0..REQUEST {
            let bytes = raw(len);
            assert_eq!(bytes.len(), len);
            assert_eq!(parse_request(&bytes), None);
            assert!(len == 0 || !may_be_header(&bytes));
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_received_can_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), with_magic in proptest::prelude::any::<bool>()) {
            let mut bytes = bytes;
            if with_magic && bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&MAGIC);
            }
            let _ = parse_request(&bytes);
            let _ = parse_answer(&bytes);
        }
    }
}
