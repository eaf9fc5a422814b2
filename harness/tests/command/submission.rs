//! `harness sign`, `verify` and `submit`: exit codes, messages and files. What a signature and a submission are is tested where that is written
//! (`reports/tests/sign.rs`, `reports/tests/submission.rs`).
//!
//! No world is needed: the log of a whole core run is written here, in which every attempt passes.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command, sync::OnceLock};

use harness::{
    candidate::Candidate,
    plan::{self, Catalogue, Filter, Planned, Profile, Requirements},
};
use reports::{
    directory::Writing,
    event::{AttemptFinished, EventBody, FinishReason, Invocation, RunStarted, Suite, Verdict},
};
use serde_json::Value;

use crate::{
    prepared::{Prepared, canaries},
    support::{Finished, directory, run, write},
};

const MANIFEST: &str = "name: example-proxy\nprocess: {command: [/bin/true]}\n";

/// A run of all core cases by this suite, of which a test may change what it likes.
struct Whole {
    start: RunStarted,
    /// Position of the case whose only attempt fails, with evidence.
    fails: Option<usize>,
    end: Option<FinishReason>,
}

impl Whole {
    fn new(root: &Path) -> Self {
        let manifest = write(root, "proxy.yaml", MANIFEST);
        static PLANNED: OnceLock<RunStarted> = OnceLock::new();
        let mut start = PLANNED.get_or_init(|| Self::planned(&manifest)).clone();
        if let Some(invocation) = &mut start.invocation {
            invocation.candidate = manifest.display().to_string();
        }
        Self {
            start,
            fails: None,
            end: Some(FinishReason::Completed),
        }
    }

    fn planned(manifest: &Path) -> RunStarted {
        let requirements = Requirements::embedded().expect("the embedded requirements");
        let catalogue = Catalogue::embedded(&requirements).expect("the embedded catalogue");
        let candidate = Candidate::load(manifest.to_str().unwrap()).expect("a manifest");
        let planned = plan::select(
            &catalogue,
            &requirements,
            &candidate,
            &plan::Missing::new(),
            Profile::Core,
            &Filter::All,
        );
        let mut start = Prepared::new("run-1", 1, None).start;
        start.suite = Suite {
            version: env!("CARGO_PKG_VERSION").into(),
            catalogue_digest: catalogue.digest(),
        };
        start.invocation = Some(Invocation {
            command: "certify".into(),
            candidate: manifest.display().to_string(),
            manifest_digest: candidate.manifest_digest(),
            files: Vec::new(),
        });
        start.cases = planned.iter().map(Planned::event).collect();
        start.requirements = requirements.events();
        start
    }

    /// Writes log and reports.
    fn write(&self, dir: &Path) {
        let mut writing = Writing::create(dir).expect("a new directory");
        let mut record = |body| {
            writing.record(body).expect("an event");
        };
        record(EventBody::RunStarted(self.start.clone()));
        canaries(&self.start).into_iter().for_each(&mut record);
        for (at, case) in self.start.cases.iter().enumerate() {
            record(EventBody::AttemptStarted {
                case: case.id.clone(),
                attempt: 1,
                seed: plan::attempt_seed(self.start.options.seed, &case.id, 1),
                stress: None,
                shape: None,
            });
            let fails = self.fails == Some(at);
            let evidence = format!("cases/{}/1", case.id);
            if fails {
                fs::create_dir_all(dir.join(&evidence)).expect("a directory");
                fs::write(dir.join(&evidence).join("matrix.txt"), "a cell\n").expect("a file");
            }
            let verdict = match &case.skip {
                Some(_) => Verdict::Skip,
                None if fails => Verdict::Fail,
                None => Verdict::Pass,
            };
            record(EventBody::AttemptFinished(AttemptFinished {
                case: case.id.clone(),
                attempt: 1,
                verdict,
                // A number that not every reader of JSON reads to its last digit.
                duration_ms: 100.0 / 3.0 + at as f64 / 7.0,
                convergence_ms: None,
                failures: Vec::new(),
                warnings: Vec::new(),
                skip: case.skip.clone(),
                infra: None,
                complaint: None,
                evidence: fails.then_some(evidence),
                checks: 4,
                positive_checks: 3,
            }));
        }
        if let Some(reason) = self.end {
            let message = None;
            record(EventBody::RunFinished { reason, message });
        }
        writing.finish().expect("reports");
    }
}

