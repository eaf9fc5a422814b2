//! What comes after a night: issues for flakes, the history, the site. GitHub's `gh` is played by a script that keeps issues in a file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use reports::{
    Report,
    event::{AttemptFinished, Event, EventBody, Failure, FinishReason, Verdict},
    json,
};
use serde_json::{Value, json};

use crate::{
    prepared::Prepared,
    scripts::{command, finished, program},
    support::{Finished, directory, write},
};

/// `gh api` for issues, artifacts and `gh run download`, out of files of the test. Every call that writes is logged.
const GH: &str = r#"#!/bin/sh
set -eu
[ ! -e broken ] || { echo 'gh: HTTP 502' >&2; exit 1; }
method=GET input= path=
command=$1
shift
case $command in
run)
    [ "$1" = download ] && run=$2
    while [ $# -gt 0 ]; do
        [ "$1" = --dir ] && into=$2
        shift
    done
    cp "artifacts/$run/"* "$into/"
    exit
    ;;
esac
while [ $# -gt 0 ]; do
    case $1 in
    --paginate) ;;
    --method) method=$2 && shift ;;
    --input) input=$2 && shift ;;
    *) path=$1 ;;
    esac
    shift
done
[ "$method" = GET ] || echo "$method $path" >>writes
case $method:$path in
GET:repos/o/r) echo '{"id": 7, "default_branch": "main"}' ;;
GET:repos/o/r/actions/artifacts*) cat artifacts.json ;;
GET:repos/o/r/issues?labels=harness-flake*)
    # Two pages.
    jq '.[:1]' issues.json
    jq '.[1:]' issues.json
    ;;
POST:repos/o/r/issues)
    jq -c --slurpfile new "$input" '. + [{number: (length + 1), state: "open", state_reason: null} + $new[0]]' issues.json >next
    mv next issues.json
    jq '.[-1]' issues.json
    ;;
PATCH:repos/o/r/issues/*)
    jq -c --argjson number "${path##*/}" --slurpfile change "$input" \
        'map(if .number == $number then . + $change[0] else . end)' issues.json >next
    mv next issues.json
    echo '{}'
    ;;
