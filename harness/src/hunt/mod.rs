//! `harness hunt`: random but valid histories against a candidate, and what they show, shrunk.

pub mod chase;
mod claims;
pub mod coverage;
pub mod document;
pub mod found;
pub mod generate;
mod history;
pub mod kinds;
mod model;
pub mod prey;
pub mod shrink;
#[cfg(test)]
mod tests;
mod traffic;

pub use chase::{Catch, Hunt, Options};
pub use coverage::Coverage;
pub use found::{Counterexample, Standing};
pub use generate::{Generated, Generator, Settings};
pub use prey::Prey;
