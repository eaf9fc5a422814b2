//! The `reference-proxy` command.
fn main() {}
