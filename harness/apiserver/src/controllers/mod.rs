//! The controllers whose work a proxy sees, as pure functions.

pub mod endpointslice;
