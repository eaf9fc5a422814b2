//! The bundled reference nftables Service proxy.