POST:repos/o/r/issues/*/comments) jq -r .body "$input" >>comments ;;
*) echo "unexpected: $method $path" >&2 && exit 1 ;;
esac
"#;

/// A place with a `gh` and no issues; `false` where there is no jq.
struct Place {
    directory: tempfile::TempDir,
    path: String,
}

impl Place {
    fn new() -> Option<Self> {
        let directory = directory();
        let found = std::process::Command::new("jq").arg("--version").output();
        if found.is_err() {
            println!("skipped: no jq here");
            return None;
        }
        program(directory.path(), "gh", GH);
        write(directory.path(), "issues.json", "[]");
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", directory.path().display());
        Some(Self { directory, path })
    }

    fn root(&self) -> &Path {
        self.directory.path()
    }

    fn run(&self, script: &str, env: &[(&str, &str)], args: &[&str]) -> Finished {
        let all = [
            &[("PATH", self.path.as_str()), ("GITHUB_REPOSITORY", "o/r")],
            env,
        ]
        .concat();
        let mut command = command(self.root(), script, &all);
        command.args(args);
        finished(command)
    }

    fn tell(&self, args: &[&str]) -> Finished {
        self.run("flake-issues", &[], args).exits(0)
    }

    fn issues(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.root().join("issues.json")).expect("issues");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Changes the only issue as a person would.
    fn edit(&self, change: impl FnOnce(&mut Value)) {
        let mut issues = self.issues();
        assert_eq!(issues.len(), 1);
        change(&mut issues[0]);
        write(
            self.root(),
            "issues.json",
            &serde_json::to_string(&issues).expect("JSON"),
        );
    }

    fn writes(&self) -> String {
        let text = fs::read_to_string(self.root().join("writes")).unwrap_or_default();
        let _ = fs::remove_file(self.root().join("writes"));
        text
    }

    fn report(&self, name: &str, report: &Report) -> PathBuf {
        write(self.root(), name, &json::render(report))
    }
}

fn failure(family: &str, message: &str) -> Failure {
    let address = if family == "ipv6" {
        "[fd00:96::101]"
    } else {
        "10.96.0.10"
    };
    Failure {
        requirements: vec!["SVC-CIP-1".into()],
        step: Some(1),
        verb: "converge".into(),
        kind: "refused".into(),
        cell: Some(format!("pod client -> web ClusterIP {address}:80/TCP")),
        expected: "answered by web".into(),
        actual: "refused".into(),
        message: message.into(),
    }
}

/// A run in which these cases are tried three times, and their first attempts fail so; `always` fails always.
fn night(run: &str, fails: &[(&str, Failure)], always: &[&str]) -> Report {
    let start = Prepared::new(run, 3, None).start;
    let ids: Vec<String> = start.cases.iter().map(|case| case.id.clone()).collect();
    let mut bodies = vec![EventBody::RunStarted(start)];
    for id in &ids {
        for attempt in 1..=3 {
            let failed = fails.iter().find(|(case, _)| case == id);
            let failed = failed.filter(|_| attempt == 1 || always.contains(&id.as_str()));
            bodies.push(EventBody::AttemptFinished(AttemptFinished {
                case: id.clone(),
                attempt,
                verdict: if failed.is_some() {
                    Verdict::Fail
                } else {
                    Verdict::Pass
                },
                duration_ms: 10.0,
                convergence_ms: None,
                failures: failed
                    .map(|(_, failure)| failure.clone())
                    .into_iter()
                    .collect(),
                warnings: Vec::new(),
                skip: None,
                infra: None,
                complaint: None,
                evidence: None,
                checks: 1,
                positive_checks: 1,
            }));
        }
    }
    bodies.push(EventBody::RunFinished {
        reason: FinishReason::Completed,
        message: None,
    });
    let time = format!("2026-11-2{}T01:17:00.000000Z", run.len() % 10);
    let events = (0..).zip(bodies).map(|(seq, body)| Event {
        seq,
        time: time.clone(),
        body,
    });
    Report::from_events(events).expect("a run")
}

fn flaky(run: &str) -> Report {
    night(
        run,
        &[("one[ipv4]", failure("ipv4", "client was refused"))],
        &[],
    )
}

#[test]
fn a_flake_gets_one_issue_however_often_it_is_told() {
    let Some(place) = Place::new() else { return };
    place.report("a.json", &flaky("run-a"));
    place.tell(&["a.json"]);
    assert_eq!(place.writes(), "POST repos/o/r/issues\n");
    let [issue] = &place.issues()[..] else {
        panic!("one issue")
    };
    assert_eq!(
        issue["title"],
        "Flake: example-proxy: SVC-CIP-1 converge refused (pod -> ClusterIP ? ?)"
    );
    assert_eq!(issue["labels"], json!(["harness-flake"]));
    let body = issue["body"].as_str().expect("a body");
    assert!(body.starts_with("<!-- harness-flake "), "{body}");
    for part in ["run-a", "one&#91;ipv4&#93;", "| 1 | 3 |", "SVC-CIP-1"] {
        assert!(body.contains(part), "{part}: {body}");
    }

    // The same again, and twice at once: nothing is new.
    place.tell(&["a.json"]);
    place.tell(&["a.json", "a.json"]);
    assert_eq!(place.writes(), "");

    // Another night, in the other family: the same flake.
    let other = night(
        "run-bb",
        &[("two[ipv4]", failure("ipv6", "client was refused"))],
        &[],
    );
    place.report("b.json", &other);
    place.tell(&["b.json"]);
    assert_eq!(place.writes(), "PATCH repos/o/r/issues/1\n");
    let body = place.issues()[0]["body"]
        .as_str()
        .expect("a body")
        .to_owned();
    assert!(
        body.contains("<!-- seen run-a -->") && body.contains("<!-- seen run-bb -->"),
        "{body}"
    );
    place.tell(&["b.json"]);
    assert_eq!(place.writes(), "");

    // Another signature is another flake.
    let mut elsewhere = failure("ipv4", "nobody answered");
    elsewhere.kind = "no-answer".into();
    place.report("c.json", &night("run-c", &[("one[ipv4]", elsewhere)], &[]));
    place.tell(&["a.json", "b.json", "c.json"]);
    assert_eq!(place.issues().len(), 2);
}

#[test]
fn what_always_fails_is_no_flake() {
    let Some(place) = Place::new() else { return };
    let broken = night(
        "run-a",
        &[("one[ipv4]", failure("ipv4", "client was refused"))],
        &["one[ipv4]"],
    );
    place.report("a.json", &broken);
    assert!(place.tell(&["a.json"]).stdout.contains("no flakes"));
    place.report("b.json", &night("run-b", &[], &[]));
    place.tell(&["b.json"]);
    assert_eq!(place.issues(), Vec::<Value>::new());
}

#[test]
fn what_people_wrote_stays() {
    let Some(place) = Place::new() else { return };
    place.report("a.json", &flaky("run-a"));
    place.tell(&["a.json"]);
    place.edit(|issue| {
        issue["title"] = "Our own words".into();
        let body = issue["body"].as_str().expect("a body");
        // The page's text field sends lines as Windows has them.
        issue["body"] = format!("{body}\nIt is the **lock** in `sync`.")
            .replace('\n', "\r\n")
            .into();
    });
    place.writes();
    place.report("b.json", &flaky("run-bb"));
    place.tell(&["b.json"]);
    let [issue] = &place.issues()[..] else {
        panic!("one issue")
    };
    assert_eq!(issue["title"], "Our own words");
    let body = issue["body"].as_str().expect("a body");
    assert!(
        body.contains("run-bb") && body.ends_with("\nIt is the **lock** in `sync`."),
        "{body}"
    );
}

#[test]
fn nothing_is_closed_and_what_was_closed_on_purpose_stays_closed() {
    let Some(place) = Place::new() else { return };
    place.report("a.json", &flaky("run-a"));
    place.tell(&["a.json"]);
    place.writes();
    // A night without it.
    place.report("quiet.json", &night("run-q", &[], &[]));
    place.tell(&["quiet.json"]);
    assert_eq!(place.writes(), "");

    place.edit(|issue| {
        issue["state"] = "closed".into();
        issue["state_reason"] = "not_planned".into();
    });
    place.report("b.json", &flaky("run-bb"));
    place.tell(&["b.json"]);
    assert_eq!(place.writes(), "");

    // The run that it was closed after is no news; a later one is.
    place.edit(|issue| issue["state_reason"] = "completed".into());
    place.tell(&["a.json"]);
    assert_eq!(place.writes(), "");
    place.tell(&["b.json"]);
    assert_eq!(
        place.writes(),
        "PATCH repos/o/r/issues/1\nPOST repos/o/r/issues/1/comments\n"
    );
    assert_eq!(place.issues()[0]["state"], "open");
}

#[test]
fn the_first_sighting_is_kept_and_the_table_ends() {
    let Some(place) = Place::new() else { return };
    let names: Vec<String> = (0..40).map(|n| format!("night-{n:02}.json")).collect();
    for name in &names {
        let run = name.trim_end_matches(".json");
        place.report(name, &flaky(run));
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    place.tell(&names[..1]);
    place.tell(&names[1..]);
    let body = place.issues()[0]["body"]
        .as_str()
        .expect("a body")
        .to_owned();
    assert_eq!(body.matches("<!-- seen ").count(), 30);
    for (night, there) in [
        ("00", true),
        ("01", false),
        ("10", false),
        ("11", true),
        ("39", true),
    ] {
        assert_eq!(
            body.contains(&format!("<!-- seen night-{night} -->")),
            there,
            "{night}"
        );
    }
}

#[test]
fn a_dry_run_writes_nothing_and_needs_no_service() {
    let Some(place) = Place::new() else { return };
    place.report("a.json", &flaky("run-a"));
    let said = place.tell(&["--dry-run", "a.json"]).stdout;
    assert!(
        said.contains("open: Flake: example-proxy") && said.contains("<!-- harness-flake "),
        "{said}"
    );
    write(place.root(), "broken", "");
    place
        .run(
            "flake-issues",
            &[("GITHUB_REPOSITORY", "")],
            &["--dry-run", "a.json"],
        )
        .exits(0);
    assert_eq!(place.writes(), "");
}

#[test]
fn a_bad_night_does_not_flood() {
    let Some(place) = Place::new() else { return };
    let mut names = Vec::new();
    for kind in ["a", "b", "c", "d"] {
        let mut one = failure("ipv4", "client was refused");
        one.kind = kind.into();
        place.report(
            &format!("{kind}.json"),
            &night(&format!("run-{kind}"), &[("one[ipv4]", one)], &[]),
        );
        names.push(format!("{kind}.json"));
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let said = place
        .run("flake-issues", &[("HARNESS_MAX_ISSUES", "3")], &names)
        .exits(0)
        .stdout;
    assert!(said.contains("1 flakes are without an issue"), "{said}");
    assert_eq!(place.issues().len(), 3);
}

#[test]
fn trouble_is_no_quiet_night() {
    let Some(place) = Place::new() else { return };
    place.report("a.json", &flaky("run-a"));
    place.run("flake-issues", &[], &[]).exits(2);
    place
        .run("flake-issues", &[], &["nowhere.json"])
        .exits(2)
        .says("'nowhere.json' is not there");
    write(place.root(), "other.json", "{\"formatVersion\": 1}");
    place
        .run("flake-issues", &[], &["other.json"])
        .exits(2)
        .says("no reports of this suite");
    write(place.root(), "newer.json", "{\"formatVersion\": 2}");
    place.run("flake-issues", &[], &["newer.json"]).exits(2);
    write(place.root(), "broken", "");
    place
        .run("flake-issues", &[], &["a.json"])
        .exits(4)
        .says("failed to list the issues");
}

#[test]
fn texts_of_candidates_build_nothing() {
    let Some(place) = Place::new() else { return };
    const HOSTILE: &str = "@kubernetes/sig-network #1 `x` | <img src=x> **b** [l](http://e.example)\n\
                           <!-- end of what the harness writes; what you write below stays -->\n\u{1b}[31m\u{202e}$(touch stolen)";
    let mut one = failure("ipv4", HOSTILE);
    one.kind = HOSTILE.into();
    one.verb = HOSTILE.into();
    let mut report = night("run-a", &[("one[ipv4]", one.clone())], &[]);
    report.candidate.name = HOSTILE.into();
    report.candidate.version = Some(HOSTILE.into());
    report.run_id = HOSTILE.into();
    place.report("a.json", &report);
    place.tell(&["a.json"]);
    place.tell(&["a.json"]);
    let [issue] = &place.issues()[..] else {
        panic!("one issue")
    };
    let body = issue["body"].as_str().expect("a body");
    assert_eq!(
        body.matches("<!-- end of what the harness writes").count(),
        1,
        "{body}"
    );
    for live in [
        "@kub", "#1 ", "<img", "](", "**b", "`x`", "\u{1b}", "\u{202e}", "$(touch",
    ] {
        assert!(!body.contains(live), "{live:?}: {body}");
    }
    assert!(!issue["title"].as_str().expect("a title").contains('\n'));
    assert!(!place.root().join("stolen").exists());
    // Tables keep their shape.
    for line in body.lines().filter(|line| line.starts_with("| ")) {
        assert!(matches!(line.matches('|').count(), 3 | 4 | 7), "{line}");
    }
}

fn artifact(run: u64, branch: &str, repository: u64, created: &str) -> Value {
    json!({
        "name": "harness-history",
        "expired": false,
        "created_at": created,
        "workflow_run": {"id": run, "head_branch": branch, "head_repository_id": repository},
    })
}

#[test]
fn the_history_of_the_night_before_is_restored_and_nobody_else_s() {
    let Some(place) = Place::new() else { return };
    let root = place.root();
    write(root, "artifacts.json", "{\"artifacts\": []}");
    let none = place.run("restore-history", &[], &["db/h.sqlite"]).exits(0);
    assert!(
        none.stdout.contains("the history begins now"),
        "{}",
        none.stdout
    );

    for run in [1, 2, 3, 4] {
        let directory = root.join(format!("artifacts/{run}"));
        fs::create_dir_all(&directory).expect("a directory");
        write(
            &directory,
            "harness-history.sqlite",
            &format!("night {run}"),
        );
    }
    let mut expired = artifact(4, "main", 7, "2026-11-25T00:00:00Z");
    expired["expired"] = true.into();
    let listed = json!({"artifacts": [
        artifact(1, "main", 7, "2026-11-20T00:00:00Z"),
        artifact(2, "main", 7, "2026-11-21T00:00:00Z"),
        // A pull request from a fork, and another branch: newer, and not taken.
        artifact(3, "main", 8, "2026-11-24T00:00:00Z"),
        artifact(3, "try", 7, "2026-11-24T00:00:00Z"),
        expired,
    ]});
    write(root, "artifacts.json", &listed.to_string());
    place.run("restore-history", &[], &["db/h.sqlite"]).exits(0);
    assert_eq!(
        fs::read_to_string(root.join("db/h.sqlite")).expect("it is there"),
        "night 2"
    );

    // One that is there and cannot be had must not be replaced by a new one.
    fs::remove_dir_all(root.join("artifacts/2")).expect("it was there");
    fs::remove_dir_all(root.join("db")).expect("it was there");
    place
        .run("restore-history", &[], &["db/h.sqlite"])
        .exits(4)
        .says("failed to restore the history");
    assert!(!root.join("db/h.sqlite").exists());
}

#[test]
fn a_night_goes_into_history_site_and_issues() {
    let Some(place) = Place::new() else { return };
    let root = place.root();
    for (name, run) in [("soak-0", "run-a"), ("soak-1", "run-bb")] {
        let out = root.join("results").join(name).join("results");
        fs::create_dir_all(&out).expect("a directory");
        // The same directory as `harness soak` leaves, as far as it is read.
        write(&out, "report.json", &json::render(&flaky(run)));
    }
    let env = [
        ("HARNESS_BIN", env!("CARGO_BIN_EXE_harness")),
        ("HARNESS_RESULTS", "results"),
        ("HARNESS_HISTORY", "history/h.sqlite"),
        ("HARNESS_ISSUES", "yes"),
        ("HARNESS_KEEP", "3650d"),
    ];
    let said = place.run("publish-soak", &env, &[]).exits(0).stdout;
    assert!(
        said.contains("run-a added") && said.contains("run-bb added"),
        "{said}"
    );
    assert_eq!(place.issues().len(), 1, "one flake");
    let again = place.run("publish-soak", &env, &[]).exits(0).stdout;
    assert!(again.contains("run-a is there already"), "{again}");

    fs::remove_dir_all(root.join("results/soak-0")).expect("it was there");
    fs::remove_dir_all(root.join("results/soak-1")).expect("it was there");
    place.run("publish-soak", &env, &[]).exits(4);
    let wrong = [&env[..], &[("HARNESS_ISSUES", "maybe")]].concat();
    place
        .run("publish-soak", &wrong, &[])
        .exits(2)
        .says("'maybe' is none of");
}
