//! The `probe` agent.
fn main() {}
