//! Candidates: what a proxy project tells the harness about its proxy.

pub mod cluster;
mod form;
mod install;
mod manifest;
mod substitute;

pub use form::Form;
pub use install::{ClusterVariables, Image, Installation, Rendered};
pub use manifest::{
    Binary, Candidate, CandidateError, Elsewhere, HttpReady, Manifest, ProcessSpec, Ready, Source,
    Treatment, Variables, find_on_path,
};
pub use substitute::Unknown;
