//! What makes life harder for an attempt: the seam that a soak's rotation turns, and that further kinds plug into.
//!
//! A stress has a dose, which its name states, and has to show that it took effect: an attempt under a stress that did nothing says nothing,
//! because somebody would count it as survived.

use std::fmt::Debug;

use futures::future::BoxFuture;

use crate::cluster::NetnsCluster;

/// A kind of stress, with its dose.
pub trait Stress: Debug + Send + Sync {
    /// What it is and how much of it, such as `cpu: 2 busy loops`.
    fn name(&self) -> String;

    /// Whether it may come to the world of this case: not where the case's own steps do the same, or look at what it changes.
    fn suits(&self, _case: &crate::scenario::Case) -> bool {
        true
    }

    /// Whether it burdens the machine as a whole. Attempts that are under way all feel that, so the rotation lets them end before it begins
    /// or ends one.
    fn is_machine_wide(&self) -> bool {
        false
    }

    /// Begins to burden the machine, for all attempts until [`Stress::end`].
    ///
    /// # Errors
    /// What could not be begun; nothing burdens the machine then.
    fn begin(&self) -> std::io::Result<()> {
        Ok(())
    }

    /// Ends what burdens the machine.
    fn end(&self) {}

    /// Begins inside a world, after the candidate is ready and before the first step.
    fn enter<'a>(&'a self, _cluster: &'a NetnsCluster) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    /// Ends inside the world, after the last step. The error says that the stress could not be ended, or that it did nothing.
    fn leave<'a>(&'a self, _cluster: &'a NetnsCluster) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}
