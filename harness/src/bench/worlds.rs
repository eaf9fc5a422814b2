//! How long a world takes to build.

use serde::{Deserialize, Serialize};

use super::{BenchError, Spread};

/// What the project promises: a world of 2 nodes and 6 pods in 150 ms (median, 2 idle cores).
const TARGET_MS: f64 = 150.0;

/// Times of builds of a world of 2 nodes and 6 pods, from the call until every agent has answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorldFigures {
    /// The builds, one after the other.
    pub build: Spread,
    /// What the project promises for the median.
    pub target_ms: f64,
}

/// Builds `count` worlds.
///
/// # Errors
/// When a world cannot be built.
pub async fn measure(count: usize) -> Result<WorldFigures, BenchError> {
    // The first build finds cold caches; what people wait for is the hundredth of a run.
    netlab::measure_build(1)
        .await
        .map_err(BenchError::of("build a world"))?;
    let times = netlab::measure_build(count)
        .await
        .map_err(BenchError::of("build a world"))?;
    let build = Spread::of(times)
        .ok_or("no world was asked for")
        .map_err(BenchError::of("measure worlds"))?;
    Ok(WorldFigures {
        build,
        target_ms: TARGET_MS,
    })
}
