//! Scenario documents: their type, how they are read, and what their verbs mean for the API objects.
//!
//! What verbs do to a running world is in [`crate::run`].

pub mod doc;
mod duration;
pub mod load;
mod rehearse;
mod stage;
mod validate;

pub use doc::{Family, Feature, FrontendKind, Level, Scenario};
pub use duration::Span;
pub use load::{Case, CaseKey, Document, Problem, read_documents, read_file};
pub use rehearse::rehearse;
pub use stage::{Stage, StageError, Version, api_version_of};
