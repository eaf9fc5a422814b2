//! `harness gate`: the command on result directories, and on real runs. What it decides is tested where that is done
//! (`reports/tests/gate.rs`).

use std::path::Path;

use serde_json::Value;

use crate::{
    prepared::Prepared,
    support::{Finished, directory, events, of_type, report, run, worlds, write},
};

/// The gate on the run in `new`, of which three cases are enough.
fn gate(root: &Path, args: &[&str]) -> Finished {
    run(root, &[&["gate", "new", "--min-cases", "3"], args].concat())
}

#[test]
fn a_gate_has_an_exit_code_for_every_answer() {
    let directory = directory();
    let root = directory.path();
    Prepared::new("before", 2, None).write(&root.join("before"));
    Prepared::new("new", 2, None).write(&root.join("new"));
    let open = gate(root, &["--baseline", "before"]).exits(0);
    assert!(
        open.stdout
            .starts_with("Gate open: example-proxy 1.0 (new) against before\n"),
        "{open:?}"
    );
    write(
        root,
        "required.yaml",
        "cases: ['one[ipv4]', 'four[ipv4]']\n",
    );
    let closed = gate(root, &["--require", "required.yaml"]).exits(1);
    assert!(
        closed
            .stdout
            .contains("required     four[ipv4]: has to pass, and was not planned"),
        "{closed:?}"
    );
    let markdown = gate(
        root,
        &["--require", "required.yaml", "--format", "markdown"],
    );
    assert!(
        markdown.stdout.starts_with("# ❌ Gate closed\n"),
        "{markdown:?}"
    );
    // A part of a profile is too little unless somebody says so.
    run(root, &["gate", "new"]).exits(5);

    let mut flaky = Prepared::new("flaky", 2, None);
    flaky.fails = vec![("two[ipv4]", 1)];
    flaky.write(&root.join("flaky"));
    let on_flaky = |args: &[&str]| run(root, &[&["gate", "flaky", "--min-cases=3"], args].concat());
    on_flaky(&[]).exits(3);
    on_flaky(&["--flake-budget", "1"]).exits(0);
    on_flaky(&["--baseline", "before"]).exits(3);

    let mut killed = Prepared::new("killed", 2, None);
    killed.killed_after = Some(3);
    killed.write(&root.join("killed"));
    run(root, &["gate", "killed", "--min-cases=1"]).exits(4);

    let mut unsung = Prepared::new("unsung", 2, None);
    unsung.start.options.canaries.clear();
    unsung.write(&root.join("unsung"));
    let refused = run(root, &["gate", "unsung", "--min-cases=3"]).exits(4);
    assert!(refused.stdout.contains("has no canaries"), "{refused:?}");
}

#[test]
fn bad_input_is_refused() {
    let directory = directory();
    let root = directory.path();
    run(root, &["gate"])
        .exits(2)
        .says("there is no run below harness-out");
    Prepared::new("new", 1, None).write(&root.join("new"));
    gate(root, &["--baseline", "new"])
        .exits(2)
        .says("against itself every run is good enough");
    gate(root, &["--baseline", "nothing"])
        .exits(2)
        .says("nothing: neither events.jsonl nor report.json");
    write(root, "required.yaml", "cases:\n  - a\n  - a\n");
    gate(root, &["--require", "required.yaml"])
        .exits(2)
        .says("required.yaml:3: the case 'a' is there twice");
    gate(root, &["--waivers", "nothing.yaml"])
        .exits(2)
        .says("nothing.yaml: cannot be read");
    run(root, &["gate", "--promote", "--require", "required.yaml"])
        .exits(2)
        .says("--history");
}

#[test]
fn without_a_name_the_newest_run_is_taken() {
    let directory = directory();
    let root = directory.path();
    for id in ["first", "second"] {
        Prepared::new(id, 1, None).write(&root.join("harness-out").join(id));
    }
    // Files have the clock of the kernel, whose ticks are long.
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    let log = root.join("harness-out/first/events.jsonl");
    let log = std::fs::File::options().write(true).open(log).unwrap();
    log.set_modified(later).unwrap();
    let open = run(root, &["gate", "--min-cases", "3"]).exits(0);
    assert!(open.stdout.contains("(first)"), "{open:?}");
}

#[test]
fn waivers_let_failures_in_until_their_day() {
    let directory = directory();
    let root = directory.path();
    let mut new = Prepared::new("new", 1, None);
    new.fails = vec![("two[ipv4]", 1)];
    new.write(&root.join("new"));
    gate(root, &[]).exits(1);
    let waivers = |case: &str, expires: &str| {
        let text = format!(
            "waivers:\n  - {{case: '{case}', reason: r, issue: 'https://example.org/1', expires: {expires}, owner: o}}\n"
        );
        write(root, "waivers.yaml", &text);
        gate(root, &["--waivers", "waivers.yaml"])
    };
    let open = waivers("two[ipv4]", "9999-12-31").exits(0);
    assert!(
        open.stdout
            .contains("fail  two[ipv4]: waived: r (https://example.org/1; o, until 9999-12-31)"),
        "{open:?}"
    );
    let expired = waivers("two[ipv4]", "2026-01-01").exits(1);
    assert!(expired.stdout.contains("has expired"), "{expired:?}");
    let unneeded = waivers("one[ipv4]", "9999-12-31").exits(1);
    assert!(unneeded.stdout.contains("is not needed"), "{unneeded:?}");
}

