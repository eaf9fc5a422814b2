//! The verbs that change objects and pods: `apply`, `patch`, `delete`, `pod`.

use serde_json::Value;

use super::super::attempt::{Attempt, Stop};
use crate::scenario::doc::{ObjectRef, Patch, PodAction, PodVerb};

impl Attempt<'_> {
    pub(in crate::run) fn apply(&mut self, objects: &[Value]) -> Result<(), Stop> {
        self.changing();
        self.cluster.stage().apply_all(objects).map_err(Stop::infra)
    }

    pub(in crate::run) fn patch(&mut self, patch: &Patch) -> Result<(), Stop> {
        self.changing();
        self.cluster.stage().patch(patch).map_err(Stop::infra)
    }

    pub(in crate::run) fn delete(&mut self, objects: &[ObjectRef]) -> Result<(), Stop> {
        self.changing();
        objects
            .iter()
            .try_for_each(|object| self.cluster.stage().delete(object))
            .map_err(Stop::infra)
    }

    /// The order of the two halves is that of a cluster: a pod serves before it is Ready, and its object goes before its
    /// namespace does.
    pub(in crate::run) async fn pod(&mut self, action: &PodAction) -> Result<(), Stop> {
        for name in action.name.as_slice() {
            if matches!(action.action, PodVerb::Start | PodVerb::Resume) {
                let pod = self.cluster.stage().pod(name).map(|pod| pod.spec.clone());
                let pod = pod.ok_or_else(|| Stop::infra(format!("there is no pod {name}")))?;
                self.cluster.serve(&pod).await?;
            }
            self.changing();
            self.cluster
                .stage_mut()
                .pod_verb(name, action.action)
                .map_err(Stop::infra)?;
            match action.action {
                PodVerb::Stop => self.cluster.remove_pod(name).await?,
                PodVerb::Deafen => self.cluster.deafen(name).await?,
                _ => {}
            }
        }
        Ok(())
    }
}
