//! The faults of scenarios: dose, effect, how the effect is seen, and the bugs that each stands for.
//!
//! `harness explain nemeses` prints it as `docs/nemeses.md`. A fault without a row does not compile, and one without an effect does not run: what
//! `run/steps/fault.rs` measures is named here.

use std::fmt::Write as _;

use crate::scenario::doc::{ApiFault, Fault, NodeFault, ProxyFault};

/// Which fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// With the candidate's process.
    Proxy(ProxyFault),
    /// With a node.
    Node(NodeFault),
    /// With the API server.
    Api(ApiFault),
}

/// A fault of scenarios.
#[derive(Clone, Copy, Debug)]
pub struct Nemesis {
    /// As documents spell it, without its group.
    pub name: &'static str,
    /// What is done.
    pub does: &'static str,
    /// How much of it.
    pub dose: Dose,
    /// What is measured of it.
    pub effect: Effect,
    /// Issues and rows of the bug catalogue.
    pub stands_for: &'static [&'static str],
}

/// How much is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Dose {
    /// A number that a parameter of the fault says.
    Parameter {
        /// The parameter.
        parameter: Parameter,
        /// Its value when it is not given.
        default: u32,
        /// What it counts.
        what: &'static str,
        /// Its unit in reports.
        unit: &'static str,
    },
    /// The nodes of `on`; all by default.
    Nodes,
    /// Whatever there is: this.
    All(&'static str),
}

/// Parameters that are doses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// `links`.
    Links,
    /// `entries`.
    Entries,
    /// `free`.
    Free,
    /// `cpu`.
    Cpu,
    /// `times`.
    Times,
    /// `delay`, in milliseconds.
    Delay,
}

/// What shows that a fault did anything.
#[derive(Clone, Copy, Debug)]
pub struct Effect {
    /// What is counted.
    pub what: &'static str,
    /// Its unit in reports.
    pub unit: &'static str,
    /// What has to be seen; an attempt in which it is not is `infra`.
    pub seen: &'static str,
}

impl Parameter {
    /// As documents spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Links => "links",
            Self::Entries => "entries",
            Self::Free => "free",
            Self::Cpu => "cpu",
            Self::Times => "times",
            Self::Delay => "delay",
        }
    }

    /// What a document gives.
    pub fn of(self, fault: &Fault) -> Option<u32> {
        match self {
            Self::Links => fault.links,
            Self::Entries => fault.entries,
            Self::Free => fault.free,
            Self::Cpu => fault.cpu,
            Self::Times => fault.times,
            Self::Delay => fault
                .delay
                .map(|delay| u32::try_from(delay.0.as_millis()).unwrap_or(u32::MAX)),
        }
    }
}

impl Which {
    /// The fault of a step; `None` for one that validation rejects.
    pub fn of(fault: &Fault) -> Option<Self> {
        match (fault.proxy, fault.node, fault.api) {
            (Some(proxy), None, None) => Some(Self::Proxy(proxy)),
            (None, Some(node), None) => Some(Self::Node(node)),
            (None, None, Some(api)) => Some(Self::Api(api)),
            _ => None,
        }
    }

    /// The key of the fault in documents.
    pub fn group(self) -> &'static str {
        match self {
            Self::Proxy(_) => "proxy",
            Self::Node(_) => "node",
            Self::Api(_) => "api",
        }
    }

    /// All of them, in the order of the schema.
    pub fn all() -> Vec<Self> {
        use ApiFault as A;
        use NodeFault as N;
        use ProxyFault as P;
        let proxy = [
            P::Restart,
            P::Kill,
            P::Down,
            P::Start,
            P::Cleanup,
            P::Stop,
            P::Continue,
            P::Starve,
        ];
        let node = [
            N::FlushRuleset,
            N::ForeignTable,
            N::LinkChurn,
            N::SeizeTables,
            N::FlushConntrack,
            N::Address,
            N::ConntrackPressure,
            N::ExhaustPorts,
            N::NetworkAddress,
        ];
        let api = [
            A::DropWatches,
            A::Outage,
            A::HalfOpen,
            A::Forget,
            A::Compact,
            A::Errors,
            A::Delay,
            A::ShuffledRelist,
            A::NoopUpdates,
            A::DuplicateEvents,
            A::Restart,
            A::Restore,
            A::Late,
        ];
        proxy
            .map(Self::Proxy)
            .into_iter()
            .chain(node.map(Self::Node))
            .chain(api.map(Self::Api))
            .collect()
    }

    /// Its row.
    pub fn nemesis(self) -> Nemesis {
        match self {
            Self::Proxy(fault) => of_proxy(fault),
            Self::Node(fault) => of_node(fault),
            Self::Api(fault) => of_api(fault),
        }
    }

    /// The dose of a step, where it is a parameter.
    pub fn dose(self, fault: &Fault) -> Option<u32> {
        match self.nemesis().dose {
            Dose::Parameter {
                parameter, default, ..
            } => Some(parameter.of(fault).unwrap_or(default)),
            Dose::Nodes | Dose::All(_) => None,
        }
    }
}

