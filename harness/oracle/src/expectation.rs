//! The answer of the oracle, as a value that reports can print and the runner can check.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What must happen to a new flow from one source to one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectation {
    /// Exactly one outcome, unless `characteristic` is set: then each of these is acceptable, and which one a
    /// candidate shows is recorded.
    pub outcomes: Vec<Outcome>,
    /// The choice that the API leaves open here, if it leaves one.
    pub characteristic: Option<Characteristic>,
    /// The chain of rules that led to the outcome, each starting with a requirement id.
    pub why: Vec<String>,
    /// Ids of all requirements named in `why`, each once, in that order.
    pub requirements: Vec<String>,
    /// How long a client sticks to its endpoint, when the Service has session affinity.
    pub affinity: Option<Duration>,
    /// The client's own addresses in the family of the destination: what an endpoint sees when the address is
    /// preserved.
    pub client_ips: Vec<IpAddr>,
    /// Who answers when no service proxy interferes. Only meaningful for [`Outcome::NotService`].
    pub direct: Direct,
}

/// One acceptable thing to happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// One of these endpoints answers.
    Endpoints {
        /// The endpoints and how often each is chosen, sorted by address and port.
        shares: Vec<Share>,
        /// What the endpoint sees as the client's address.
        client: ClientAddress,
    },
    /// The client learns at once that nobody is there: TCP RST or ICMP (port) unreachable.
    Refuse,
    /// The packets vanish: the client times out.
    Drop,
    /// Plain routing decides, not a service proxy.
    NotService,
    /// Refused or dropped, either is fine, but nobody may answer.
    NoAnswer,
}

/// One endpoint's part of the traffic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Share {
    /// The endpoint's address.
    pub ip: IpAddr,
    /// The endpoint's port (the resolved target port).
    pub port: u16,
    /// Its weight relative to the other shares of the outcome. Endpoints are equal, so this is 1.
    pub weight: u32,
    /// The pod behind the address, if known.
    pub pod: Option<String>,
    /// The node it is on: the pod's, or the one that the endpoint names when the pod is not known.
    pub node: Option<String>,
    /// The endpoint is the client itself. Then the client address must be changed as far as the return path needs
    /// it, so whatever address the endpoint sees is right as long as it answers.
    pub hairpin: bool,
}

/// What an endpoint sees as the client's address (hairpin shares excepted).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAddress {
    /// The client's own address.
    Preserved,
    /// The client's own address or one that the proxy put in its place.
    NotPreservedAllowed,
}

/// Who answers when no service proxy interferes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "direct", rename_all = "kebab-case")]
pub enum Direct {
    /// Nobody known: an answer would come from somewhere it must not come from.
    #[default]
    Nobody,
    /// The pod that owns the address, if it listens on the port.
    Pod {
        /// The pod's name.
        name: String,
    },
    /// A listener that is known to be there, so it must answer.
    Listener {
        /// What the listener calls itself in its answers.
        name: String,
    },
}

/// A difference between implementations that no specification decides: recorded, never failed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Characteristic {
    /// Stable name, kebab case.
    pub id: String,
    /// What is left open, and why.
    pub text: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Endpoints { shares, client } => {
                f.write_str("answered by ")?;
                for (i, share) in shares.iter().enumerate() {
                    if i > 0 {
                        f.write_str(" | ")?;
                    }
                    write!(f, "{share}")?;
                }
                match client {
                    ClientAddress::Preserved => f.write_str(", client address kept"),
                    ClientAddress::NotPreservedAllowed => Ok(()),
                }
            }
            Outcome::Refuse => f.write_str("refused"),
            Outcome::Drop => f.write_str("dropped"),
            Outcome::NotService => f.write_str("plain routing"),
            Outcome::NoAnswer => f.write_str("no answer"),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(pod) = &self.pod {
            write!(f, "{pod} ")?;
        }
        match self.ip {
            IpAddr::V4(ip) => write!(f, "{ip}:{}", self.port)?,
            IpAddr::V6(ip) => write!(f, "[{ip}]:{}", self.port)?,
        }
        if self.hairpin {
            f.write_str(" (itself)")
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, outcome) in self.outcomes.iter().enumerate() {
            if i > 0 {
                f.write_str("; or ")?;
            }
            write!(f, "{outcome}")?;
        }
        Ok(())
    }
}
