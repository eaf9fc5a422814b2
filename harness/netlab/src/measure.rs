//! How long it takes to build a world: the figure that the project promises a bound for.

use std::time::{Duration, Instant};

use crate::error::Result;
use crate::topology::Topology;
use crate::world::{Options, World};

/// Builds a world of 2 nodes and 6 pods `n` times, one after the other; each time runs from the call until every agent
/// has answered.
///
/// # Errors
/// When a world cannot be built.
pub async fn measure_build(n: usize) -> Result<Vec<Duration>> {
    let topology = Topology::uniform(2, 3);
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        let start = Instant::now();
        let world = World::build(&topology, &Options::default()).await?;
        times.push(start.elapsed());
        world.shutdown().await;
    }
    Ok(times)
}
