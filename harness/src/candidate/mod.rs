//! Candidates: what a proxy project tells the harness about its proxy.

mod manifest;

pub use manifest::{
    Binary, Candidate, CandidateError, HttpReady, Manifest, ProcessSpec, Ready, Source, Treatment,
    Variables, find_on_path,
};