impl Finished {
    /// Checks that standard output contains a text.
    #[track_caller]
    fn shows(self, text: &str) -> Self {
        assert!(
            self.stdout.contains(text),
            "should show {text:?}: {}",
            self.stdout
        );
        self
    }
}

/// A run of three cases, with its reports.
fn reported(prepared: &Prepared, dir: &Path) {
    prepared.write(dir);
    fs::write(dir.join("run.lock"), "").expect("a file");
    let report = reports::Report::from_log(dir.join("events.jsonl")).expect("a report");
    reports::write_all(dir, &report).expect("reports");
}

fn passed(dir: &Path) {
    reported(&Prepared::new("run-1", 1, None), dir);
}

fn keys(root: &Path) {
    for name in ["me.pem", "you.pem"] {
        run(root, &["sign", "--generate-key", name]).exits(0);
    }
}

#[test]
fn keys_are_made_and_kept() {
    let directory = directory();
    let root = directory.path();
    let made = run(root, &["sign", "--generate-key", "me.pem"])
        .exits(0)
        .shows("private key me.pem: keep it to yourself\npublic key me.pem.pub: ");
    let mode = |name: &str| root.join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("me.pem"), 0o600);
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    let (private, public) = (read("me.pem"), read("me.pem.pub"));
    assert!(private.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    assert!(public.starts_with("-----BEGIN PUBLIC KEY-----\n"));
    assert!(!made.stdout.contains(private.lines().nth(1).unwrap()));
    run(root, &["sign", "--generate-key", "me.pem"])
        .exits(2)
        .says("a key is never overwritten");
    assert_eq!((private, public), (read("me.pem"), read("me.pem.pub")));
}

#[test]
fn a_result_is_signed_and_verified() {
    let directory = directory();
    let root = directory.path();
    keys(root);
    passed(&root.join("out"));
    let verify = |args: &[&str]| run(root, &[&["verify", "out"], args].concat());
    verify(&[])
        .exits(5)
        .shows("UNSIGNED: result directory out\nunsigned: nothing shows who made it");
    let sign = ["sign", "out", "--key", "me.pem", "--signer", "Jane Doe"];
    run(root, &sign)
        .exits(0)
        .shows(" files of out, PASSED (conformant)\nby sha256:");
    run(root, &sign).exits(2).says("is signed already");
    verify(&["--key", "you.pem.pub", "--key", "me.pem.pub"])
        .exits(0)
        .shows("VERIFIED: result directory out\nsigned by   sha256:")
        .shows("who goes by \"Jane Doe\"\n            the key is one that you named")
        .shows("candidate   example-proxy 1.0, program sha256:beef\nsuite       0.1.0, catalogue sha256:");
    verify(&[])
        .exits(0)
        .shows("VERIFIED: ")
        .shows("the key is NOT one that you named");
    verify(&["--key", "you.pem.pub"])
        .exits(1)
        .shows("NOT VERIFIED: result directory out\n  key: signed with sha256:")
        .shows("which is none of the keys that were named");
    verify(&["--key", "me.pem"])
        .exits(2)
        .says("it is a private key");
    let json = verify(&["--key", "me.pem.pub", "--format", "json"]).exits(0);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (&json["outcome"], &json["exitCode"]),
        (&"verified".into(), &0.into())
    );
    assert_eq!(json["signature"]["named"], true);
    assert_eq!(json["suite"]["version"], env!("CARGO_PKG_VERSION"));

    // A byte of a report, a file more, a file less.
    let junit = root.join("out/junit.xml");
    let text = fs::read_to_string(&junit).unwrap();
    fs::write(&junit, text.replacen("failures=\"0\"", "failures=\"1\"", 1)).unwrap();
    fs::write(root.join("out/notes.txt"), "x").unwrap();
    fs::remove_file(root.join("out/report.md")).unwrap();
    verify(&["--key", "me.pem.pub"])
        .exits(1)
        .shows("  changed: junit.xml\n")
        .shows("  missing: report.md\n")
        .shows("  added: notes.txt\n");
    let json = verify(&["--format", "json"]).exits(1);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["outcome"], "not-verified");
}

