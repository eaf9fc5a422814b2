//! The upstream suite beside ours: which of its specs a candidate has to run, what they said, and where the two suites disagree.
//!
//! ```text
//!  e2e.test -list-tests ─► choose (pure) ─► e2e.test -ginkgo.focus ... ─► junit*.xml ─► junit ─┐
//!  features, zones, reasons ─┘   ▲                                                            ├─► agree (pure) ─► upstream.json, upstream.md
//!  e2e.test -list-images ─► images ─► look: what the nodes lack                                 │
//!  scenarios/upstream.yaml and our report.json ────────────────────────────────────────────────┘
//! ```
//!
//! A spec whose Pods never got their image says nothing about a proxy ([`pulling`]).
//!
//! A spec that passes where our scenarios fail, or the reverse, is the interesting row: one of the two suites is wrong.
//!
//! Not here: the account of the specs (`scenarios/upstream.yaml`, [`crate::coverage`]) and the cluster, which somebody else made.

pub mod agree;
pub mod choose;
pub mod images;
pub mod incluster;
pub mod junit;
pub mod look;
pub mod pulling;
pub mod run;
pub mod session;

/// Name of the summary for programs in the output directory.
pub const JSON_NAME: &str = "upstream.json";
/// Name of the summary for people in the output directory.
pub const MARKDOWN_NAME: &str = "upstream.md";
