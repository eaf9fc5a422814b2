//! The fixed part of the ruleset: which chains and sets there are and what the rules say.
//!
//! The number of rules does not depend on the number of Services. Two things are made when they are first needed, and kept: a chain for
//! each distinct number of endpoints, and a set with its recording rules for each distinct affinity timeout.

use super::{
    element::{Data, Element, Family, Protocol, SetId, SetKind, View},
    rule::{Chain, Field, Rule, Statement},
};

/// The name of the table, in the `inet` family.
pub const TABLE: &str = "reference-proxy";

/// How many clients the affinity map of a family remembers at most. When it is full, further clients are served without affinity.
pub const AFFINITY_SIZE: u32 = 1 << 20;

/// The chains that always exist, in an order in which each one only refers to earlier ones.
pub const CHAINS: [Chain; 10] = [
    Chain::Refuse,
    Chain::SourceRanges,
    Chain::Services,
    Chain::Masquerading,
    Chain::Affinities,
    Chain::Tracking,
    Chain::Prerouting,
    Chain::Output,
    Chain::Recording,
    Chain::Postrouting,
];

/// The sets that always exist.
pub fn sets() -> impl Iterator<Item = SetId> {
    SetKind::FIXED
        .into_iter()
        .flat_map(|kind| Family::ALL.map(|family| SetId::new(kind, family)))
}

/// Destination address, protocol and port: how a packet names a frontend.
fn frontend(family: Family) -> Vec<Field> {
    vec![
        Field::Destination(family),
        Field::Protocol,
        Field::DestinationPort,
    ]
}

/// How a connection's first packet named the frontend, after its destination was translated.
fn original_frontend(family: Family) -> Vec<Field> {
    vec![
        Field::OriginalDestination(family),
        Field::Protocol,
        Field::OriginalDestinationPort,
    ]
}

/// The rules of a chain that is not one per something.
fn both(rules: impl Fn(Family) -> Vec<Vec<Statement>>) -> Vec<Rule> {
    Family::ALL
        .into_iter()
        .flat_map(|family| {
            rules(family).into_iter().map(move |mut statements| {
                statements.insert(0, Statement::IsFamily(family));
                Rule(statements)
            })
        })
        .collect()
}

/// The rules of `chain`. Those of [`Chain::Affinities`] come and go with the timeouts, see [`affinity_rules`].
pub fn rules(chain: Chain) -> Vec<Rule> {
    use Statement::*;
    let set = SetId::new;
    match chain {
        Chain::Refuse => vec![
            Rule(vec![IsProtocol(Protocol::Tcp), Reset]),
            Rule(vec![Unreachable]),
        ],
        Chain::SourceRanges => both(|f| {
            let mut with_source = frontend(f);
            with_source.push(Field::Source(f));
            vec![vec![
                In(frontend(f), set(SetKind::Restricted, f)),
                NotIn(with_source, set(SetKind::SourceRanges, f)),
                Drop,
            ]]
        }),
        Chain::Services => both(|f| {
            vec![
                vec![Dispatch(frontend(f), set(SetKind::Services, f))],
                vec![
                    In(vec![Field::Destination(f)], set(SetKind::ClusterIps, f)),
                    Goto(Chain::Refuse),
                ],
            ]
        }),
        Chain::Prerouting => {
            let mut rules = vec![Rule(vec![Jump(Chain::SourceRanges)])];
            rules.extend(both(|f| {
                vec![vec![
                    NotIn(vec![Field::Source(f)], set(SetKind::Pods, f)),
                    Dispatch(frontend(f), set(SetKind::External, f)),
                ]]
            }));
            rules.push(Rule(vec![Jump(Chain::Services)]));
            rules
        }
        Chain::Output => vec![
            Rule(vec![Jump(Chain::SourceRanges)]),
            Rule(vec![Jump(Chain::Services)]),
        ],
        Chain::Postrouting => vec![Rule(vec![IsTranslated, Jump(Chain::Masquerading)])],
        Chain::Masquerading => both(|f| {
            let mut rules = vec![
                vec![
                    In(
                        vec![Field::Source(f), Field::Destination(f)],
                        set(SetKind::Hairpin, f),
                    ),
                    Masquerade,
                ],
                vec![
                    In(vec![Field::Source(f)], set(SetKind::LocalSources, f)),
                    Return,
                ],
                // An address of a Service that the node holds: its own processes send from it, and replies to it would go astray.
                vec![IsFromNode, Masquerade],
                vec![
                    In(
                        vec![Field::OriginalDestination(f)],
                        set(SetKind::ClusterIps, f),
                    ),
                    NotIn(vec![Field::Source(f)], set(SetKind::ClusterSources, f)),
                    Masquerade,
                ],
            ];
            rules.extend(Protocol::ALL.map(|protocol| {
                vec![
                    IsProtocol(protocol),
                    In(original_frontend(f), set(SetKind::Masquerade, f)),
                    Masquerade,
                ]
            }));
            rules
        }),
        Chain::Recording => vec![Rule(vec![IsNew, IsTranslated, Jump(Chain::Affinities)])],
        Chain::Affinities => Vec::new(),
        Chain::Tracking => both(|f| {
            vec![vec![
                IsInvalid,
                In(
                    vec![Field::Source(f), Field::Protocol, Field::SourcePort],
                    set(SetKind::Targets, f),
                ),
                Drop,
            ]]
        }),
        Chain::Balance(f, view, endpoints) => {
            let map = match view {
                View::Common => SetKind::Endpoints,
                View::External => SetKind::ExternalEndpoints,
            };
            let choice = |below| {
                let mut key = vec![Field::Random(below)];
                key.extend(frontend(f));
                Rule(vec![IsFamily(f), Translate(key, set(map, f))])
            };
            let mut rules = vec![choice(endpoints)];
            if endpoints > 1 {
                // Lookups see the elements of their own moment: a packet that was sent here just before an endpoint went may choose that one,
                // and would go on untranslated. The first endpoint is there as long as there is one.
                rules.push(choice(1));
            }
            rules
        }
        Chain::StickyBalance(f, view, endpoints) => {
            let mut key = vec![Field::Source(f)];
            key.extend(frontend(f));
            vec![
                Rule(vec![IsFamily(f), Translate(key, set(SetKind::Affinity, f))]),
                Rule(vec![Goto(Chain::Balance(f, view, endpoints))]),
            ]
        }
    }
}

/// The rules that record affinities with this timeout, for [`Chain::Affinities`].
pub fn affinity_rules(family: Family, seconds: u32) -> Vec<Rule> {
    Protocol::ALL
        .map(|protocol| {
            let mut key = vec![Field::OriginalSource(family)];
            key.extend(original_frontend(family));
            Rule(vec![
                Statement::IsFamily(family),
                Statement::IsProtocol(protocol),
                Statement::In(
                    original_frontend(family),
                    SetId::new(SetKind::Sticky(seconds), family),
                ),
                Statement::Remember(key, SetId::new(SetKind::Affinity, family), seconds),
            ])
        })
        .to_vec()
}

/// The chains that `element` leads to and that are made when first needed, each after those it refers to.
pub fn chains_for(element: &Element) -> impl Iterator<Item = Chain> {
    let chain = match element.data {
        Data::Verdict(verdict) => Chain::of(element.set.family, verdict),
        _ => None,
    };
    let (first, second) = match chain {
        Some(Chain::StickyBalance(f, view, n)) => (Some(Chain::Balance(f, view, n)), chain),
        Some(Chain::Balance(..)) => (None, chain),
        _ => (None, None),
    };
    first.into_iter().chain(second)
}
