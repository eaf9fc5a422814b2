//! Which specs of `e2e.test` a candidate has to run on a cluster, and why not the others.
//!
//! Lists of names to skip rot: nobody knows any more why an entry is there, and a spec that is renamed is run or skipped by accident.
//! So nothing is skipped by its name here. A spec is left out for what it says itself that it needs (its tags), or for a feature that
//! the candidate declares not to have; each with its reason, which the report shows.
//!
//! Tags are those of the Kubernetes end-to-end framework (`[Feature:NAME]`, `[FeatureGate:NAME]` with `[Alpha]` or `[Beta]`,
//! `[Provider:NAME]`, `[Disruptive]`, `[Flaky]`).

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::images::Missing;
use crate::{candidate::Candidate, coverage::Table, plan::Catalogue, scenario::Feature};

/// What the cluster and its user allow.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// Features that the cluster has besides what every cluster has, as tags name them.
    pub features: BTreeSet<String>,
    /// Whether specs may break what others on the cluster use.
    pub disruptive: bool,
    /// Every area of Kubernetes' conformance, and not SIG Network alone.
    pub conformance: bool,
    /// The number of zones that its nodes are in, if that is known.
    pub zones: Option<usize>,
}

/// Features of tags that every cluster with a Service proxy has: they say what a spec is about, and not what it needs.
const EVERYWHERE: [&str; 1] = ["Networking-IPv4"];

/// What is to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Choice {
    /// Names of the specs that are run.
    pub run: Vec<String>,
    /// Names of the specs that belong here and are left out, each with the reason.
    pub left_out: BTreeMap<String, String>,
    /// Names of the specs that were chosen and are not run, since they would only wait for images that cannot be had.
    pub imageless: BTreeMap<String, Vec<Missing>>,
    /// Specs of SIG Network that `scenarios/upstream.yaml` does not know: another version's.
    pub unknown: Vec<String>,
}

/// The names that `e2e.test -list-tests` prints, one per line behind its place in the source.
pub fn names(listing: &str) -> Vec<String> {
    let name = |line: &str| {
        let (place, name) = line.trim_start().split_once(": ")?;
        let (file, number) = place.rsplit_once(':')?;
        let is_place = file.ends_with(".go") && number.parse::<u32>().is_ok();
        is_place.then(|| name.trim_end().to_owned())
    };
    listing.lines().filter_map(name).collect()
}

impl Choice {
    /// Chooses among the specs of a program.
    pub fn of(
        names: &[String],
        allowed: &Allowed,
        candidate: Option<&Candidate>,
        table: &Table,
        catalogue: &Catalogue,
    ) -> Self {
        let mut choice = Self::default();
        for name in names {
            let own = name.starts_with("[sig-network] ");
            let wanted = match allowed.conformance {
                true => tags(name).any(|tag| tag == "Conformance"),
                false => own,
            };
            if !wanted {
                continue;
            }
            let row = table.row(name);
            if own && row.is_none() {
                choice.unknown.push(name.clone());
            }
            let scenarios = row.map_or(&[][..], |row| &row.scenarios);
            let reason = tags(name)
                .find_map(|tag| obstacle(tag, allowed))
                .or_else(|| zoneless(scenarios, allowed.zones?, catalogue))
                .or_else(|| lacking(name, scenarios, candidate?, catalogue));
            match reason {
                Some(reason) => {
                    choice.left_out.insert(name.clone(), reason);
                }
                None => choice.run.push(name.clone()),
            }
        }
        choice
    }

    /// Takes out what uses images that cannot be had; `users` are the specs that use each.
    pub fn without(&mut self, missing: &[Missing], users: &BTreeMap<String, Vec<String>>) {
        for missing in missing {
            for name in users.get(&missing.image).into_iter().flatten() {
                self.run.retain(|run| run != name);
                let known = self.imageless.entry(name.clone()).or_default();
                known.push(missing.clone());
            }
        }
    }

    /// The images for want of which specs are not run.
    pub fn missing_images(&self) -> Vec<Missing> {
        let mut all: Vec<Missing> = self.imageless.values().flatten().cloned().collect();
        all.sort_by(|a, b| a.image.cmp(&b.image));
        all.dedup();
        all
    }

    /// The regular expression that chooses exactly these specs. Ginkgo puts the suite's name in front of a spec's.
    pub fn focus(&self) -> String {
        let escaped: Vec<String> = self.run.iter().map(|name| regex::escape(name)).collect();
        format!(" (?:{})$", escaped.join("|"))
    }
}

/// What is between brackets.
fn tags(name: &str) -> impl Iterator<Item = &str> {
    name.split('[')
        .skip(1)
        .filter_map(|rest| Some(rest.split_once(']')?.0))
}