fn of_proxy(fault: ProxyFault) -> Nemesis {
    let row = |name, does, what, seen, stands_for| Nemesis {
        name,
        does,
        dose: Dose::Nodes,
        effect: Effect {
            what,
            unit: "count",
            seen,
        },
        stands_for,
    };
    match fault {
        ProxyFault::Restart => row(
            "restart",
            "SIGTERM, and started again",
            "instances replaced",
            "every instance is another process than before, and ready",
            &[
                "kubernetes/kubernetes#75360",
                "cilium/cilium#26912",
                "bug:T4",
                "bug:T5",
            ],
        ),
        ProxyFault::Kill => row(
            "kill",
            "SIGKILL, and started again",
            "instances replaced",
            "every instance is another process than before, and ready",
            &["kubernetes/kubernetes#75360", "bug:T4", "bug:R18"],
        ),
        ProxyFault::Down => row(
            "down",
            "SIGTERM, and away until `start`",
            "instances ended",
            "the processes are gone",
            &["cilium/cilium#48050", "bug:R5", "bug:T14"],
        ),
        ProxyFault::Start => row(
            "start",
            "started again after `down`",
            "instances started",
            "every instance is ready",
            &["kubernetes/kubernetes#125467", "bug:U9"],
        ),
        ProxyFault::Cleanup => row(
            "cleanup",
            "its own command removes what it left in the kernel, after `down`",
            "cleanups done",
            "every one of them ended with 0",
            &[
                "kubernetes/kubernetes#102314",
                "kubernetes/kubernetes#119265",
                "bug:R9",
            ],
        ),
        ProxyFault::Stop => row(
            "stop",
            "SIGSTOP until `continue`",
            "instances stopped",
            "the kernel calls the processes stopped",
            &["kubernetes/kubernetes#126130", "bug:U9"],
        ),
        ProxyFault::Continue => row(
            "continue",
            "SIGCONT after `stop`",
            "instances running",
            "the kernel calls the processes stopped no longer",
            &["kubernetes/kubernetes#126130", "bug:U9"],
        ),
        ProxyFault::Starve => Nemesis {
            dose: Dose::Parameter {
                parameter: Parameter::Cpu,
                default: 10,
                what: "time in which it may run",
                unit: "percent",
            },
            effect: Effect {
                what: "time in which it could run",
                unit: "ratio",
                seen: "each process was seen stopped in some period of 50 ms, and could run for less than twice its dose and a tenth",
            },
            ..row(
                "starve",
                "stopped for most of every 50 ms, as if others had the CPU; no clock lies and nobody else is slowed down",
                "",
                "",
                &[
                    "kubernetes/kubernetes#135323",
                    "kubernetes/kubernetes#121362",
                    "bug:U12",
                    "bug:R1",
                ],
            )
        },
    }
}

