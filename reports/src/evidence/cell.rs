//! The name of a cell, taken apart: `pod client -> web ClusterIP 10.96.0.10:80/TCP`.

use std::net::SocketAddr;

/// Who connects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A pod.
    Pod(String),
    /// A client outside of the cluster, whose packets arrive at this node.
    Outside(String),
    /// A process of a node, or whoever has a plain name.
    Host(String),
}

impl Source {
    /// Reads it from the first half of a cell's name.
    pub fn parse(text: &str) -> Self {
        match (text.strip_prefix("pod "), text.strip_prefix("outside/")) {
            (Some(pod), _) => Self::Pod(pod.to_owned()),
            (_, Some(node)) => Self::Outside(node.to_owned()),
            _ => Self::Host(text.to_owned()),
        }
    }
}

/// One source and one frontend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// The whole name.
    pub label: String,
    /// Who connects.
    pub from: Source,
    /// To what, as the name says it.
    pub to: String,
    /// The Service, where the name begins with one.
    pub service: Option<String>,
    /// The address and port that are dialled.
    pub address: Option<SocketAddr>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Option<String>,
}

impl Cell {
    /// Takes a name apart as far as it can be; `None` for what is no cell at all.
    pub fn parse(label: &str) -> Option<Self> {
        let label = label.trim();
        let label = label.strip_prefix("sweep: ").unwrap_or(label);
        let (from, to) = label.split_once(" -> ")?;
        let mut words = to.rsplitn(2, ' ');
        let last = words.next().unwrap_or(to);
        let (address, protocol) = match last.rsplit_once('/') {
            Some((address, protocol)) => (address.parse().ok(), Some(protocol.to_owned())),
            None => (last.parse().ok(), None),
        };
        // A frontend is `SERVICE KIND ADDRESS`, anything else is only an address, or a name.
        let service = to.split_once(' ').map(|(service, _)| service.to_owned());
        Some(Self {
            label: label.to_owned(),
            from: Source::parse(from.trim()),
            to: to.to_owned(),
            service: service.filter(|_| address.is_some()),
            protocol: protocol.filter(|_| address.is_some()),
            address,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let cell = Cell::parse("pod client -> web LoadBalancer IP [fd00::1]:80/UDP").unwrap();
        assert_eq!(cell.from, Source::Pod("client".into()));
        assert_eq!(cell.service.as_deref(), Some("web"));
        assert_eq!(cell.address, Some("[fd00::1]:80".parse().unwrap()));
        assert_eq!(cell.protocol.as_deref(), Some("UDP"));
        let cell =
            Cell::parse("sweep: outside/node2 -> web NodePort 10.89.0.12:30086/TCP").unwrap();
        assert_eq!(cell.from, Source::Outside("node2".into()));
        assert_eq!(
            cell.label,
            "outside/node2 -> web NodePort 10.89.0.12:30086/TCP"
        );
        let cell = Cell::parse("node1 -> 10.89.0.11:1/TCP").unwrap();
        assert_eq!(cell.from, Source::Host("node1".into()));
        assert_eq!(
            (cell.service, cell.protocol.as_deref()),
            (None, Some("TCP"))
        );
        let cell = Cell::parse("a -> b c/d").unwrap();
        assert_eq!(
            (cell.service, cell.address, cell.protocol),
            (None, None, None)
        );
        assert_eq!(Cell::parse("no cell"), None);
    }
}