#[test]
fn only_sound_results_are_signed() {
    let directory = directory();
    let root = directory.path();
    keys(root);
    let sign = |dir: &str, key: &str| run(root, &["sign", dir, "--key", key]);
    let mut killed = Prepared::new("run-1", 1, None);
    killed.killed_after = Some(2);
    reported(&killed, &root.join("killed"));
    sign("killed", "me.pem").exits(0).says("partial: ");
    run(root, &["verify", "killed"])
        .exits(0)
        .shows("note: partial: the run is incomplete: ");

    passed(&root.join("out"));
    fs::copy(root.join("me.pem"), root.join("out/me.pem")).unwrap();
    sign("out", "out/me.pem")
        .exits(2)
        .says("would be published with it");
    fs::remove_file(root.join("out/me.pem")).unwrap();
    sign("out", "me.pem.pub")
        .exits(2)
        .says("it is a public key");
    sign("out", "gone.pem").exits(2).says("cannot be read");
    let report = root.join("out/report.json");
    let text = fs::read_to_string(&report).unwrap();
    fs::write(
        &report,
        text.replacen("\"exitCode\": 0", "\"exitCode\": 1", 1),
    )
    .unwrap();
    sign("out", "me.pem")
        .exits(2)
        .says("report: report.json: it is not what the event log says, in /exitCode");
    run(root, &["verify", "out"]).exits(1).shows("in /exitCode");
    fs::write(&report, text).unwrap();
    let lock = fs::File::open(root.join("out/run.lock")).unwrap();
    lock.lock().unwrap();
    sign("out", "me.pem").exits(2).says("is being written");
    run(root, &["verify", "out"])
        .exits(2)
        .says("is being written");
    lock.unlock().unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    for command in [
        &["verify", "empty"][..],
        &["sign", "empty", "--key", "me.pem"],
    ] {
        run(root, command).exits(2).says("it holds no results");
    }
    for (args, want) in [
        (&["sign"][..], "DIR"),
        (&["sign", "out"], "--key"),
        (&["sign", "--key", "me.pem"], "DIR"),
        (
            &["sign", "out", "--generate-key", "x"],
            "cannot be used with",
        ),
        (
            &["sign", "out", "--key", "me.pem", "--signer", "a\nb"],
            "a name is one line",
        ),
        (&["verify"], "DIR"),
        (&["submit", "out"], "--to"),
        (&["submit", "out", "--to", "x", "--signer", "a"], "--key"),
    ] {
        run(root, args).exits(2).says(want);
    }
}

