//! A rehearsal: the steps without packets. The API server and the oracle go through all changes, so that a document whose
//! objects are refused, whose selectors fit nothing, or whose explicit outcomes the oracle does not share is rejected
//! when it is loaded, with its line, and not in the middle of a run.

use apiserver::{ApiServer, Config};

use super::{
    doc::{FlowExpect, OneOrMany, Step, Target},
    load::{Case, Problem},
    stage::Stage,
};
use crate::run::cells::{self, Cell};

/// Goes through a case without a world.
pub fn rehearse(case: &Case) -> Result<(), Problem> {
    let problem = |line: u64, message: String| Problem {
        file: case.file.clone(),
        line,
        message,
    };
    let api = ApiServer::new(Config::default()).map_err(|error| problem(0, error.to_string()))?;
    let mut stage = Stage::new(api, case.plan.clone(), &case.scenario)
        .map_err(|error| problem(case.topology_line, error.to_string()))?;
    stage
        .apply_all(&case.scenario.objects)
        .map_err(|error| problem(case.objects_line, format!("objects: {error}")))?;
    let mut positive = false;
    for step in &case.scenario.steps {
        if step.value.applies(&case.key) {
            positive |= rehearse_step(&mut stage, case, &step.value)
                .map_err(|message| problem(step.referenced.line(), message))?;
        }
    }
    if positive {
        return Ok(());
    }
    let first = case.scenario.steps.first();
    Err(problem(
        first.map_or(0, |step| step.referenced.line()),
        format!(
            "case '{}' shows nothing that works: a proxy that does nothing may pass it; it needs a step in which somebody has to \
             answer, or a state",
            case.key.id
        ),
    ))
}

/// Goes through a step; whether it asserts something that a proxy has to do, and not only what it must not.
fn rehearse_step(stage: &mut Stage, case: &Case, step: &Step) -> Result<bool, String> {
    let mut positive = step
        .state
        .as_ref()
        .is_some_and(super::validate::asserts_state);
    let text = |error: super::StageError| error.to_string();
    if let Some(objects) = &step.apply {
        stage.apply_all(objects).map_err(text)?;
    }
    if let Some(patch) = &step.patch {
        stage.patch(patch).map_err(text)?;
    }
    if let Some(objects) = &step.delete {
        objects
            .as_slice()
            .iter()
            .try_for_each(|object| stage.delete(object))
            .map_err(text)?;
    }
    if let Some(action) = &step.pod {
        for name in action.name.as_slice() {
            stage.pod_verb(name, action.action).map_err(text)?;
        }
    }
    if let Some(probe) = &step.probe {
        for cell in matrix(stage, case, &probe.from, &probe.to)? {
            if let Some(message) = crate::run::disagreement(&cell, &probe.expect) {
                return Err(message);
            }
            positive |= cell.wants_answer();
        }
    }
    let answers = |cells: Vec<Cell>| cells.iter().any(Cell::wants_answer);
    if let Some(converge) = &step.converge {
        positive |= answers(matrix(stage, case, &converge.from, &converge.to)?);
    }
    if let Some(hold) = &step.hold {
        positive |= answers(matrix(stage, case, &hold.from, &hold.to)?);
    }
    if let Some(flow) = &step.flow
        && let (Some(from), Some(to)) = (&flow.from, &flow.to)
    {
        let cells = matrix(
            stage,
            case,
            &OneOrMany::One(from.clone()),
            &OneOrMany::One(to.clone()),
        )?;
        // Its start waits for the first answer.
        positive |= flow.start.is_some() && flow.established != Some(false) && answers(cells);
    }
    positive |= step.flow.as_ref().is_some_and(|flow| {
        // These hold only where messages were answered.
        matches!(flow.is, Some(FlowExpect::Unbroken | FlowExpect::NoLoss))
    });
    if let Some(name) = step
        .state
        .as_ref()
        .and_then(|state| state.http.as_ref()?.health_check_of.as_ref())
    {
        let service = stage
            .get("Service", name)
            .map_err(|error| error.to_string())?;
        if service["spec"]["healthCheckNodePort"].as_u64().is_none() {
            return Err(format!(
                "Service {name} has no healthCheckNodePort at this point"
            ));
        }
    }
    Ok(positive)
}

fn matrix(
    stage: &Stage,
    case: &Case,
    from: &OneOrMany<String>,
    to: &OneOrMany<Target>,
) -> Result<Vec<Cell>, String> {
    let cluster = stage.oracle().map_err(|error| error.to_string())?;
    let families = cells::families(&case.key.axes);
    let from = cells::sources(stage, from);
    let to = cells::targets(stage, &cluster, &families, to.as_slice());
    let cells = cells::product(&cluster, &from, &to);
    if cells.is_empty() {
        return Err(format!(
            "the step reaches nothing: {} sources exist and {} frontends fit at this point",
            from.len(),
            to.len()
        ));
    }
    Ok(cells)
}
