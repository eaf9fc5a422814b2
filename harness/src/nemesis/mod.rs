//! Nemeses that are not a verb of a scenario: pressure on the whole machine, and too little CPU for one process.
//!
//! All of them have a *dose* and an *effect*: what was asked for, and what was seen of it. One that had no effect says so, and its user
//! must not count it as survived. All of them end with a guard, and when this process dies.
//!
//! The faults of scenarios are in [`table`], with their doses, their effects and the bugs that they stand for.

mod hog;
mod machine;
mod starve;
pub mod table;

pub use hog::{SUBCOMMAND, hog_main};
pub use machine::{Effect, Figure, Pressure, Stress};
pub(crate) use starve::state;
pub use starve::{Starved, Starving};
