//! One line that says what a step does, for reports and `harness explain`.

use serde_json::Value;

use crate::{
    nemesis::table::{Dose, Which},
    scenario::doc::{Expect, Fault, FrontendKind, OneOrMany, Step, Target},
};

/// The summary of a step.
pub fn of(step: &Step) -> String {
    if let Some(objects) = &step.apply {
        return format!("apply {}", list(objects.iter().map(object)));
    }
    if let Some(patch) = &step.patch {
        return format!("patch {} {}: {}", patch.kind, patch.name, patch.patch);
    }
    if let Some(objects) = &step.delete {
        return format!(
            "delete {}",
            list(
                objects
                    .as_slice()
                    .iter()
                    .map(|object| format!("{} {}", object.kind, object.name))
            )
        );
    }
    if let Some(action) = &step.pod {
        let verb = format!("{:?}", action.action).to_lowercase();
        return format!(
            "{verb} {}",
            list(
                action
                    .name
                    .as_slice()
                    .iter()
                    .map(|name| format!("pod {name}"))
            )
        );
    }
    if let Some(probe) = &step.probe {
        let expect = match &probe.expect {
            Expect::Model => "the model holds".into(),
            Expect::Endpoints(names) => format!("{} answer", list(names.iter().cloned())),
            Expect::Refused => "refused".into(),
            Expect::Dropped => "dropped".into(),
            Expect::NoAnswer => "no answer".into(),
        };
        return format!(
            "from {} to {}: {expect}",
            list(probe.from.as_slice().iter().cloned()),
            targets(&probe.to)
        );
    }
    if let Some(flow) = &step.flow {
        if let Some(name) = &flow.start {
            return format!(
                "start {name}: {:?} from {} to {}",
                flow.kind.expect("validated"),
                flow.from.as_deref().unwrap_or_default(),
                flow.to.as_ref().map(target).unwrap_or_default()
            );
        }
        let what = flow
            .is
            .map_or("ends".into(), |is| format!("is {is:?}").to_lowercase());
        let name = flow
            .expect
            .as_ref()
            .or(flow.stop.as_ref())
            .map_or("", String::as_str);
        return format!("{name} {what}");
    }
    if let Some(converge) = &step.converge {
        return format!(
            "until the model holds from {} to {}, within {}",
            list(converge.from.as_slice().iter().cloned()),
            targets(&converge.to),
            converge.deadline
        );
    }
    if let Some(hold) = &step.hold {
        return format!(
            "the model holds from {} to {} for {}",
            list(hold.from.as_slice().iter().cloned()),
            targets(&hold.to),
            hold.duration
        );
    }
    if let Some(fault) = &step.fault {
        let what = if let Some(proxy) = fault.proxy {
            format!("proxy {proxy:?}")
        } else if let Some(node) = fault.node {
            format!("node {node:?}")
        } else {
            format!("api {:?}", fault.api.expect("validated"))
        };
        let end = if fault.end { " ends" } else { "" };
        let on = fault.on.as_ref().map_or(String::new(), |on| {
            format!(" on {}", list(on.as_slice().iter().cloned()))
        });
        let dose = dose(fault).filter(|_| !fault.end).unwrap_or_default();
        return format!("{}{dose}{on}{end}", what.to_lowercase());
    }
    if let Some(inject) = &step.inject {
        let whom = match (&inject.node, inject.port) {
            (Some(node), Some(port)) => format!(" to {node} port {port}/{:?}", inject.protocol),
            _ => String::new(),
        };
        return format!("inject {:?}{whom}", inject.packet);
    }
    if let Some(state) = &step.state {
        let mut parts = Vec::new();
        if state.running {
            parts.push("the candidate runs".to_owned());
        }
        if state.cleaned_up {
            parts.push("nothing is left after the cleanup".to_owned());
        }
        if state.no_stale_udp {
            parts.push("no stale UDP conntrack entries".to_owned());
        }
        if let Some(http) = &state.http {
            let what = match (&http.health_check_of, http.port) {
                (Some(service), _) => format!("health check of {service}"),
                (None, Some(port)) => format!("port {port}"),
                (None, None) => format!("the candidate's {}", http.path),
            };
            let answer = match http.status {
                Some(status) => format!("answers {status}"),
                None => "is closed".into(),
            };
            parts.push(format!("{what} on {} {answer}", http.node));
        }
        if let Some(name) = &state.baseline {
            parts.push(format!("remember {name}"));
        }
        if let Some(name) = &state.like {
            parts.push(format!("as at {name}"));
        }
        return parts.join(", ");
    }
    String::new()
}

/// The dose of a fault that has one, such as ` (links 50)`.
fn dose(fault: &Fault) -> Option<String> {
    let which = Which::of(fault)?;
    let Dose::Parameter { parameter, .. } = which.nemesis().dose else {
        return None;
    };
    Some(format!(" ({} {})", parameter.name(), which.dose(fault)?))
}

fn list(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn object(object: &Value) -> String {
    format!(
        "{} {}",
        object["kind"].as_str().unwrap_or("?"),
        object["metadata"]["name"].as_str().unwrap_or("?")
    )
}

/// As documents spell it.
fn spelled(kind: FrontendKind) -> String {
    serde_json::to_value(kind)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn targets(targets: &OneOrMany<Target>) -> String {
    list(targets.as_slice().iter().map(target))
}

fn target(target: &Target) -> String {
    let mut parts: Vec<String> = Vec::new();
    if let Some(pod) = &target.pod {
        parts.push(format!("pod {pod}"));
    }
    parts.extend(target.address.clone());
    parts.extend(target.service.clone());
    if let Some(kinds) = &target.frontend {
        parts.push(list(kinds.as_slice().iter().map(|kind| spelled(*kind))));
    }
    if let Some(port) = &target.port {
        parts.push(match port {
            crate::scenario::doc::PortRef::Number(number) => format!("port {number}"),
            crate::scenario::doc::PortRef::Name(name) => format!("port {name}"),
        });
    }
    parts.extend(
        target
            .protocol
            .map(|protocol| format!("{protocol:?}").to_uppercase()),
    );
    parts.extend(target.node.as_ref().map(|node| format!("on {node}")));
    if parts.is_empty() {
        "every frontend".into()
    } else {
        parts.join(" ")
    }
}
