//! What can go wrong with a world, in two shapes: what callers see, and what travels out of the world.

use std::io;

use serde::{Deserialize, Serialize};

use crate::plan::PlanError;

/// Why a world could not be built, changed or used. Each text completes "failed to ...: ".
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The topology makes no sense; no kernel was asked.
    #[error("failed to plan the topology: {0}")]
    Plan(#[from] PlanError),
    /// This machine does not let this user make user namespaces.
    #[error("user namespaces are forbidden by {what}: {hint}")]
    UserNamespacesForbidden {
        /// The sysctl, security module or sandbox that forbids them, as far as it can be told.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// The kernel or the container around us lacks something that every world needs.
    #[error("{what} is missing: {hint}")]
    MissingKernelFeature {
        /// What is missing.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// The kernel refused a change of links, addresses, routes, rules or neighbours.
    #[error("failed to {step}: {message}")]
    Netlink {
        /// The change, as `ip` would be told.
        step: String,
        /// Error number.
        errno: i32,
        /// The kernel's own words where it has some, else the text of the error number.
        message: String,
    },
    /// Any other system call that failed.
    #[error("failed to {step}: {source}")]
    System {
        /// What was tried.
        step: String,
        /// How it failed.
        source: io::Error,
    },
    /// No node, pod or client of that name exists.
    #[error("there is no {0:?} in this world")]
    NoSuchPlace(String),
    /// The world's first process has ended, so nothing of the world exists any more.
    #[error("the world has ended{}", tail(.stderr))]
    Gone {
        /// What its processes last wrote to standard error.
        stderr: String,
    },
    /// The world did not answer in time.
    #[error("the world did not {step} within {seconds} s")]
    TimedOut {
        /// What was asked for.
        step: String,
        /// How long was waited.
        seconds: u64,
    },
    /// A probe agent did not come up.
    #[error("the agent of {who} did not come up: {message}")]
    Agent {
        /// Whose agent.
        who: String,
        /// Why.
        message: String,
    },
}

/// Result of everything that asks something of a world.
pub type Result<T, E = WorldError> = std::result::Result<T, E>;

fn tail(stderr: &str) -> String {
    if stderr.is_empty() {
        String::new()
    } else {
        format!("; it last wrote: {}", stderr.trim_end())
    }
}

impl WorldError {
    pub(crate) fn system(step: impl Into<String>, source: io::Error) -> Self {
        WorldError::System {
            step: step.into(),
            source,
        }
    }
}

/// An error inside the world, as sent to the harness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fault {
    pub kind: FaultKind,
    /// Completes "failed to ...".
    pub step: String,
    pub errno: i32,
    /// The kernel's own words, if it had some.
    pub message: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FaultKind {
    /// Making or mapping the user namespace, or using what it should allow.
    UserNamespace,
    Netlink,
    System,
    NoSuchPlace,
}

impl Fault {
    pub fn system(step: impl Into<String>, error: impl Into<io::Error>) -> Self {
        Fault::new(FaultKind::System, step, error)
    }

    pub fn user_namespace(step: impl Into<String>, error: impl Into<io::Error>) -> Self {
        Fault::new(FaultKind::UserNamespace, step, error)
    }

    pub fn no_such_place(name: &str) -> Self {
        Fault {
            kind: FaultKind::NoSuchPlace,
            step: name.to_owned(),
            errno: libc::ENOENT,
            message: None,
        }
    }

    fn new(kind: FaultKind, step: impl Into<String>, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        Fault {
            kind,
            step: step.into(),
            errno: error.raw_os_error().unwrap_or(libc::EIO),
            message: error.raw_os_error().is_none().then(|| error.to_string()),
        }
    }
}

impl From<Fault> for WorldError {
    fn from(fault: Fault) -> Self {
        let source = io::Error::from_raw_os_error(fault.errno);
        match fault.kind {
            FaultKind::UserNamespace => crate::limits::explain(&fault),
            FaultKind::NoSuchPlace => WorldError::NoSuchPlace(fault.step),
            FaultKind::Netlink if fault.errno == libc::EOPNOTSUPP => {
                WorldError::MissingKernelFeature {
                    what: format!("what it takes to {}", fault.step),
                    hint: "load or enable the kernel module for it (veth, bridge, nf_tables ...); \
                           `harness doctor` tries each"
                        .to_owned(),
                }
            }
            FaultKind::Netlink => WorldError::Netlink {
                step: fault.step,
                errno: fault.errno,
                message: fault.message.unwrap_or_else(|| source.to_string()),
            },
            FaultKind::System => WorldError::System {
                step: fault.step,
                source: fault.message.map_or(source, io::Error::other),
            },
        }
    }
}