#[test]
fn a_submission_is_laid_out_and_reviewed() {
    let directory = directory();
    let root = directory.path();
    keys(root);
    let mut whole = Whole::new(root);
    whole.fails = Some(0);
    whole.write(&root.join("out"));
    let case = whole.start.cases[0].id.clone();
    let submit = |args: &[&str]| run(root, &[&["submit", "out", "--to"], args].concat());
    submit(&["signed", "--key", "me.pem", "--signer", "Jane Doe"])
        .exits(0)
        .shows("VERIFIED: submission signed\n")
        .shows("result      Not conformant: ");
    for file in [
        "README.md",
        "candidate.yaml",
        "events.jsonl",
        "report.json",
        "junit.xml",
        "report.md",
        "report.intoto.json",
        &format!("cases/{case}/1/matrix.txt"),
    ] {
        assert!(root.join("signed").join(file).is_file(), "{file}");
    }
    assert!(!root.join("signed/run.lock").exists());
    let page = fs::read_to_string(root.join("signed/README.md")).unwrap();
    assert!(
        page.contains(
            "## Reproduce\n\n```sh\nharness certify --candidate candidate.yaml --profile core --runs 1 --seed 42 --jobs 2\n```"
        ),
        "{page}"
    );
    let verify = |dir: &str, args: &[&str]| run(root, &[&["verify", dir], args].concat());
    verify("signed", &["--key", "me.pem.pub"]).exits(0);

    submit(&["unsigned"])
        .exits(0)
        .shows("UNSIGNED: submission unsigned\n");
    verify("unsigned", &[])
        .exits(5)
        .shows("UNSIGNED: submission unsigned\n");
    // The signature of the results is taken along; what was added follows from what is signed.
    run(root, &["sign", "out", "--key", "me.pem"]).exits(0);
    submit(&["along"])
        .exits(0)
        .shows("VERIFIED: submission along\n");
    verify("along", &["--key", "me.pem.pub"]).exits(0);
    submit(&["along"]).exits(2).says("it is not empty");
    submit(&["out/below"])
        .exits(2)
        .says("which is to be submitted");

    fs::remove_dir_all(root.join("unsigned/cases")).unwrap();
    verify("unsigned", &[]).exits(1).shows(&format!(
        "  evidence: attempt 1 of {case}: its evidence cases/{case}/1 is not there\n"
    ));
    fs::write(root.join("along/status.json"), "{}").unwrap();
    verify("along", &[])
        .exits(1)
        .shows("  added: status.json: no part of a submission\n");
    // A broken signature is not taken along, and nothing is left of the attempt to.
    fs::write(
        root.join(format!("out/cases/{case}/1/matrix.txt")),
        "another\n",
    )
    .unwrap();
    submit(&["broken"])
        .exits(2)
        .says("its signature does not hold");
    let names = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = names
        .filter(|name| name.to_string_lossy().contains("submission"))
        .collect();
    assert!(left.is_empty() && !root.join("broken").exists(), "{left:?}");
}

#[test]
fn a_reviewer_finds_what_was_changed() {
    let directory = directory();
    let root = directory.path();
    keys(root);
    let mut whole = Whole::new(root);
    whole.fails = Some(0);
    whole.write(&root.join("out"));
    let case = whole.start.cases[0].id.clone();
    run(root, &["submit", "out", "--to", "unsigned"]).exits(0);
    run(root, &["sign", "out", "--key", "me.pem"]).exits(0);
    run(root, &["submit", "out", "--to", "along"]).exits(0);
    let verify = |dir: &str| run(root, &["verify", dir, "--submission"]).exits(1).stdout;
    let matrix = format!("cases/{case}/1/matrix.txt");
    for (dir, file, told, without) in [
        (
            "along",
            "README.md",
            "  readme: README.md: it is not the page",
            "  missing: README.md\n",
        ),
        (
            "along",
            "candidate.yaml",
            "  manifest: candidate.yaml: it is sha256:",
            "  missing: candidate.yaml\n",
        ),
        (
            "along",
            &matrix,
            &format!("  changed: {matrix}\n"),
            &format!("  missing: {matrix}\n"),
        ),
        (
            "unsigned",
            "report.md",
            "  markdown: report.md: ",
            "  missing: report.md\n",
        ),
    ] {
        let path = root.join(dir).join(file);
        let kept = fs::read(&path).unwrap();
        fs::write(&path, [&kept[..], b"x"].concat()).unwrap();
        let found = verify(dir);
        assert!(found.contains(told), "{told:?}: {found}");
        fs::remove_file(&path).unwrap();
        let found = verify(dir);
        assert!(found.contains(without), "{without:?}: {found}");
        fs::write(&path, kept).unwrap();
    }
}

