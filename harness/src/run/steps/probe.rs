//! The verb `probe`: one round, judged strictly.

use std::collections::{BTreeMap, BTreeSet};

use oracle::Outcome as Want;
use probe::proto::Outcome;
use reports::event::Failure;
use tokio::time::sleep;

use super::super::{
    attempt::{Attempt, Stop},
    cells::{self, Cell},
    round::{self, PATIENCE_MS, Proportions, SILENCE_MS, Seen, Shape, What, Wrong},
};
use crate::scenario::doc::{ClientAddress, Expect, OneOrMany, Probe, Target};

/// From this many connections per cell on, a probe is about shares, and unequal ones are wrong.
const ABOUT_SHARES: u32 = 30;

impl Attempt<'_> {
    pub(in crate::run) async fn probe(&mut self, step: &Probe) -> Result<(), Stop> {
        if let Some(idle) = step.idle {
            // The stimulus itself: nothing may be sent meanwhile.
            sleep(idle.0).await;
        }
        let cells = self.cells(&step.from, &step.to)?;
        self.agrees(&cells, &step.expect)?;
        let timeout = step.timeout.map(|span| span.0.as_millis() as u32);
        let shape = Shape {
            count: step.count,
            counts: Vec::new(),
            payload: step.payload,
            reply: step.reply,
            lengths: step
                .lengths
                .iter()
                .flat_map(|range| range.0..=range.1)
                .collect(),
            source_port: step.source_port,
            back_to_back: step.back_to_back,
            patience_ms: timeout.unwrap_or(PATIENCE_MS),
            silence_ms: timeout.unwrap_or(SILENCE_MS),
            what: What::CellsAndControls,
        };
        let seen = self.round(&cells, &shape).await?;
        self.count_checks(&cells);
        self.controls_must_work(&seen)?;
        let proportions = if step.count >= ABOUT_SHARES {
            Proportions::EqualShares
        } else {
            Proportions::PerFrontend
        };
        let wrong = round::wrong(&cells, &seen, proportions);
        self.record(wrong);
        self.record_characteristics(&cells, &seen);
        if let Some(want) = step.client_address {
            self.client_address(&cells, &seen, want);
        }
        self.remember(step, &cells, &seen)?;
        self.latency(step, &seen);
        Ok(())
    }

    /// The matrix of a step; empty is an error, since it would assert nothing.
    pub(in crate::run) fn cells(
        &mut self,
        from: &OneOrMany<String>,
        to: &OneOrMany<Target>,
    ) -> Result<Vec<Cell>, Stop> {
        let model = self.model()?;
        let stage = self.cluster.stage();
        let from = cells::sources(stage, from);
        let to = cells::targets(
            stage,
            &model,
            &cells::families(&self.case.key.axes),
            to.as_slice(),
        );
        let mut cells = cells::product(&model, &from, &to);
        for cell in &mut cells {
            let service = cell.to.frontend.as_ref().map(|frontend| &frontend.service);
            cell.alone = cell.expectation.affinity.is_none()
                && service.is_some_and(|service| self.former.had_affinity(service));
        }
        if cells.is_empty() {
            return Err(Stop::infra(
                "the step probes nothing: no source exists, or no frontend fits its destination",
            ));
        }
        Ok(cells)
    }

    /// An explicit outcome must be the oracle's too.
    fn agrees(&self, cells: &[Cell], expect: &Expect) -> Result<(), Stop> {
        match cells.iter().find_map(|cell| disagreement(cell, expect)) {
            Some(message) => Err(Stop::infra(message)),
            None => Ok(()),
        }
    }

    pub(in crate::run) fn count_checks(&mut self, cells: &[Cell]) {
        for cell in cells {
            self.findings.checked(cell.wants_answer());
        }
    }

    /// A direct path that does not work leaves nothing to say about the candidate.
    pub(in crate::run) fn controls_must_work(&self, seen: &Seen) -> Result<(), Stop> {
        if seen.broken_controls.is_empty() {
            return Ok(());
        }
        let some: Vec<&str> = seen
            .broken_controls
            .iter()
            .take(3)
            .map(String::as_str)
            .collect();
        Err(Stop::infra(format!(
            "{} of {} direct paths (no Service involved) do not work, so this is the kernel or the topology: {}",
            seen.broken_controls.len(),
            seen.controls,
            some.join("; ")
        )))
    }

    pub(in crate::run) fn record(&mut self, wrong: Vec<Wrong>) {
        for Wrong {
            cell,
            expectation,
            mismatch,
        } in wrong
        {
            let mut requirements = self.case.scenario.requirement.clone();
            requirements.extend(expectation.requirements.iter().cloned());
            requirements.sort();
            requirements.dedup();
            self.findings.fail(Failure {
                requirements,
                step: None,
                verb: String::new(),
                kind: mismatch.kind.as_str().into(),
                message: format!("{cell}: expected {expectation}; {}", mismatch.text),
                cell: Some(cell),
                expected: expectation.to_string(),
                actual: mismatch.text,
            });
        }
    }

    fn record_characteristics(&mut self, cells: &[Cell], seen: &Seen) {
        let mut shown: BTreeMap<(String, String), String> = BTreeMap::new();
        for (cell, tries) in cells.iter().zip(&seen.tries) {
            let Some(characteristic) = &cell.expectation.characteristic else {
                continue;
            };
            let observations: Vec<_> = tries
                .iter()
                .map(|one| round::observation(cell, one))
                .collect();
            if let Some(index) = oracle::matched_outcome(&cell.expectation, &observations) {
                let value = match &cell.expectation.outcomes[index] {
                    Want::Endpoints { .. } => "answered",
                    Want::Refuse => "refused",
                    Want::Drop => "dropped",
                    Want::NotService => "plain routing",
                    Want::NoAnswer => "no answer",
                };
                shown.insert(
                    (characteristic.id.clone(), value.into()),
                    characteristic.text.clone(),
                );
            }
        }
        for ((id, value), text) in shown {
            self.findings.characteristic(&id, &value, &text);
        }
    }

    fn client_address(&mut self, cells: &[Cell], seen: &Seen, want: ClientAddress) {
        for (cell, tries) in cells.iter().zip(&seen.tries) {
            for one in tries {
                let Outcome::Answered { identity, peer, .. } = &one.outcome else {
                    continue;
                };
                let own = cell.expectation.client_ips.contains(&peer.ip());
                let right = match want {
                    ClientAddress::Preserved => own,
                    ClientAddress::Masqueraded => !own,
                };
                self.findings.checked(true);
                if !right {
                    let expected = match want {
                        ClientAddress::Preserved => {
                            format!("one of {:?}", cell.expectation.client_ips)
                        }
                        ClientAddress::Masqueraded => {
                            format!("another address than {:?}", cell.expectation.client_ips)
                        }
                    };
                    self.findings.fail(Failure {
                        requirements: self.case.scenario.requirement.clone(),
                        step: None,
                        verb: String::new(),
                        kind: "client-address".into(),
                        cell: Some(cell.label()),
                        expected: format!("{identity} sees {expected} as the client"),
                        actual: format!("it sees {}", peer.ip()),
                        message: format!(
                            "{}: {identity} sees the client as {}, expected {expected}",
                            cell.label(),
                            peer.ip()
                        ),
                    });
                    break;
                }
            }
        }
    }

    /// `save` and `sameAs`: which endpoint each source stuck to.
    fn remember(&mut self, step: &Probe, cells: &[Cell], seen: &Seen) -> Result<(), Stop> {
        let mut stuck: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (cell, tries) in cells.iter().zip(&seen.tries) {
            let who = tries
                .iter()
                .filter_map(|one| one.outcome.identity().map(str::to_owned));
            stuck
                .entry(cell.from.label.clone())
                .or_default()
                .extend(who);
        }
        if let Some(name) = &step.same_as {
            let earlier = self.saved.get(name).cloned().unwrap_or_default();
            for (source, now) in &stuck {
                let Some(before) = earlier.get(source) else {
                    return Err(Stop::infra(format!(
                        "'sameAs: {name}' asserts nothing about {source}: no one endpoint answered it in that probe"
                    )));
                };
                self.findings.checked(true);
                if now.is_empty() || now.iter().any(|who| who != before) {
                    self.findings.fail(Failure {
                        requirements: self.case.scenario.requirement.clone(),
                        step: None,
                        verb: String::new(),
                        kind: "affinity-broken".into(),
                        cell: Some(source.clone()),
                        expected: format!("{before}, as before"),
                        actual: format!("{now:?}"),
                        message: format!(
                            "{source} was answered by {now:?}, expected {before} as before"
                        ),
                    });
                }
            }
        }
        if let Some(name) = &step.save {
            let one_each = stuck
                .into_iter()
                .filter_map(|(source, who)| {
                    (who.len() == 1).then(|| (source, who.into_iter().next().unwrap_or_default()))
                })
                .collect();
            self.saved.insert(name.clone(), one_each);
        }
        Ok(())
    }

    fn latency(&mut self, step: &Probe, seen: &Seen) {
        let mut latencies: Vec<u64> = seen
            .tries
            .iter()
            .flatten()
            .filter(|one| one.outcome.identity().is_some())
            .map(|one| one.latency_us)
            .collect();
        latencies.sort_unstable();
        let (Some(&median), Some(&max)) = (latencies.get(latencies.len() / 2), latencies.last())
        else {
            if let Some(ceiling) = step.latency {
                self.findings.fail_with(
                    "slow",
                    format!("a median latency below {ceiling}"),
                    "no answer at all",
                );
            }
            return;
        };
        let nearest = |percent: usize| latencies[(latencies.len() * percent).div_ceil(100) - 1];
        for (name, value) in [
            ("connect latency p50", median),
            ("connect latency p90", nearest(90)),
            ("connect latency p99", nearest(99)),
            ("connect latency max", max),
        ] {
            self.findings.measure(name, "us", value as f64);
        }
        if let Some(ceiling) = step.latency {
            self.findings.checked(true);
            if u128::from(median) > ceiling.0.as_micros() {
                self.findings.fail_with(
                    "slow",
                    format!("a median latency below {ceiling}"),
                    format!("{median} us"),
                );
            }
        }
    }
}