/// Why a spec with this tag is not run.
fn obstacle(tag: &str, allowed: &Allowed) -> Option<String> {
    match tag.split_once(':') {
        Some(("Feature", feature)) => {
            let there = EVERYWHERE.contains(&feature) || allowed.features.contains(feature);
            (!there).then(|| {
                format!("it needs the feature {feature} of the cluster: --feature {feature} says that it is there")
            })
        }
        Some(("Provider", provider)) => Some(format!(
            "it needs a cluster of the cloud provider {provider}"
        )),
        _ => match tag {
            "Alpha" => (!allowed.features.contains("Alpha")).then(|| {
                "it needs an alpha feature gate: --feature Alpha says that all are on".to_owned()
            }),
            "Disruptive" => (!allowed.disruptive).then(|| {
                "it breaks what others on the cluster use: --disruptive allows that".to_owned()
            }),
            "Flaky" => Some("upstream calls it flaky, so it can show nothing".to_owned()),
            _ => None,
        },
    }
}

/// Why a spec cannot be run on nodes in so few zones: as many as all of the scenarios need that stand for it. Upstream looks again, and skips what
/// needs more of them, or several nodes in each.
fn zoneless(scenarios: &[String], there: usize, catalogue: &Catalogue) -> Option<String> {
    let zones = catalogue
        .documents
        .iter()
        .filter(|document| scenarios.contains(&document.header.id))
        .map(|document| {
            let topology = document.cases.first().map(|key| document.topology(key));
            let nodes = topology.and_then(Result::ok).map(|topology| topology.nodes);
            let zones = nodes.into_iter().flatten().filter_map(|node| node.zone);
            zones.collect::<BTreeSet<String>>().len()
        });
    // Nodes of one zone are as good as nodes of none.
    let needed = zones.min().filter(|needed| *needed > 0)?.max(2);
    (there < needed).then(|| {
        format!("it needs nodes in {needed} zones or more, and these are in {there}: with --kind, --zones 3 makes three")
    })
}

