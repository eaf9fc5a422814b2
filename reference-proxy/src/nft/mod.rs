//! The kernel's side: the ruleset over netlink.
//!
//! `netlink-packet-netfilter` is used here and nowhere else, because its nftables part is young and its interface will change.

mod expression;
mod message;
mod socket;
mod table;
mod wire;

pub use self::table::{Difference, NetlinkTable};