fn of_node(fault: NodeFault) -> Nemesis {
    let row = |name, does, dose, effect, stands_for| Nemesis {
        name,
        does,
        dose,
        effect,
        stands_for,
    };
    let count = |what, seen| Effect {
        what,
        unit: "count",
        seen,
    };
    match fault {
        NodeFault::FlushRuleset => row(
            "flushRuleset",
            "`nft flush ruleset`",
            Dose::All("every table of everybody"),
            count("tables removed", "there was one, and the kernel removed it"),
            &["kubernetes/kubernetes#81517", "bug:R7", "bug:R8"],
        ),
        NodeFault::SeizeTables => row(
            "seizeTables",
            "every table is replaced by an empty one that nobody but the harness may change (the flag `owner` of nftables), until it ends",
            Dose::All("every table of everybody"),
            count(
                "tables seized",
                "there was one, and it is still the harness's at the end",
            ),
            &[
                "kubernetes/kubernetes#112604",
                "kube-router@aba49a98",
                "bug:U8",
                "bug:R16",
            ],
        ),
        NodeFault::ForeignTable => row(
            "foreignTable",
            "a table of somebody else, with a set, a map and a chain that accepts",
            Dose::All("one table"),
            count("tables made", "the ruleset holds it"),
            &["kubernetes/kubernetes#136786", "bug:R12"],
        ),
        NodeFault::LinkChurn => row(
            "linkChurn",
            "veth pairs and addresses come and go as fast as they can, until it ends",
            Dose::Parameter {
                parameter: Parameter::Links,
                default: 50,
                what: "links that are replaced in turn",
                unit: "count",
            },
            Effect {
                what: "interrupted dumps",
                unit: "ratio",
                seen: "the node's own dumps of links, addresses and routes carry NLM_F_DUMP_INTR, at least one of them; the fault goes on for up to 15 s until one does",
            },
            &[
                "kubernetes/kubernetes#129146",
                "vishvananda/netlink#925",
                "golang/go#51934",
                "cilium/cilium#48718",
                "bug:B1",
            ],
        ),
        NodeFault::FlushConntrack => row(
            "flushConntrack",
            "every entry of connection tracking is removed",
            Dose::All("every entry"),
            count(
                "entries removed",
                "there was one, and the kernel removed it",
            ),
            &["kubernetes/kubernetes#19029", "bug:U1"],
        ),
        NodeFault::Address => row(
            "address",
            "an address of the node's `lo`, until it ends",
            Dose::All("one address"),
            count("addresses added", "the kernel lists it"),
            &["kubernetes/kubernetes#112185", "bug:B1"],
        ),
        NodeFault::NetworkAddress => row(
            "networkAddress",
            "an address of the node's interface on the node network, which everybody there knows",
            Dose::All("one address"),
            count("addresses added", "the kernel lists it"),
            &["kubernetes/kubernetes#138183", "bug:R17"],
        ),
        NodeFault::ConntrackPressure => row(
            "conntrackPressure",
            "entries of nobody's flows in the node's connection tracking table, until it ends. The limit of the table is the machine's and stays far: \
             what is pressed is whoever dumps, searches and cleans up",
            Dose::Parameter {
                parameter: Parameter::Entries,
                default: 20_000,
                what: "entries added",
                unit: "count",
            },
            count(
                "entries of others in the table",
                "the kernel lists as many as were added; at the end they have to be untouched, or the candidate fails",
            ),
            &[
                "kubernetes/kubernetes#135323",
                "kubernetes/kubernetes#129562",
                "kubernetes/kubernetes#129982",
                "mdlayher/netlink#280",
                "mdlayher/netlink#283",
                "bug:U11",
                "bug:U12",
            ],
        ),
        NodeFault::ExhaustPorts => row(
            "exhaustPorts",
            "the node's ephemeral ports are few (`ip_local_port_range` of its namespace) and held by sockets, until it ends",
            Dose::Parameter {
                parameter: Parameter::Free,
                default: 0,
                what: "ephemeral ports left",
                unit: "count",
            },
            count(
                "ephemeral ports held",
                "the kernel gives no more than the dose to a program that asks",
            ),
            &[
                "calico#4431",
                "kubernetes/kubernetes#81775",
                "bug:T10",
                "bug:T13",
            ],
        ),
    }
}

