//! How names, labels, ports, addresses and CIDRs must be written.
//!
//! Each function returns what is wrong with a value, in the words of `k8s.io/apimachinery/pkg/util/validation` (release 1.36, where addresses and CIDRs are read
//! strictly); an empty answer means that the value is fine.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

const LABEL_FORMAT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const QUALIFIED_FORMAT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_TEXT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const LABEL_VALUE_TEXT: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} characters")
}

fn pattern(text: &str, format: &str, examples: &[&str]) -> String {
    let listed: Vec<String> = examples
        .iter()
        .map(|example| format!("'{example}', "))
        .collect();
    format!(
        "{text} (e.g. {}regex used for validation is '{format}')",
        listed.join(" or ")
    )
}

fn is_label(value: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !value.is_empty()
        && value.chars().all(inner)
        && !value.starts_with('-')
        && !value.ends_with('-')
}

fn is_subdomain(value: &str) -> bool {
    value.split('.').all(is_label)
}

/// A DNS label (RFC 1123): names of Services, Namespaces and ports of Services.
pub(super) fn dns_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push(too_long(63));
    }
    if !is_label(value) {
        if is_subdomain(value) {
            errors.push("must not contain dots".to_owned());
        } else {
            errors.push(pattern(LABEL_TEXT, LABEL_FORMAT, &["my-name", "123-abc"]));
        }
    }
    errors
}

/// A DNS subdomain (RFC 1123): names of most other things.
pub(super) fn dns_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 253 {
        errors.push(too_long(253));
    }
    if !is_subdomain(value) {
        let format = format!("{LABEL_FORMAT}(\\.{LABEL_FORMAT})*");
        errors.push(pattern(SUBDOMAIN_TEXT, &format, &["example.com"]));
    }
    errors
}

/// A fully qualified domain name of at least two labels, with or without the last dot: an address of an FQDN slice.
pub(super) fn domain_name(value: &str) -> Vec<String> {
    let value = value.strip_suffix('.').unwrap_or(value);
    let errors = dns_subdomain(value);
    if !errors.is_empty() {
        return errors;
    }
    if !value.contains('.') {
        return vec!["should be a domain with at least two segments separated by dots".to_owned()];
    }
    value.split('.').flat_map(dns_label).collect()
}

/// A name that becomes one segment of a URL: what every object's name must be at least.
pub(super) fn path_segment(value: &str) -> Vec<String> {
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    ["/", "%"]
        .into_iter()
        .filter(|illegal| value.contains(illegal))
        .map(|illegal| format!("may not contain '{illegal}'"))
        .collect()
}

fn is_qualified_part(value: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    value
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && edge(value.chars().next())
        && edge(value.chars().last())
}

/// A label key, an annotation key, a load balancer class or an application protocol: `name` or `prefix/name`.
pub(super) fn qualified_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let mut parts = value.splitn(3, '/');
    let name = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, None) => name,
        (Some(prefix), Some(name), None) => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(
                    dns_subdomain(prefix)
                        .into_iter()
                        .map(|text| format!("prefix part {text}")),
                );
            }
            name
        }
        _ => {
            let text = format!("a valid label key {QUALIFIED_TEXT}");
            let examples = ["MyName", "my.name", "123-abc"];
            return vec![
                pattern(&text, QUALIFIED_FORMAT, &examples)
                    + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
            ];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        errors.push(format!("name part {}", too_long(63)));
    }
    if !is_qualified_part(name) {
        let text = format!("name part {QUALIFIED_TEXT}");
        errors.push(pattern(
            &text,
            QUALIFIED_FORMAT,
            &["MyName", "my.name", "123-abc"],
        ));
    }
    errors
}

/// The value of a label.
pub(super) fn label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push(too_long(63));
    }
    if !value.is_empty() && !is_qualified_part(value) {
        let format = format!("({QUALIFIED_FORMAT})?");
        errors.push(pattern(
            LABEL_VALUE_TEXT,
            &format,
            &["MyValue", "my_value", "12345"],
        ));
    }
    errors
}

/// The number of a port.
pub(super) fn port_number(value: i32) -> Vec<String> {
    if (1..=65535).contains(&value) {
        Vec::new()
    } else {
        vec!["must be between 1 and 65535, inclusive".to_owned()]
    }
}

