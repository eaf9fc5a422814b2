//! The vocabulary of rules: no more than what the layout needs.
//!
//! Both renderers (`text.rs`, `nft/expression.rs`) know every statement, so a rule cannot mean one thing to people and another to the
//! kernel.

use super::element::{Family, Protocol, SetId, Verdict, View};

/// A part of a packet, or of its connection, that can be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// The source address.
    Source(Family),
    /// The destination address.
    Destination(Family),
    /// The transport protocol.
    Protocol,
    /// The source port.
    SourcePort,
    /// The destination port.
    DestinationPort,
    /// The address that the connection was opened from.
    OriginalSource(Family),
    /// The address that the connection was opened to, before any translation.
    OriginalDestination(Family),
    /// The port that the connection was opened to, before any translation.
    OriginalDestinationPort,
    /// A random number below this one.
    Random(u32),
}

/// One statement of a rule. A match that fails ends the rule, not the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// The packet is of this family.
    IsFamily(Family),
    /// The packet is of this protocol.
    IsProtocol(Protocol),
    /// The packet opens a connection. The kernel calls every packet new until one came back; this is the first of them alone.
    IsNew,
    /// The packet belongs to no connection that it could belong to.
    IsInvalid,
    /// The connection's destination was translated, by whomever.
    IsTranslated,
    /// The source address is one that this node holds, on whatever interface.
    IsFromNode,
    /// The fields are in the set.
    In(Vec<Field>, SetId),
    /// The fields are not in the set.
    NotIn(Vec<Field>, SetId),
    /// Do what the map says about the fields.
    Dispatch(Vec<Field>, SetId),
    /// Send the connection to the endpoint that the map has for the fields.
    Translate(Vec<Field>, SetId),
    /// Remember the destination in the map for this many seconds.
    Remember(Vec<Field>, SetId, u32),
    /// Go on in another chain and come back.
    Jump(Chain),
    /// Go on in another chain.
    Goto(Chain),
    /// Come back.
    Return,
    /// Drop the packet.
    Drop,
    /// Answer with a TCP reset and drop the packet.
    Reset,
    /// Answer with ICMP "port unreachable" and drop the packet.
    Unreachable,
    /// Replace the source address by the node's.
    Masquerade,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule(pub Vec<Statement>);

/// A chain, by its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Chain {
    /// Hook: what arrives, before routing.
    Prerouting,
    /// Hook: what the node itself sends.
    Output,
    /// Hook: what leaves, after routing.
    Postrouting,
    /// Hook: what leaves, before its source is translated.
    Recording,
    /// Hook: what arrives, after connection tracking.
    Tracking,
    /// Sources that a load balancer IP does not serve.
    SourceRanges,
    /// Dispatch by frontend.
    Services,
    /// The refusal.
    Refuse,
    /// Which connections need the node's address as their source.
    Masquerading,
    /// One rule per distinct affinity timeout, family and protocol.
    Affinities,
    /// The choice between this many endpoints.
    Balance(Family, View, u32),
    /// The same, after the client's last endpoint was tried.
    StickyBalance(Family, View, u32),
}

impl Chain {
    /// The chain that carries out a verdict, `None` for [`Verdict::Drop`].
    pub fn of(family: Family, verdict: Verdict) -> Option<Self> {
        match verdict {
            Verdict::Drop => None,
            Verdict::Refuse => Some(Self::Refuse),
            Verdict::Balance {
                view,
                endpoints,
                sticky,
            } => Some(if sticky {
                Self::StickyBalance(family, view, endpoints)
            } else {
                Self::Balance(family, view, endpoints)
            }),
        }
    }

    /// The chain with this name in the kernel, the reverse of `Display`.
    pub fn parse(name: &str) -> Option<Self> {
        let fixed = [
            Self::Prerouting,
            Self::Output,
            Self::Postrouting,
            Self::Recording,
            Self::Tracking,
            Self::SourceRanges,
            Self::Services,
            Self::Refuse,
            Self::Masquerading,
            Self::Affinities,
        ];
        if let Some(chain) = fixed.into_iter().find(|chain| chain.to_string() == name) {
            return Some(chain);
        }
        let (sticky, rest) = match name.strip_prefix("sticky-") {
            Some(rest) => (true, rest),
            None => (false, name),
        };
        let (view, rest) = match rest.strip_prefix("external-") {
            Some(rest) => (View::External, rest),
            None => (View::Common, rest),
        };
        let (digit, endpoints) = rest.strip_prefix("balance")?.split_once('-')?;
        let family = match digit {
            "4" => Family::V4,
            "6" => Family::V6,
            _ => return None,
        };
        let endpoints = endpoints.parse().ok()?;
        Some(if sticky {
            Self::StickyBalance(family, view, endpoints)
        } else {
            Self::Balance(family, view, endpoints)
        })
    }

    /// The hook, for a chain that packets enter by themselves.
    pub fn hook(self) -> Option<BaseHook> {
        let (kind, hook, priority) = match self {
            Self::Prerouting => ("nat", "prerouting", -100),
            Self::Output => ("nat", "output", -100),
            Self::Postrouting => ("nat", "postrouting", 100),
            // After the destination and before the source is translated.
            Self::Recording => ("filter", "postrouting", 99),
            // After connection tracking (-200) and before anybody's mangling (-150).
            Self::Tracking => ("filter", "prerouting", -151),
            _ => return None,
        };
        Some(BaseHook {
            kind,
            hook,
            priority,
        })
    }
}

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let view = |view: &View| match view {
            View::Common => "",
            View::External => "external-",
        };
        f.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Recording => "recording",
            Self::Tracking => "tracking",
            Self::SourceRanges => "source-ranges",
            Self::Services => "services",
            Self::Refuse => "refuse",
            Self::Masquerading => "masquerading",
            Self::Affinities => "affinities",
            Self::Balance(family, v, n) => {
                return write!(f, "{}balance{}-{n}", view(v), family.digit());
            }
            Self::StickyBalance(family, v, n) => {
                return write!(f, "sticky-{}balance{}-{n}", view(v), family.digit());
            }
        })
    }
}

/// Where packets enter a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseHook {
    /// `nat` or `filter`.
    pub kind: &'static str,
    /// The hook's name.
    pub hook: &'static str,
    /// The place among the other chains of the hook; lower goes first.
    pub priority: i32,
}