fn of_api(fault: ApiFault) -> Nemesis {
    let row = |name, does, dose, what, seen, stands_for| Nemesis {
        name,
        does,
        dose: Dose::All(dose),
        effect: Effect {
            what,
            unit: "count",
            seen,
        },
        stands_for,
    };
    let delay = |default, what| Dose::Parameter {
        parameter: Parameter::Delay,
        default,
        what,
        unit: "ms",
    };
    match fault {
        ApiFault::DropWatches => row(
            "dropWatches",
            "connections with watches are reset",
            "every running watch",
            "watches dropped",
            "there was one; the fault waits up to 15 s for it",
            &["kubernetes/kubernetes#3216", "bug:R4"],
        ),
        ApiFault::Outage => row(
            "outage",
            "connections are reset, new ones at once, until it ends",
            "every connection",
            "connections reset",
            "somebody ran into it",
            &[
                "kubernetes/kubernetes#76338",
                "cilium/cilium#48050",
                "bug:R3",
                "bug:R5",
            ],
        ),
        ApiFault::HalfOpen => row(
            "halfOpen",
            "connections stay open and silent, new ones too, until it ends",
            "every connection",
            "connections held",
            "somebody is connected",
            &[
                "kubernetes/kubernetes#76338",
                "kubernetes/kubernetes#56720",
                "bug:R3",
            ],
        ),
        ApiFault::Forget => row(
            "forget",
            "open connections stay open and silent for good, new ones work",
            "every open connection",
            "connections forgotten",
            "there was one",
            &["kubernetes/kubernetes#56720", "bug:R3"],
        ),
        ApiFault::Compact => row(
            "compact",
            "older resourceVersions are gone: 410",
            "the whole history",
            "watches and requests told 410",
            "somebody was told; after an outage it may be that nobody asks",
            &["kubernetes/kubernetes#3216", "bug:R4"],
        ),
        ApiFault::Errors => row(
            "errors",
            "requests fail with 500, until it ends",
            "every request",
            "requests failed",
            "somebody asked",
            &["kubernetes/kubernetes#3216", "bug:R4"],
        ),
        ApiFault::Delay => Nemesis {
            dose: delay(100, "delay of each response and event"),
            ..row(
                "delay",
                "responses and events of all kinds are held back, until it ends",
                "",
                "responses and events delayed",
                "there was one",
                &["cilium/cilium#26912", "bug:T5"],
            )
        },
        ApiFault::ShuffledRelist => row(
            "shuffledRelist",
            "lists come in another order, and watches expire so that there is one",
            "every list of two or more",
            "lists in another order",
            "somebody listed",
            &["kpng@79cdcb6", "kube-router#1026", "bug:R6"],
        ),
        ApiFault::NoopUpdates => Nemesis {
            dose: Dose::Parameter {
                parameter: Parameter::Times,
                default: 1,
                what: "updates per kind",
                unit: "count",
            },
            ..row(
                "noopUpdates",
                "objects get a new resourceVersion and nothing else",
                "",
                "objects rewritten",
                "as many as were asked for",
                &["kpng@79cdcb6", "kube-router#1026", "bug:R6"],
            )
        },
        ApiFault::DuplicateEvents => row(
            "duplicateEvents",
            "events are delivered twice, until it ends",
            "every event",
            "events sent twice",
            "there was one",
            &["kpng@79cdcb6", "bug:R6"],
        ),
        ApiFault::Restart => row(
            "restart",
            "the server goes away with its listener and all connections, and comes back when it ends, with the resourceVersions it had",
            "the server",
            "connections accepted after it",
            "somebody came back",
            &[
                "kubernetes/kubernetes#3216",
                "kubernetes/kubernetes#76338",
                "bug:R3",
                "bug:R4",
            ],
        ),
        ApiFault::Restore => row(
            "restore",
            "as `restart`, and comes back from a backup: resourceVersions go on far ahead and older ones are gone (`etcdutl snapshot restore \
             --bump-revision --mark-compacted`)",
            "the server and its history",
            "connections accepted after it",
            "somebody came back",
            &[
                "kubernetes/kubernetes#3216",
                "cilium/cilium#48050",
                "bug:R4",
                "bug:R5",
            ],
        ),
        ApiFault::Late => Nemesis {
            dose: delay(200, "delay of each object of the kind"),
            ..row(
                "late",
                "objects of one kind (`kind`, EndpointSlice by default) come late and others at once, until it ends; what a list or a watch begins \
                 with comes in another order, in a watch one object at a time",
                "",
                "objects that came late",
                "there was one",
                &[
                    "cilium/cilium#26912",
                    "cilium/cilium#23823",
                    "kpng@b3de40c",
                    "bug:T5",
                ],
            )
        },
    }
}

/// `docs/nemeses.md`.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Nemeses\n\n\
         The faults of scenarios (`fault:` in their steps), made by `cargo run -p harness -- explain nemeses`; a test compares it.\n\n\
         Each has a dose, which a parameter of the step may change, and an effect, which is measured. Both are in the event log and the reports as \
         `NAME dose: ...` and `NAME effect: ...`. **An attempt in which a fault had no effect is `infra`**: nobody survived what did not happen. \
         For a candidate without a process (`null`) nothing can be felt, and nothing is demanded.\n",
    );
    for (group, title) in [
        ("proxy", "With the candidate's process"),
        ("node", "With a node's kernel"),
        ("api", "With the API server, as the candidate sees it"),
    ] {
        let _ = write!(
            text,
            "\n## {title}\n\n| `{group}:` | what is done | dose | effect | took effect if | stands for |\n|---|---|---|---|---|---|\n"
        );
        for which in Which::all()
            .into_iter()
            .filter(|which| which.group() == group)
        {
            let row = which.nemesis();
            let dose = match row.dose {
                Dose::Parameter {
                    parameter,
                    default,
                    what,
                    unit,
                } => format!(
                    "`{}`: {what} ({unit}), {default} by default",
                    parameter.name()
                ),
                Dose::Nodes => "`on`: nodes, all by default".into(),
                Dose::All(what) => what.into(),
            };
            let _ = writeln!(
                text,
                "| `{}` | {} | {dose} | {} ({}) | {} | {} |",
                row.name,
                row.does,
                row.effect.what,
                row.effect.unit,
                row.effect.seen,
                row.stands_for.join(", ")
            );
        }
    }
    text.push_str(MACHINE);
    text
}

