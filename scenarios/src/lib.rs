//! The scenario catalogue, embedded.
