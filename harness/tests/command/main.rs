//! The command as people and CI systems use it: its exit codes, its messages, its files, and what is left when it is killed.
//!
//! Each test runs the built binary. What needs a world says so and is skipped, aloud, where user namespaces are forbidden.

mod candidates;
mod cases;
mod certify;
mod classify;
mod clusters;
mod coverage;
mod diff;
mod disk;
mod documents;
mod ending;
mod flakes;
mod fleet;
mod formats;
mod gate;
mod github;
mod history;
mod hunt;
mod merge;
mod nemeses;
mod pipelines;
mod prepared;
mod repeat;
mod repro;
mod scratch;
mod scripts;
mod site;
mod soak;
mod submission;
mod support;
mod tools;
mod upstream;
mod usage;
