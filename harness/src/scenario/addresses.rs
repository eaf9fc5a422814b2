//! Addresses that scenarios give to Services. They are routed to nodes by the world but belong to nobody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use oracle::Family;

/// The `number`-th externalIP: `198.51.100.N` or `2001:db8:51::N`.
pub fn external_ip(number: u16, family: Family) -> IpAddr {
    pick(family, [198, 51, 100], [0x2001, 0xdb8, 0x51], number)
}

/// The `number`-th LoadBalancer address: `203.0.113.N` or `2001:db8:113::N`.
pub fn load_balancer_ip(number: u16, family: Family) -> IpAddr {
    pick(family, [203, 0, 113], [0x2001, 0xdb8, 0x113], number)
}

/// The `number`-th ClusterIP of the static band: `10.96.0.N` or `fd00:96::N`.
pub fn service_ip(number: u16, family: Family) -> IpAddr {
    pick(family, [10, 96, 0], [0xfd00, 0x96, 0], number)
}

fn pick(family: Family, v4: [u8; 3], v6: [u16; 3], number: u16) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::new(v4[0], v4[1], v4[2], number.min(255) as u8).into(),
        Family::Ipv6 => Ipv6Addr::new(v6[0], v6[1], v6[2], 0, 0, 0, 0, number).into(),
    }
}
