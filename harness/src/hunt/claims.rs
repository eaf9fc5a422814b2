//! Whether what a document asserts of its flows is still demanded by a specification.
//!
//! A generated history asserts nothing else. One that lost some of its steps may: that a flow moves although its endpoint never went, or that no connection is lost
//! in a world that was never quiet. Such a document fails with every proxy, so it is no smaller version of the one that was found.

use std::collections::BTreeMap;

use apiserver::{ApiServer, Config};

use super::{
    kinds::Disturbance,
    traffic::{Flow, View},
};
use crate::scenario::{
    Case, Stage,
    doc::{Fault, FlowExpect, FlowStep, NodeFault, ProxyFault, Step},
};

/// A document that is gone through.
struct Replay {
    stage: Stage,
    flows: BTreeMap<String, Flow>,
    /// Nothing has changed since the candidate was seen to follow.
    quiet: bool,
}

/// Goes through a document.
///
/// # Errors
///
/// What it asserts without a rule behind it, or why it cannot be gone through.
pub fn hold(case: &Case) -> Result<(), String> {
    let api = ApiServer::new(Config::default()).map_err(|error| error.to_string())?;
    let stage =
        Stage::new(api, case.plan.clone(), &case.scenario).map_err(|error| error.to_string())?;
    stage
        .apply_all(&case.scenario.objects)
        .map_err(|error| error.to_string())?;
    let mut replay = Replay {
        stage,
        flows: BTreeMap::new(),
        quiet: false,
    };
    for step in &case.scenario.steps {
        replay.step(&step.value, case)?;
    }
    Ok(())
}

impl Replay {
    fn step(&mut self, step: &Step, case: &Case) -> Result<(), String> {
        let level = case.scenario.level;
        if let Some(flow) = &step.flow {
            return self.flow(flow);
        }
        if step.converge.is_some() {
            let view = View::of(&self.stage)?;
            if let Some(endpoint) = view.unserved().first() {
                return Err(format!("nobody listens at the endpoint {endpoint}"));
            }
            self.flows
                .values_mut()
                .for_each(|flow| flow.settle(&view, level));
            self.quiet = true;
            return Ok(());
        }
        if (step.probe.is_some() || step.hold.is_some()) && !self.quiet {
            return Err("it looks once before the candidate has followed".into());
        }
        if let Some(fault) = &step.fault {
            self.quiet = false;
            if let Some(disturbance) = disturbance(fault) {
                let flows = self.flows.values_mut();
                flows.for_each(|flow| flow.disturbed(disturbance, level));
            }
            return Ok(());
        }
        let text = |error: crate::scenario::StageError| error.to_string();
        if let Some(objects) = &step.apply {
            self.stage.apply_all(objects).map_err(text)?;
        } else if let Some(patch) = &step.patch {
            self.stage.patch(patch).map_err(text)?;
        } else if let Some(objects) = &step.delete {
            let mut objects = objects.as_slice().iter();
            objects
                .try_for_each(|object| self.stage.delete(object))
                .map_err(text)?;
        } else if let Some(action) = &step.pod {
            for name in action.name.as_slice() {
                self.stage.pod_verb(name, action.action).map_err(text)?;
            }
        } else {
            return Ok(());
        }
        self.quiet = false;
        if !self.flows.is_empty() {
            let view = View::of(&self.stage)?;
            self.flows
                .values_mut()
                .for_each(|flow| flow.observe(&view, level));
        }
        Ok(())
    }

    fn flow(&mut self, step: &FlowStep) -> Result<(), String> {
        if let (Some(name), Some(kind), Some(from), Some(to)) =
            (&step.start, step.kind, &step.from, &step.to)
        {
            let view = View::of(&self.stage)?;
            let mut flow = Flow::new(name.clone(), kind, from, to, &self.stage, &view)
                .ok_or_else(|| format!("nothing can be said about flow {name}"))?;
            if !self.quiet {
                flow.began_early();
            }
            self.flows.insert(name.clone(), flow);
            return Ok(());
        }
        let name = step.expect.as_ref().or(step.stop.as_ref());
        let (Some(name), Some(is)) = (name, step.is) else {
            return Ok(());
        };
        let flow = self
            .flows
            .get(name)
            .ok_or_else(|| format!("flow {name} does not run"))?;
        let demanded = match is {
            FlowExpect::Model => self.quiet && flow.follows(),
            is => flow.whole() == Some(is),
        };
        if demanded {
            Ok(())
        } else {
            Err(format!("no rule says that flow {name} is {is:?}"))
        }
    }
}

/// Faults that flows may feel.
fn disturbance(fault: &Fault) -> Option<Disturbance> {
    Some(match (fault.proxy, fault.node) {
        (Some(ProxyFault::Restart), _) => Disturbance::Restart,
        (Some(ProxyFault::Kill), _) => Disturbance::Kill,
        (Some(ProxyFault::Down | ProxyFault::Start), _) => Disturbance::Down,
        (_, Some(NodeFault::FlushRuleset | NodeFault::FlushConntrack)) => Disturbance::FlushRuleset,
        (_, Some(NodeFault::LinkChurn | NodeFault::Address)) => Disturbance::LinkChurn,
        _ => return None,
    })
}