#[test]
fn cases_that_stay_clean_are_promoted() {
    let directory = directory();
    let root = directory.path();
    // Only cases of the catalogue can be required.
    let (clean, flaky) = ("clusterip-basic[ipv4,TCP]", "clusterip-basic[ipv6,TCP]");
    for n in 1..=3_u32 {
        let mut prepared = Prepared::new(&format!("run-{n}"), 1, None);
        if n == 2 {
            prepared.fails = vec![("two[ipv4]", 1)];
        }
        let dir = root.join(format!("{n}"));
        prepared.write(&dir);
        let log = dir.join("events.jsonl");
        let text = std::fs::read_to_string(&log).unwrap();
        let text = text.replace("one[ipv4]", clean).replace("two[ipv4]", flaky);
        std::fs::write(&log, text).unwrap();
    }
    run(root, &["history", "import", "1", "2", "3"]).exits(0);
    let promote = |after: &str| {
        let history = ["--history", "harness-history.sqlite", "--after", after];
        let args = ["gate", "--promote", "--require", "required.yaml"];
        run(root, &[&args[..], &history].concat()).exits(0)
    };
    let first = promote("2");
    assert!(
        first.stdout.starts_with(&format!("{clean}\n1 cases")),
        "{first:?}"
    );
    let required = std::fs::read_to_string(root.join("required.yaml")).unwrap();
    assert_eq!(required, format!("cases:\n  - {clean}\n"));
    let again = promote("1");
    assert!(
        again.stdout.starts_with(&format!("{flaky}\n1 cases")),
        "{again:?}"
    );
    assert!(promote("4").stdout.starts_with("0 cases added"));
}

#[test]
fn a_run_shows_that_it_would_have_noticed() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let root = directory.path();
    let certify = |out: &str, args: &[&str]| {
        let filter = [
            "certify",
            "--filter",
            "scenario:clusterip-basic and ipv4",
            "--out",
            out,
        ];
        run(root, &[&filter[..], args].concat())
    };
    certify("new", &[]).exits(0);
    let log = events(&root.join("new"));
    let canaries = of_type(&log, "canaryFinished");
    let mut names: Vec<&str> = canaries
        .iter()
        .filter_map(|canary| canary["canary"].as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["canary", "null"]);
    assert!(
        canaries.iter().all(|canary| canary["outcome"] == "caught"),
        "{canaries:#?}"
    );
    run(root, &["gate", "new", "--min-cases", "2"]).exits(0);

    certify("unsung", &["--no-canary"]).exits(0);
    assert_eq!(report(&root.join("unsung"))["canaries"], Value::Null);
    run(root, &["gate", "unsung", "--min-cases", "2"]).exits(4);
}

/// Each case that a canary may meet notices it, and not only the one that a seed chose.
#[test]
fn every_case_of_the_canary_notices_it() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let root = directory.path();
    let args = [
        "certify",
        "--no-classify",
        "--no-canary",
        "--jobs=8",
        "--candidate",
        "canary",
        "--out",
        "out",
    ];
    let filter = [
        "--filter",
        "scenario:nodeport-basic or scenario:clusterip-basic",
    ];
    run(root, &[&args[..], &filter].concat()).exits(1);
    let report = report(&root.join("out"));
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 8);
    for case in cases {
        let wanted = match case["scenario"].as_str().unwrap() {
            "nodeport-basic" => "fail",
            _ => "pass",
        };
        assert_eq!(case["verdict"], wanted, "{case:#}");
    }
}

#[test]
fn a_certification_shows_what_is_waived_and_stays_what_it_is() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let root = directory.path();
    let entry = "reason: r, issue: 'https://example.org/1', expires: 9999-12-31, owner: o";
    write(
        root,
        "waivers.yaml",
        &format!("waivers:\n  - {{case: 'clusterip-basic[ipv4,TCP]', {entry}}}\n"),
    );
    let args = [
        "certify",
        "--no-classify",
        "--no-canary",
        "--candidate",
        "null",
        "--out",
        "out",
    ];
    let filter = [
        "--filter",
        "clusterip-basic[ipv4,TCP]",
        "--waivers",
        "waivers.yaml",
    ];
    run(root, &[&args[..], &filter].concat()).exits(1);
    let report = report(&root.join("out"));
    assert_eq!(report["waivers"][0]["state"], "used");
    assert_eq!(report["cases"][0]["waived"]["reason"], "r");
    for file in ["report.md", "report.html", "junit.xml"] {
        let text = std::fs::read_to_string(root.join("out").join(file)).unwrap();
        assert!(text.to_lowercase().contains("waived"), "{file}");
    }
    write(
        root,
        "unknown.yaml",
        &format!("waivers:\n  - {{case: nobody, {entry}}}\n"),
    );
    run(
        root,
        &["certify", "--waivers", "unknown.yaml", "--out", "other"],
    )
    .exits(2)
    .says("unknown.yaml:2: there is no case 'nobody' in this catalogue");
    assert!(!root.join("other").exists());
}
