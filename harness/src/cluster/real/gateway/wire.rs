//! What the harness and its gateway in a Pod say to each other: a line of JSON each way, in turn.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use apiserver::{FaultReport, Switch};
use serde::{Deserialize, Serialize};

/// What the gateway's process is started with, its only argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// URL of the API server.
    pub upstream: String,
    /// A name that is in the API server's certificate.
    pub server_name: String,
    /// A directory with `ca.crt`, `apiserver.crt` and `apiserver.key`, as kubeadm makes it: clients of the gateway see the API server's own certificate.
    pub pki: PathBuf,
    /// The first and the last port that it may listen at; it takes the first that is free.
    pub ports: (u16, u16),
}

/// From the harness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ask {
    /// Do something to the API.
    Throw(Switch),
    /// How far it went.
    Look,
    /// Close the port and reset all connections.
    Stop,
    /// Open the port again.
    Resume,
}

/// From the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// It listens; said once, unasked, at its beginning.
    Serves(u16),
    /// It is done, and so many connections or watches were concerned.
    Done(usize),
    /// How far it went.
    Seen(Seen),
    /// It cannot be done.
    Failed(String),
}

/// What a gateway has seen so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// What faults did.
    pub report: FaultReport,
    /// Watches of clients that are told something, by the addresses they come from.
    pub watches: BTreeMap<IpAddr, usize>,
}