/// Those that are no verb.
const MACHINE: &str = "
## With the machine

Not a step of a scenario: runs that repeat cases put them beside the cases (`harness/src/nemesis/`). The process that does it ends with its guard and with
the harness, however that ends.

| name | what is done | dose | effect | took effect if |
|---|---|---|---|---|
| `cpu` | threads that never sleep | hogs per CPU, 1 by default | CPU time taken from others (ratio) | it is above 0 |
| `starvation` | the same, many | hogs per CPU, 8 by default | CPU time taken from others (ratio) | it is above 0 |
| `memory` | memory that is held and used | percent of what is available, 50 by default, at most 80 | memory resident (bytes) | at least half of it was never swapped out |
";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use schemars::schema_for;
    use serde_json::{Value, json};

    use super::*;

    /// The words that documents may use.
    fn words(schema: &schemars::Schema) -> Vec<String> {
        let schema = serde_json::to_value(schema).expect("JSON");
        let variants = schema["oneOf"].as_array().expect("variants").iter();
        variants
            .map(|variant| variant["const"].as_str().expect("a word").to_owned())
            .collect()
    }

    fn names(group: &str) -> Vec<String> {
        let all = Which::all().into_iter();
        all.filter(|which| which.group() == group)
            .map(|which| which.nemesis().name.to_owned())
            .collect()
    }

    #[test]
    fn every_fault_of_the_schema_has_its_row_in_order() {
        assert_eq!(names("proxy"), words(&schema_for!(ProxyFault)));
        assert_eq!(names("node"), words(&schema_for!(NodeFault)));
        assert_eq!(names("api"), words(&schema_for!(ApiFault)));
    }

    #[test]
    fn names_are_those_of_documents() {
        for which in Which::all() {
            let document: Value = json!({ which.group(): which.nemesis().name });
            let fault: Fault = serde_json::from_value(document).expect("a fault");
            assert_eq!(Which::of(&fault), Some(which));
        }
    }

    #[test]
    fn every_row_says_all_of_it() {
        let mut seen = BTreeSet::new();
        for which in Which::all() {
            let row = which.nemesis();
            assert!(seen.insert((which.group(), row.name)), "{row:?}");
            let texts = [row.does, row.effect.what, row.effect.unit, row.effect.seen];
            assert!(texts.iter().all(|text| !text.is_empty()), "{row:?}");
            assert!(!row.stands_for.is_empty(), "{row:?}");
            let all = matches!(row.dose, Dose::All(""));
            assert!(!all, "{row:?}");
        }
    }

    #[test]
    fn a_dose_is_the_default_until_a_document_says_otherwise() {
        let fault = |text: &str| -> Fault { serde_json::from_str(text).expect("a fault") };
        let churn = Which::Node(NodeFault::LinkChurn);
        assert_eq!(churn.dose(&fault(r#"{"node": "linkChurn"}"#)), Some(50));
        let given = fault(r#"{"node": "linkChurn", "links": 7}"#);
        assert_eq!(churn.dose(&given), Some(7));
        let late = fault(r#"{"api": "late", "delay": "1s"}"#);
        assert_eq!(Which::Api(ApiFault::Late).dose(&late), Some(1_000));
        let flush = Which::Node(NodeFault::FlushRuleset);
        assert_eq!(flush.dose(&fault(r#"{"node": "flushRuleset"}"#)), None);
    }

    #[test]
    fn the_published_table_is_this_one() {
        let published = include_str!("../../../docs/nemeses.md");
        assert!(
            published == markdown(),
            "docs/nemeses.md is out of date; to renew it: cargo run -p harness -- explain nemeses > docs/nemeses.md"
        );
    }
}
