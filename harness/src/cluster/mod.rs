//! Clusters that scenarios run on. `netns` is the only provider so far; the trait that providers share is cut out of it
//! when the second one exists, so that it has the shape both need.

mod errors;
mod instance;
mod log;
pub mod netns;
mod usage;

pub use instance::Instance;
pub use netns::{ClusterError, NetnsCluster, Settings, protocol};
pub use usage::Usage;