#[test]
fn the_manifest_of_the_run_goes_with_it() {
    let directory = directory();
    let root = directory.path();
    Whole::new(root).write(&root.join("out"));
    fs::rename(root.join("proxy.yaml"), root.join("moved.yaml")).unwrap();
    let submit = |args: &[&str]| run(root, &[&["submit", "out", "--to", "to"], args].concat());
    submit(&[])
        .exits(2)
        .says("name the manifest of the run with --manifest FILE");
    write(root, "other.yaml", "name: other\n");
    submit(&["--manifest", "other.yaml"])
        .exits(2)
        .says("is sha256:");
    submit(&["--manifest", "moved.yaml"]).exits(0);
    assert_eq!(
        fs::read_to_string(root.join("to/candidate.yaml")).unwrap(),
        MANIFEST
    );

    // A candidate that the suite brings along has none.
    let mut built_in = Whole::new(root);
    built_in.start.invocation.as_mut().unwrap().candidate = "reference".into();
    built_in.write(&root.join("reference"));
    run(root, &["submit", "reference", "--to", "of-reference"]).exits(0);
    assert!(!root.join("of-reference/candidate.yaml").exists());
    let page = fs::read_to_string(root.join("of-reference/README.md")).unwrap();
    assert!(
        page.contains("harness certify --candidate reference "),
        "{page}"
    );
    run(root, &["verify", "of-reference"]).exits(5);
    write(&root.join("of-reference"), "candidate.yaml", MANIFEST);
    run(root, &["verify", "of-reference"])
        .exits(1)
        .shows("the log names no manifest that it could be");
}

/// It is laid out all the same, and told. What else is no whole run is tested where that is decided (`harness/src/plan/accounted.rs`).
#[test]
fn less_than_a_whole_run_is_refused() {
    let directory = directory();
    let root = directory.path();
    let refused = |name: &str, change: &dyn Fn(&mut Whole), code: i32, told: &str| {
        let mut whole = Whole::new(root);
        change(&mut whole);
        whole.write(&root.join(name));
        let to = format!("to-{name}");
        run(root, &["submit", name, "--to", &to])
            .exits(code)
            .shows(told);
        run(root, &["verify", &to]).exits(code).shows(told);
    };
    refused(
        "stopped",
        &|whole| {
            whole.end = Some(FinishReason::Interrupted);
            whole.start.cases.pop();
        },
        1,
        "  partial: the run is incomplete: ",
    );
    refused(
        "unsung",
        &|whole| whole.start.options.canaries.clear(),
        1,
        "  partial: it has no canaries",
    );
    refused(
        "version",
        &|whole| whole.start.suite.version = "9.9.9".into(),
        4,
        "  cannot be checked: suite: the run was made by suite 9.9.9, and this is suite",
    );
}

/// Somebody without the harness can check a signature: the recipe of docs/submissions.md.
#[test]
fn openssl_verifies_it_too() {
    let directory = directory();
    let root = directory.path();
    let has = |tool: &str| Command::new(tool).arg("version").output().is_ok();
    if !has("openssl") {
        println!("skipped: no openssl here");
        return;
    }
    keys(root);
    passed(&root.join("out"));
    run(root, &["sign", "out", "--key", "me.pem"]).exits(0);
    let envelope = fs::read(root.join("out/report.intoto.json")).unwrap();
    let (envelope, body) = reports::sign::dsse::Envelope::open(&envelope).unwrap();
    let message = reports::sign::dsse::pae(&envelope.payload_type, &body);
    fs::write(root.join("message"), message).unwrap();
    let json: Value = serde_json::to_value(&envelope).unwrap();
    write(
        root,
        "sig.b64",
        json["signatures"][0]["sig"].as_str().unwrap(),
    );
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl")
            .current_dir(root)
            .args(args)
            .output();
        output.expect("openssl runs")
    };
    assert!(
        openssl(&["base64", "-d", "-A", "-in", "sig.b64", "-out", "sig"])
            .status
            .success()
    );
    let verify = [
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        "me.pem.pub",
        "-rawin",
        "-in",
        "message",
        "-sigfile",
        "sig",
    ];
    let verified = openssl(&verify);
    assert!(verified.status.success(), "{verified:?}");
    // A key that openssl made signs as well.
    let made = openssl(&["genpkey", "-algorithm", "ed25519", "-out", "ssl.pem"]);
    assert!(made.status.success(), "{made:?}");
    let public = openssl(&["pkey", "-in", "ssl.pem", "-pubout", "-out", "ssl.pub"]);
    assert!(public.status.success(), "{public:?}");
    fs::remove_file(root.join("out/report.intoto.json")).unwrap();
    run(root, &["sign", "out", "--key", "ssl.pem"]).exits(0);
    run(root, &["verify", "out", "--key", "ssl.pub"]).exits(0);
}