/// Why an explicit outcome and the oracle's do not agree, if they do not.
pub(crate) fn disagreement(cell: &Cell, expect: &Expect) -> Option<String> {
    let outcomes = cell.expectation.outcomes.as_slice();
    let agrees = match expect {
        Expect::Model => true,
        Expect::Refused => matches!(outcomes, [Want::Refuse]),
        Expect::Dropped => matches!(outcomes, [Want::Drop]),
        Expect::NoAnswer => outcomes.iter().all(|outcome| match outcome {
            Want::Refuse | Want::Drop | Want::NoAnswer => true,
            Want::NotService => cell.expectation.direct == oracle::Direct::Nobody,
            Want::Endpoints { .. } => false,
        }),
        Expect::Endpoints(names) => match outcomes {
            [Want::Endpoints { shares, .. }] => {
                let want: BTreeSet<&str> = names.iter().map(String::as_str).collect();
                let have: BTreeSet<&str> = shares
                    .iter()
                    .filter_map(|share| share.pod.as_deref())
                    .collect();
                want == have
            }
            _ => false,
        },
    };
    (!agrees).then(|| {
        format!(
            "the scenario expects {expect:?} for {}, the oracle says {} because {}",
            cell.label(),
            cell.expectation,
            cell.expectation.why.join("; ")
        )
    })
}
