//! TCP and UDP sockets of the network namespace as text.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Context;

/// Sockets, one a line, sorted: protocol, state, local address, remote address.
pub(crate) fn text() -> anyhow::Result<String> {
    let mut lines = Vec::new();
    for (file, protocol) in [
        ("tcp", "tcp"),
        ("tcp6", "tcp"),
        ("udp", "udp"),
        ("udp6", "udp"),
    ] {
        // The thread's own view: its namespace need not be that of the process.
        let path = format!("/proc/thread-self/net/{file}");
        let table = match std::fs::read_to_string(&path) {
            Ok(table) => table,
            // A kernel without IPv6.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && file.ends_with('6') => continue,
            Err(e) => return Err(e).with_context(|| format!("cannot read {path}")),
        };
        lines.extend(table.lines().skip(1).filter_map(|l| line(l, protocol)));
    }
    lines.sort();
    Ok(lines.iter().map(|l| format!("{l}\n")).collect())
}

fn line(line: &str, protocol: &str) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, remote) = (address(fields.get(1)?)?, address(fields.get(2)?)?);
    let states = [
        "established",
        "syn-sent",
        "syn-recv",
        "fin-wait-1",
        "fin-wait-2",
        "time-wait",
        "close",
        "close-wait",
        "last-ack",
        "listen",
        "closing",
        "new-syn-recv",
    ];
    let state = usize::from_str_radix(fields.get(3)?, 16).ok()?;
    let state = match (protocol, states.get(state.wrapping_sub(1))) {
        ("udp", Some(&"close")) => "unconnected",
        (_, Some(state)) => state,
        _ => "other",
    };
    Some(format!("{protocol} {state} {local} {remote}"))
}

/// `0100007F:0050`: words in the machine's byte order.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Option<Vec<u8>> = (0..ip.len() / 8)
        .map(|i| {
            u32::from_str_radix(ip.get(i * 8..i * 8 + 8)?, 16)
                .ok()
                .map(u32::to_ne_bytes)
        })
        .collect::<Option<Vec<_>>>()
        .map(|words| words.concat());
    let bytes = words?;
    let ip = match bytes.len() {
        4 => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        16 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn lines_of_proc_net() {
        let tcp = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0";
        assert_eq!(
            line(tcp, "tcp").unwrap(),
            "tcp listen 127.0.0.1:8080 0.0.0.0:0"
        );
        let udp6 = "  1: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 07 0:0";
        assert_eq!(
            line(udp6, "udp").unwrap(),
            "udp unconnected [::1]:53 [::]:0"
        );
        assert_eq!(line("garbage", "udp"), None);
    }
}