/// The feature that a spec needs and the candidate declares not to have.
fn lacking(
    name: &str,
    scenarios: &[String],
    candidate: &Candidate,
    catalogue: &Catalogue,
) -> Option<String> {
    let sctp = name.contains("SCTP").then_some(Feature::Sctp);
    let of_scenarios: Vec<&Vec<Feature>> = catalogue
        .documents
        .iter()
        .filter(|document| scenarios.contains(&document.header.id))
        .map(|document| &document.header.features)
        .collect();
    // A spec needs what all of the scenarios that stand for it need.
    let shared = of_scenarios.first().into_iter().flat_map(|features| {
        features
            .iter()
            .copied()
            .filter(|feature| of_scenarios.iter().all(|other| other.contains(feature)))
    });
    sctp.into_iter()
        .chain(shared)
        .find_map(|feature| candidate.lacks(feature))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{coverage::Accounts, plan::Requirements};

    fn choice(names: &[&str], allowed: &Allowed, manifest: Option<&str>) -> Choice {
        let requirements = Requirements::embedded().unwrap();
        let catalogue = Catalogue::embedded(&requirements).unwrap();
        let table = Accounts::embedded().unwrap().upstream.table(&catalogue);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let dir = tempfile::tempdir().unwrap();
        let candidate = manifest.map(|text| {
            let file = dir.path().join("candidate.yaml");
            std::fs::write(&file, text).unwrap();
            Candidate::load(&file.display().to_string()).unwrap()
        });
        Choice::of(&names, allowed, candidate.as_ref(), &table, &catalogue)
    }

    const BASIC: &str =
        "[sig-network] Services should serve a basic endpoint from pods [Conformance]";
    const AFFINITY: &str = "[sig-network] Services should have session affinity timeout work for NodePort service [LinuxOnly]";
    const SCTP: &str =
        "[sig-network] SCTP [LinuxOnly] should create a ClusterIP Service with SCTP ports";
    const DUAL: &str =
        "[sig-network] [Feature:IPv6DualStack] should create service with ipv4 cluster ip";
    const MIGRATION: &str = "[sig-network] kube-proxy migration [Serial] [Disruptive] should go on";

    #[test]
    fn what_is_left_out_has_a_reason_of_its_own() {
        let all = [
            BASIC,
            AFFINITY,
            DUAL,
            MIGRATION,
            "[sig-node] Pods should be submitted [Conformance]",
        ];
        let plain = choice(&all, &Allowed::default(), None);
        assert_eq!(plain.run, [BASIC, AFFINITY]);
        let reasons: Vec<&str> = plain.left_out.values().map(String::as_str).collect();
        assert!(reasons[0].contains("feature IPv6DualStack"), "{reasons:?}");
        assert!(reasons[1].contains("--disruptive"), "{reasons:?}");
        // Another version's spec is run, and named.
        let new = "[sig-network] Services should do what nobody has heard of";
        let newer = choice(&[new], &Allowed::default(), None);
        assert_eq!(
            (newer.run, newer.unknown),
            (vec![new.to_owned()], vec![new.to_owned()])
        );

        let allowed = Allowed {
            features: ["IPv6DualStack".to_owned()].into(),
            disruptive: true,
            ..Allowed::default()
        };
        assert_eq!(
            choice(&all, &allowed, None).run,
            [BASIC, AFFINITY, DUAL, MIGRATION]
        );
        let conformance = Allowed {
            conformance: true,
            ..allowed
        };
        assert_eq!(
            choice(&all, &conformance, None).run,
            [BASIC, "[sig-node] Pods should be submitted [Conformance]"]
        );
    }

    #[test]
    fn specs_about_zones_need_nodes_in_zones() {
        let hints = "[sig-network] Topology Hints should distribute endpoints evenly";
        let zone = "[sig-network] Traffic Distribution should route traffic to an endpoint in the same zone when using PreferClose";
        let in_zones = |zones| {
            let allowed = Allowed {
                zones,
                ..Allowed::default()
            };
            choice(&[BASIC, hints, zone], &allowed, None)
        };
        for few in [0, 1] {
            let left = in_zones(Some(few));
            assert_eq!(left.run, [BASIC], "{few}");
            for spec in [hints, zone] {
                let reason = &left.left_out[spec];
                assert!(
                    reason.starts_with("it needs nodes in ")
                        && reason.contains(&format!("these are in {few}:")),
                    "{reason}"
                );
            }
        }
        // Nobody has looked, or there are enough: the spec decides.
        for zones in [None, Some(3)] {
            assert_eq!(in_zones(zones).run, [BASIC, hints, zone], "{zones:?}");
        }
    }

    #[test]
    fn a_spec_without_its_image_is_chosen_and_not_run() {
        let mut choice = choice(&[BASIC, AFFINITY], &Allowed::default(), None);
        let missing = |image: &str| Missing {
            image: image.into(),
            nodes: [("node2".to_owned(), "no such host".to_owned())].into(),
        };
        let users: BTreeMap<String, Vec<String>> = [
            ("a:1".to_owned(), vec![AFFINITY.to_owned()]),
            ("b:1".to_owned(), vec![BASIC.to_owned()]),
        ]
        .into();
        choice.without(&[missing("a:1")], &users);
        assert_eq!(choice.run, [BASIC]);
        assert_eq!(choice.imageless[AFFINITY], [missing("a:1")]);
        assert_eq!(choice.missing_images(), [missing("a:1")]);
        assert!(choice.left_out.is_empty());
        // Of one that lacks two, both are told.
        let both: BTreeMap<String, Vec<String>> =
            [("d:1".to_owned(), vec![AFFINITY.to_owned()])].into();
        choice.without(&[missing("d:1")], &both);
        assert_eq!(choice.missing_images(), [missing("a:1"), missing("d:1")]);
        // What nobody uses is not missed.
        choice.without(&[missing("c:1")], &users);
        assert_eq!((choice.run.len(), choice.imageless.len()), (1, 1));
    }

    #[test]
    fn what_a_candidate_does_not_claim_is_not_asked_of_it() {
        let manifest = "name: c\nunsupported:\n  - {feature: sessionAffinity, reason: not written yet}\n  - {feature: sctp, reason: no kernel}\nprocess: {command: []}\n";
        let some = choice(
            &[BASIC, AFFINITY, SCTP],
            &Allowed::default(),
            Some(manifest),
        );
        assert_eq!(some.run, [BASIC]);
        assert_eq!(some.left_out[AFFINITY], "not written yet");
        assert_eq!(some.left_out[SCTP], "no kernel");
    }

    #[test]
    fn the_focus_is_exact() {
        let choice = Choice {
            run: vec!["[sig-network] a (b) $c".into(), "[sig-network] d".into()],
            ..Choice::default()
        };
        let focus = regex::Regex::new(&choice.focus()).unwrap();
        for (text, matches) in [
            ("Kubernetes e2e suite [sig-network] a (b) $c", true),
            ("Kubernetes e2e suite [sig-network] d", true),
            ("Kubernetes e2e suite [sig-network] d and more", false),
            ("Kubernetes e2e suite a [sig-network] a (b) c", false),
        ] {
            assert_eq!(focus.is_match(text), matches, "{text}");
        }
    }

    #[test]
    fn names_are_told_from_what_else_is_printed() {
        let listing = "I0101 a log line: with colons\nThe following spec names can be used with 'ginkgo run --focus/skip':\n    test/e2e/network/service.go:41: [sig-network] Services should: be odd\n    ../x.go:7: [sig-node] b \n\n";
        assert_eq!(
            names(listing),
            ["[sig-network] Services should: be odd", "[sig-node] b"]
        );
    }
}
