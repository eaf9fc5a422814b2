//! Addresses as the Kubernetes API has always read them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Parses an address the way existing API objects must be read: leading zeros in IPv4 octets are decimal, and an
/// IPv4-mapped IPv6 address is an IPv4 address. `None` when it is no address at all.
///
/// Source: KEP-4858 ("IP/CIDR validation improvements"): new objects may no longer carry such
/// values, but stored ones keep their old meaning.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        let ip: Ipv6Addr = text.parse().ok()?;
        return Some(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4));
    }
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *octet = part.parse().ok()?;
    }
    parts
        .next()
        .is_none()
        .then(|| IpAddr::V4(Ipv4Addr::from(octets)))
}

/// Parses a CIDR of `loadBalancerSourceRanges`, whose validation has always let padding through.
pub(crate) fn parse_cidr(text: &str) -> Option<IpNet> {
    let (ip, prefix) = text.trim().split_once('/')?;
    IpNet::new(parse_ip(ip)?, prefix.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_api_has_stored() {
        let table: [(&str, Option<&str>); 9] = [
            ("10.0.0.1", Some("10.0.0.1")),
            ("010.000.0.1", Some("10.0.0.1")),
            ("::ffff:1.2.3.4", Some("1.2.3.4")),
            ("fd00::1", Some("fd00::1")),
            ("", None),
            ("10.0.0", None),
            ("10.0.0.1.2", None),
            ("10.0.0.256", None),
            ("+1.0.0.1", None),
        ];
        for (text, want) in table {
            assert_eq!(parse_ip(text), want.map(|w| w.parse().unwrap()), "{text:?}");
        }
        assert_eq!(
            parse_cidr(" 10.0.0.0/8 "),
            Some("10.0.0.0/8".parse().unwrap())
        );
        assert_eq!(parse_cidr("10.0.0.0"), None);
    }
}
