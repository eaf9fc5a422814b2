//! The bundled reference nftables Service proxy.

pub mod conntrack;
pub mod health;
pub mod metrics;