/// The name of a container's port (an IANA service name, RFC 6335), which `targetPort` may give.
pub(super) fn port_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 15 {
        errors.push(too_long(15));
    }
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if value.is_empty() || !value.chars().all(known) {
        errors.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !value.chars().any(|c| c.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// Reads an IPv4 address whose octets may have leading zeros, which old servers accepted.
fn sloppy_ipv4(value: &str) -> Option<Ipv4Addr> {
    let octet = |part: &str| {
        let digits = !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
        if digits {
            part.parse::<u8>().ok()
        } else {
            None
        }
    };
    let octets: Option<Vec<u8>> = value.split('.').map(octet).collect();
    let octets: [u8; 4] = octets?.try_into().ok()?;
    Some(octets.into())
}

/// Reads an IP address strictly: no leading zeros, no IPv4-mapped IPv6 addresses; other spellings of an IPv6 address are fine.
pub(super) fn ip(value: &str) -> Result<IpAddr, String> {
    match value.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            Err("must not be an IPv4-mapped IPv6 address".to_owned())
        }
        Ok(address) => Ok(address),
        Err(_) if sloppy_ipv4(value).is_some() => Err("must not have leading 0s".to_owned()),
        Err(_) => Err("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()),
    }
}

/// Reads an IP address that must be in its canonical spelling too.
pub(super) fn canonical_ip(value: &str) -> Result<IpAddr, String> {
    let address = ip(value)?;
    if address.to_string() == value {
        Ok(address)
    } else {
        Err(format!("must be in canonical form (\"{address}\")"))
    }
}

/// Reads a CIDR strictly: no leading zeros and no bits beyond the prefix.
pub(super) fn cidr(value: &str) -> Result<IpNet, String> {
    let malformed = || "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned();
    let (address, length) = value.split_once('/').ok_or_else(malformed)?;
    let digits = !length.is_empty() && length.chars().all(|c| c.is_ascii_digit());
    if !digits || length.parse::<u8>().is_err() {
        return Err(malformed());
    }
    if (length.len() > 1 && length.starts_with('0'))
        || (address.parse::<IpAddr>().is_err() && sloppy_ipv4(address).is_some())
    {
        return Err("must not have leading 0s in IP or prefix length".to_owned());
    }
    let net: IpNet = value.parse().map_err(|_| malformed())?;
    if let IpAddr::V6(address) = net.addr()
        && address.to_ipv4_mapped().is_some()
    {
        return Err("must not have an IPv4-mapped IPv6 address".to_owned());
    }
    if net.addr() != net.network() {
        return Err("must not have bits set beyond the prefix length".to_owned());
    }
    Ok(net)
}

/// What is wrong with an address that traffic is to be sent to: an endpoint's address or an externalIP.
pub(super) fn endpoint_ip(address: IpAddr) -> Vec<String> {
    let mut errors = Vec::new();
    if address.is_unspecified() {
        errors.push(format!("may not be unspecified ({address})"));
    }
    if address.is_loopback() {
        errors.push("may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned());
    }
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(address) => (
            address.is_link_local(),
            address.octets()[..3] == [224, 0, 0],
        ),
        IpAddr::V6(address) => (
            address.is_unicast_link_local(),
            address.is_multicast() && address.segments()[0] & 0xf == 2,
        ),
    };
    if link_local {
        errors.push("may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned());
    }
    if link_local_multicast {
        errors.push(
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned(),
        );
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "my-name", "123-abc", "1"] {
            assert_eq!(dns_label(good), Vec::<String>::new(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", &"a".repeat(64)] {
            assert!(!dns_label(bad).is_empty(), "{bad}");
        }
        for good in ["a.b", "node-1.example.com"] {
            assert_eq!(dns_subdomain(good), Vec::<String>::new(), "{good}");
        }
        for bad in ["a..b", ".a", "a.", "a b"] {
            assert!(!dns_subdomain(bad).is_empty(), "{bad}");
        }
        assert_eq!(dns_label("a.b"), ["must not contain dots"]);
        assert!(domain_name("example").len() == 1 && domain_name("example.com.").is_empty());
    }

    #[test]
    fn labels() {
        for good in ["app", "app.kubernetes.io/name", "A_b.C-1"] {
            assert_eq!(qualified_name(good), Vec::<String>::new(), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "-a", "Upper.Case/name", "a b"] {
            assert!(!qualified_name(bad).is_empty(), "{bad}");
        }
        assert!(label_value("").is_empty() && !label_value("a b").is_empty());
    }

    #[test]
    fn ports() {
        assert!(port_name("http").is_empty() && port_name("p-1").is_empty());
        for bad in ["", "80", "a--b", "-a", "HTTP", "longer-than-fifteen"] {
            assert!(!port_name(bad).is_empty(), "{bad}");
        }
        assert!(
            port_number(0).len() == 1 && port_number(65536).len() == 1 && port_number(1).is_empty()
        );
    }

    #[test]
    fn addresses() {
        assert!(ip("10.0.0.1").is_ok() && ip("FD00:0::1").is_ok());
        assert_eq!(ip("010.0.0.1").unwrap_err(), "must not have leading 0s");
        assert_eq!(
            ip("::ffff:1.2.3.4").unwrap_err(),
            "must not be an IPv4-mapped IPv6 address"
        );
        assert!(ip("10.0.0").is_err() && ip("").is_err() && ip("10.0.0.1/8").is_err());
        assert!(canonical_ip("FD00:0::1").is_err() && canonical_ip("fd00::1").is_ok());
        assert!(cidr("10.0.0.0/8").is_ok() && cidr("fd00::/64").is_ok());
        for bad in [
            "10.0.0.1/8",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0.0/08",
            "010.0.0.0/8",
            "x/8",
            "10.0.0.0/+8",
        ] {
            assert!(cidr(bad).is_err(), "{bad}");
        }
        for bad in [
            "127.0.0.1",
            "::1",
            "0.0.0.0",
            "::",
            "169.254.1.1",
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
        ] {
            assert_eq!(endpoint_ip(bad.parse().unwrap()).len(), 1, "{bad}");
        }
        for good in ["10.0.0.1", "fd00::1", "239.0.0.1"] {
            assert!(endpoint_ip(good.parse().unwrap()).is_empty(), "{good}");
        }
    }
}
