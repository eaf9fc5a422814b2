//! The kernel's side: the ruleset over netlink.
//!
//! `netlink-packet-netfilter` is used here and nowhere else, because its nftables part is young and its interface will change.

mod expression;
mod message;
mod monitor;
mod socket;
mod table;
mod wire;

pub use self::monitor::Monitor;
pub use self::table::{Difference, Layout, NetlinkTable};
