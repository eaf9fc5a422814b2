//! A site over made-up runs of a passing, a failing and a flaky candidate, for the pictures in `docs/site.md`:
//! `cargo run -p reports --example site -- DIRECTORY`.

#[path = "../tests/fixture/mod.rs"]
mod fixture;

use std::path::PathBuf;

use fixture::kept::keep;
use fixture::{Run, skip};
use reports::event::{RequirementInfo, SkipKind, Verdict};
use reports::sign::key::PrivateKey;
use reports::site::{self, Options};

use Verdict::{Fail, Pass};

/// Id, area, level, rule.
const RULES: [(&str, &str, &str, &str); 12] = [
    (
        "SVC-CIP-1",
        "clusterip",
        "core",
        "A service proxy MUST deliver new connections from a pod to a Service's ClusterIP to one of its usable endpoints, and to nobody else.",
    ),
    (
        "SVC-CIP-2",
        "clusterip",
        "core",
        "A service proxy MUST NOT change the source address of connections from pods to a ClusterIP.",
    ),
    (
        "SVC-NOEP-1",
        "clusterip",
        "core",
        "A service proxy MUST refuse or drop connections to a Service without endpoints.",
    ),
    (
        "SVC-NP-1",
        "nodeport",
        "core",
        "A service proxy MUST serve NodePorts on every node address that it is configured for.",
    ),
    (
        "SVC-NP-2",
        "nodeport",
        "core",
        "A service proxy MUST deliver to endpoints on other nodes with externalTrafficPolicy: Cluster.",
    ),
    (
        "EP-1",
        "endpoints",
        "core",
        "A service proxy MUST use all ready endpoints of all EndpointSlices of a Service.",
    ),
    (
        "EP-2",
        "endpoints",
        "core",
        "A service proxy MUST stop using endpoints that are not ready.",
    ),
    (
        "UDP-1",
        "udp",
        "core",
        "A service proxy MUST remove connection tracking entries of UDP endpoints that are gone.",
    ),
    (
        "UDP-2",
        "udp",
        "core",
        "A service proxy MUST keep UDP flows to endpoints that stay.",
    ),
    (
        "AFF-1",
        "affinity",
        "extended",
        "A service proxy SHOULD keep a client on its endpoint with sessionAffinity: ClientIP.",
    ),
    (
        "TOP-1",
        "topology",
        "extended",
        "A service proxy SHOULD prefer endpoints with hints for its zone.",
    ),
    (
        "SCTP-1",
        "sctp",
        "extended",
        "A service proxy SHOULD deliver SCTP associations.",
    ),
];

fn of(candidate: &str, version: &str, id: &str, profile: &str) -> Run {
    let mut run = Run::new(20);
    run.start.run_id = id.into();
    run.start.candidate.name = candidate.into();
    run.start.candidate.version = Some(version.into());
    run.start.candidate.digest = Some(format!("sha256:{candidate}{version}"));
    run.start.options.profile = profile.into();
    let rule = |(id, area, level, text): &(&str, &str, &str, &str)| RequirementInfo {
        level: (*level).into(),
        ..fixture::requirement(id, area, text)
    };
    run.start.requirements = RULES.iter().map(rule).collect();
    run
}

/// Plans and runs two cases per rule; `failures` says how many of the twenty attempts of a case fail.
fn fill(run: &mut Run, failures: impl Fn(&str) -> usize) {
    for (rule, area, level, _) in RULES {
        if level == "extended" && run.start.options.profile == "core" {
            continue;
        }
        for family in ["ipv4", "ipv6"] {
            let id = format!("{}-{area}[{family}]", rule.to_lowercase());
            if rule == "SCTP-1" {
                run.plan(&id, &[rule]).skip = Some(skip(SkipKind::KernelMissing));
            } else {
                let fails = failures(&id);
                // Spread over the attempts.
                let verdict = |n: usize| if n * fails % 20 < fails { Fail } else { Pass };
                let verdicts: Vec<Verdict> = (0..20).map(verdict).collect();
                run.case(&id, &[rule], &verdicts);
                if fails > 0 {
                    for body in &mut run.body {
                        if let reports::event::EventBody::AttemptFinished(finished) = body
                            && finished.case == id
                        {
                            finished
                                .failures
                                .iter_mut()
                                .for_each(|f| f.requirements = vec![rule.into()]);
                        }
                    }
                }
            }
            run.start
                .cases
                .last_mut()
                .expect("it was just planned")
                .level = level.into();
        }
    }
    let choice = if run.start.candidate.name == "steady-proxy" {
        "refused"
    } else {
        "dropped"
    };
    let first = run.start.cases[0].id.clone();
    run.characteristic(
        &first,
        "no-local-endpoints",
        choice,
        "What happens to traffic with internalTrafficPolicy: Local and no endpoint.",
    );
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root: PathBuf = std::env::args_os().nth(1).ok_or("which directory?")?.into();
    let runs = root.join("runs");
    let key = PrivateKey::generate()?;
    for (day, version) in [(1, "v1.0.0"), (10, "v1.1.0"), (20, "v1.2.0")] {
        let mut run = of(
            "steady-proxy",
            version,
            &format!("steady-{day}"),
            "extended",
        );
        fill(&mut run, |_| 0);
        let dir = keep(&runs.join(format!("steady-{day}")), day, &run);
        reports::sign::sign(&dir, &reports::read(&dir)?, &key, Some("Jane Doe"))?;
    }
    let mut broken = of("broken-proxy", "v0.3.1", "broken-1", "core");
    fill(&mut broken, |case| match case {
        "udp-1-udp[ipv4]" | "udp-1-udp[ipv6]" | "svc-np-2-nodeport[ipv6]" => 20,
        "ep-2-endpoints[ipv4]" => 3,
        _ => 0,
    });
    keep(&runs.join("broken"), 19, &broken);
    for (day, rate) in [0, 0, 1, 0, 0, 0, 2, 6, 4, 7, 5, 6, 3, 5]
        .into_iter()
        .enumerate()
    {
        let mut run = of("nervous-proxy", "v2.4.0", &format!("nervous-{day}"), "core");
        if day >= 6 {
            run.start.candidate.version = Some("v2.5.0".into());
        }
        fill(&mut run, |case| match case {
            "udp-1-udp[ipv6]" => rate,
            "svc-noep-1-clusterip[ipv4]" if day == 9 => 1,
            "ep-1-endpoints[ipv6]" if day < 3 => 20,
            _ => 0,
        });
        keep(&runs.join(format!("nervous-{day}")), 4 + day as u32, &run);
    }
    let mut part = of("steady-proxy", "v1.2.0", "steady-part", "core");
    part.start.options.filter = Some("area:udp".into());
    part.case("udp-1-udp[ipv4]", &["UDP-1"], &[Pass; 20]);
    keep(&runs.join("part"), 21, &part);
    let keys = [key.public()];
    let options = Options {
        title: "Service proxy conformance".into(),
        history: None,
        keys: &keys,
    };
    let found = site::find(&[runs])?;
    let written = site::write(&found.places, &options, &root.join("site"))?;
    println!(
        "{} runs: {}",
        written.runs,
        root.join("site/index.html").display()
    );
    Ok(())
}
