//! What can go wrong, and whose fault it is.

use std::{fmt, time::Duration};

use crate::{diagnosis::Diagnosis, object::ObjectId};

/// A text that is not objects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ParseError {
    /// Where the text comes from.
    pub source_name: String,
    /// 1-based line, if it is known.
    pub line: Option<u64>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.source_name, self.message),
            None => write!(f, "{}: {}", self.source_name, self.message),
        }
    }
}

/// Whose fault something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Cluster, network, registry: says nothing about what was installed.
    Infra,
    /// What was installed.
    Candidate,
    /// Whoever wrote the manifest or chose the cluster.
    Usage,
}

/// Why something could not be installed, or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server cannot be reached, or does not do what it is asked.
    #[error("failed to {action}: {message}")]
    Api {
        /// What was tried.
        action: String,
        /// What the server or the connection said.
        message: String,
    },
    /// The API server refuses an object.
    #[error("failed to apply {object} of {source_name}: {message}")]
    Rejected {
        /// The object.
        object: ObjectId,
        /// Where it comes from.
        source_name: String,
        /// What the server said.
        message: String,
    },
    /// The cluster does not know a kind.
    #[error("failed to apply {object} of {source_name}: the cluster has no kind {} in {}", object.kind, object.api_version)]
    UnknownKind {
        /// The object.
        object: ObjectId,
        /// Where it comes from.
        source_name: String,
    },
    /// Objects are there already, and they are somebody else's.
    #[error(
        "failed to apply anything, since these are there already and are not of the harness: {}",
        list(objects)
    )]
    Exists {
        /// The objects.
        objects: Vec<ObjectId>,
    },
    /// An image cannot be had.
    #[error("{what} cannot start, since an image cannot be had\n{diagnosis}")]
    Image {
        /// The workload.
        what: String,
        /// Everything about it.
        diagnosis: Box<Diagnosis>,
    },
    /// A node is lost or has no room, so that nothing can start on it.
    #[error("{what} cannot start: {reason}\n{diagnosis}")]
    Node {
        /// The workload.
        what: String,
        /// Which node, and what is wrong with it.
        reason: String,
        /// Everything about it.
        diagnosis: Box<Diagnosis>,
    },
    /// It did not become ready.
    #[error("{what} was not ready within {}: {state}\n{diagnosis}", seconds(*deadline))]
    NotReady {
        /// The workload.
        what: String,
        /// How far it was.
        state: String,
        /// How long was waited.
        deadline: Duration,
        /// Everything about it.
        diagnosis: Box<Diagnosis>,
    },
    /// Something else that takes no time on a cluster that works.
    #[error("failed to {action} within {}: {state}", seconds(*deadline))]
    Late {
        /// What was waited for.
        action: String,
        /// How far it was.
        state: String,
        /// How long was waited.
        deadline: Duration,
    },
    /// Objects were deleted and are still there.
    #[error("failed to remove within {}: {}", seconds(*deadline), objects.join(", "))]
    NotGone {
        /// The objects, with what holds them.
        objects: Vec<String>,
        /// How long was waited.
        deadline: Duration,
    },
}

impl Error {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Api { .. }
            | Self::Image { .. }
            | Self::Node { .. }
            | Self::Late { .. }
            | Self::NotGone { .. } => Blame::Infra,
            Self::NotReady { .. } => Blame::Candidate,
            Self::Rejected { .. } | Self::UnknownKind { .. } | Self::Exists { .. } => Blame::Usage,
        }
    }

    pub(crate) fn api(action: impl Into<String>, error: &kube::Error) -> Self {
        Self::Api {
            action: action.into(),
            message: said(error),
        }
    }
}

/// What the server or the connection said, without Rust's decoration.
pub(crate) fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        kube::Error::Api(status) => format!("{} {}", status.code, status.reason),
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(error) = source {
                let more = error.to_string();
                if !text.contains(&more) {
                    text = format!("{text}: {more}");
                }
                source = error.source();
            }
            text
        }
    }
}

fn list(objects: &[ObjectId]) -> String {
    let names: Vec<String> = objects.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}
