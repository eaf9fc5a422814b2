//! Transactions that come at the wrong time, in the wrong order, in part, or not at all.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use super::{Fault, fault, raw};
use crate::{
    engine::Event,
    model::SlicePort,
    nft::Difference,
    ruleset::{Changes, Data, Element, Family, Protocol, SetKind},
    seams::{Kernel, WrongAffinity},
};

type Elements<'a> = dyn Fn() -> Vec<Element> + 'a;

/// How long a slow kernel command takes, such as `iptables-restore` with many rules.
const SLOW: Duration = Duration::from_millis(60);

fn of(elements: Vec<Element>, family: Family) -> Vec<Element> {
    elements
        .into_iter()
        .filter(|element| element.set.family == family)
        .collect()
}

pub(super) fn all() -> Vec<Fault> {
    vec![
        fault! {
            "restart-clears-rules": "At its start the proxy removes the rules that its predecessor left, before it knows what to put there.";
            bugs ["kubernetes/kubernetes#75360", "kubernetes/kubernetes#76376", "bug:T4"];
            violates ["CP-2"];
            does {
                fn start(&self, kernel: &mut dyn Kernel) -> io::Result<()> {
                    kernel.delete()
                }
            }
        },
        fault! {
            "restart-flushes-conntrack": "At its start the proxy forgets all connections.";
            bugs ["cilium#26912", "cilium#27215", "bug:T5"];
            violates ["CP-1"];
            does {
                fn start(&self, _kernel: &mut dyn Kernel) -> io::Result<()> {
                    raw::flush_conntrack()
                }
            }
        },
        fault! {
            "foreign-tables-removed": "At its start the proxy removes all tables, whosesoever they are.";
            bugs ["kubernetes/kubernetes#136786", "bug:R12"];
            violates ["CP-9"];
            does {
                fn start(&self, _kernel: &mut dyn Kernel) -> io::Result<()> {
                    raw::flush_ruleset()
                }
            }
        },
        fault! {
            "loopback-routed": "The node's loopback addresses can be reached by its neighbours.";
            bugs ["CVE-2020-8558", "kubernetes/kubernetes#92315", "bug:B4"];
            violates ["SAFE-1"];
            does {
                fn start(&self, _kernel: &mut dyn Kernel) -> io::Result<()> {
                    raw::route_localnet()
                }
            }
        },
        fault! {
            "flush-not-repaired": "Rules that somebody else removed are not restored.";
            bugs ["kubernetes/kubernetes#81517", "kubernetes/kubernetes#135631", "bug:R7", "bug:R8"];
            violates ["CP-8"];
            remembers { done: AtomicBool }
            does {
                fn adopt(&self, kernel: &mut dyn Kernel, elements: &Elements<'_>) -> io::Result<Option<Difference>> {
                    if self.done.swap(true, Ordering::Relaxed) {
                        return Ok(None);
                    }
                    kernel.adopt(elements)
                }
            }
        },
        fault! {
            "second-family-skipped": "Only the IPv4 part of a transaction is sent.";
            bugs ["kube-router@aba49a98", "bug:R16", "bug:F8"];
            violates ["FAM-1", "FAM-2"];
            does {
                fn apply(&self, kernel: &mut dyn Kernel, changes: &mut Changes, _all: &Elements<'_>) -> io::Result<()> {
                    changes.add.retain(|element| element.set.family == Family::V4);
                    changes.replace.retain(|(element, _)| element.set.family == Family::V4);
                    changes.remove.retain(|element| element.set.family == Family::V4);
                    kernel.apply(changes)
                }
                fn adopt(&self, kernel: &mut dyn Kernel, elements: &Elements<'_>) -> io::Result<Option<Difference>> {
                    kernel.adopt(&|| of(elements(), Family::V4))
                }
            }
        },
        fault! {
            "every-third-change-lost": "Every third transaction is forgotten.";
            bugs ["kubernetes/kubernetes#47589", "kubernetes/kubernetes#121362", "bug:R1", "bug:R2"];
            violates ["CP-11"];
            remembers { count: AtomicU32 }
            does {
                fn apply(&self, kernel: &mut dyn Kernel, changes: &mut Changes, _all: &Elements<'_>) -> io::Result<()> {
                    if self.count.fetch_add(1, Ordering::Relaxed) % 3 == 2 {
                        return Ok(());
                    }
                    match kernel.apply(changes) {
                        // What was lost is missed now; a proxy with this bug does not look.
                        Err(error) if error.raw_os_error().is_some() => Ok(()),
                        outcome => outcome,
                    }
                }
            }
        },
        fault! {
            "moved-keys-fail": "A transaction that gives an element to another Service fails, and so does everything after it.";
            bugs ["kubernetes/kubernetes#128829", "bug:R11"];
            violates ["CP-10"];
            remembers { broken: AtomicBool }
            does {
                fn apply(&self, kernel: &mut dyn Kernel, changes: &mut Changes, _all: &Elements<'_>) -> io::Result<()> {
                    let other_service = |(element, data): &(Element, Data)| {
                        element.set.kind == SetKind::Endpoints
                            && matches!((element.data, data), (Data::Endpoint(..), Data::Endpoint(..)))
                    };
                    let moved = changes.replace.iter().filter(|change| other_service(change)).count() >= 2;
                    if moved || self.broken.load(Ordering::Relaxed) {
                        self.broken.store(true, Ordering::Relaxed);
                        return Ok(());
                    }
                    kernel.apply(changes)
                }
            }
        },
        fault! {
            "leftovers-pile-up": "What is no longer needed stays in the kernel, as long as nothing leads to it.";
            bugs ["kubernetes/kubernetes#122604", "bug:R10"];
            violates ["CP-14"];
            does {
                fn apply(&self, kernel: &mut dyn Kernel, changes: &mut Changes, _all: &Elements<'_>) -> io::Result<()> {
                    changes.remove.retain(|element| {
                        !matches!(element.set.kind, SetKind::Targets | SetKind::Hairpin | SetKind::Masquerade)
                    });
                    kernel.apply(changes)
                }
            }
        },
        fault! {
            "remove-before-add": "A change first removes the old and then adds the new.";
            bugs ["kpng@79cdcb6", "cilium#26912", "bug:R6", "bug:T5"];
            violates ["EP-15", "DIST-2"];
            does {
                fn apply(&self, kernel: &mut dyn Kernel, changes: &mut Changes, _all: &Elements<'_>) -> io::Result<()> {
                    let mut first = Changes {
                        remove: std::mem::take(&mut changes.remove),
                        ..Changes::default()
                    };
                    for (element, data) in std::mem::take(&mut changes.replace) {
                        first.remove.push(element);
                        changes.add.push(Element { data, ..element });
                    }
                    if !first.is_empty() {
                        kernel.apply(&mut first)?;
                        thread::sleep(SLOW);
                    }
                    kernel.apply(changes)
                }
            }
        },
        fault! {
            "table-made-anew": "Every change removes all rules and writes all of them again.";
            bugs ["calico#12957", "calico#4431", "bug:T10", "bug:T11"];
            violates ["TCP-5"];
            does {
                fn apply(&self, kernel: &mut dyn Kernel, _changes: &mut Changes, all: &Elements<'_>) -> io::Result<()> {
                    kernel.delete()?;
                    thread::sleep(SLOW);
                    kernel.adopt(all).map(|_| ())
                }
            }
        },
        fault! {
            "change-flushes-conntrack": "Every change makes the node forget all connections.";
            bugs ["kpng@79cdcb6", "felix@91ff776bc", "bug:R6", "bug:T9"];
            violates ["TCP-1", "UDP-5"];
            does {
                fn apply(&self, kernel: &mut dyn Kernel, changes: &mut Changes, _all: &Elements<'_>) -> io::Result<()> {
                    kernel.apply(changes)?;
                    raw::flush_conntrack()
                }
            }
        },
        fault! {
            "change-forgets-affinity": "Every change makes clients of all Services lose their endpoint.";
            bugs ["kpng@79cdcb6", "bug:R6"];
            violates ["AFF-7"];
            does {
                fn apply(&self, kernel: &mut dyn Kernel, changes: &mut Changes, _all: &Elements<'_>) -> io::Result<()> {
                    kernel.apply(changes)?;
                    kernel.forget_affinities(&mut |_, _, _| true).map(|_| ())
                }
            }
        },
        fault! {
            "no-op-updates-disturb": "An update that changes nothing is taken for a change of all endpoints: connections and affinities go.";
            bugs ["kpng@79cdcb6", "kube-router#1026", "bug:R6"];
            violates ["CP-6"];
            remembers { count: AtomicU32 }
            does {
                fn event(&self, mut event: Event) -> Option<Event> {
                    if let Event::Slice(_, Some(slice), _) = &mut event {
                        // A port that no Service has makes the slice differ from the one before.
                        slice.ports.push(SlicePort {
                            name: format!("no-op-{}", self.count.fetch_add(1, Ordering::Relaxed)).into(),
                            protocol: Protocol::Sctp,
                            port: 1,
                        });
                    }
                    Some(event)
                }
                fn apply(&self, kernel: &mut dyn Kernel, changes: &mut Changes, _all: &Elements<'_>) -> io::Result<()> {
                    let nothing = changes.is_empty();
                    kernel.apply(changes)?;
                    if nothing {
                        raw::flush_conntrack()?;
                        kernel.forget_affinities(&mut |_, _, _| true)?;
                    }
                    Ok(())
                }
            }
        },
        fault! {
            "affinity-to-the-dead": "A client returns to its endpoint although that is no longer used.";
            bugs ["kubernetes/kubernetes#106030", "kubernetes/kubernetes#110302", "bug:A8", "bug:E6"];
            violates ["AFF-4"];
            does {
                fn forget_affinities(&self, _kernel: &mut dyn Kernel, _wrong: &mut WrongAffinity<'_>) -> io::Result<usize> {
                    Ok(0)
                }
            }
        },
        fault! {
            "deletes-lost": "Frontends that are gone stay in the kernel.";
            bugs ["kubernetes/kubernetes#51445", "kpng@f0636ae", "bug:R2", "bug:E17"];
            violates ["SVC-CIP-6", "SVC-CIP-8", "CP-11"];
            does {
                fn apply(&self, kernel: &mut dyn Kernel, changes: &mut Changes, _all: &Elements<'_>) -> io::Result<()> {
                    changes.remove.clear();
                    match kernel.apply(changes) {
                        // What stayed may be in the way; a proxy with this bug does not look.
                        Err(error) if error.raw_os_error().is_some() => Ok(()),
                        outcome => outcome,
                    }
                }
            }
        },
        fault! {
            "burst-loses-its-end": "Of a transaction with more than a dozen new elements, the rest is forgotten.";
            bugs ["kubernetes/kubernetes#67875", "bug:R2"];
            violates ["CP-11"];
            does {
                fn apply(&self, kernel: &mut dyn Kernel, changes: &mut Changes, _all: &Elements<'_>) -> io::Result<()> {
                    changes.sort();
                    changes.add.truncate(12);
                    match kernel.apply(changes) {
                        Err(error) if error.raw_os_error().is_some() => Ok(()),
                        outcome => outcome,
                    }
                }
            }
        },
        fault! {
            "cleanup-leaves-rules": "The cleanup removes nothing.";
            bugs ["kubernetes/kubernetes#102314", "kubernetes/kubernetes#119265", "bug:R9"];
            violates ["CP-17"];
            does {
                fn clean_up(&self, _kernel: &mut dyn Kernel) -> io::Result<()> {
                    Ok(())
                }
            }
        },
    ]
}
