//! Signatures: what is signed, that any change of anything is noticed, and that it is said by name.

mod fixture;

use std::collections::BTreeSet;
use std::path::Path;

use fixture::{Run, hostile};
use proptest::prelude::*;
use reports::event::Verdict;
use reports::model::Report;
use reports::sign::dsse::Envelope;
use reports::sign::files::{self, Digests};
use reports::sign::key::{PrivateKey, PublicKey};
use reports::sign::statement::{PAYLOAD_TYPE, Signer, Statement};
use reports::sign::{self, FILE_NAME, Findings, Kind, SignError, Signature};
use tempfile::TempDir;

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_seed([seed; 32])
}

fn mixed() -> Report {
    let mut run = Run::new(2);
    run.case("a-pass[ipv4]", &["SVC-1"], &[Verdict::Pass; 2]);
    run.case("b-fail[ipv4]", &["SVC-1"], &[Verdict::Fail; 2]);
    run.case("c-flaky[ipv4]", &["SVC-2"], &[Verdict::Fail, Verdict::Pass]);
    run.case("d-infra[ipv4]", &["NP-1"], &[Verdict::Infra; 2]);
    run.case("e-skip[ipv4]", &["NP-1"], &[Verdict::Skip; 2]);
    run.report()
}

/// A directory with a few short files, signed.
fn signed() -> (TempDir, Report) {
    let dir = tempfile::tempdir().unwrap();
    let report = mixed();
    for (name, text) in [
        ("events.jsonl", "{}\n"),
        ("report.json", "{\"a\": 1}\n"),
        ("report.md", "# a\n"),
        ("cases/b-fail[ipv4]/1/matrix.txt", "x"),
        ("cases/b-fail[ipv4]/1/nodes/node1/packets.pcap", "\0\u{1}"),
        ("cases/b-fail[ipv4]/1/empty.txt", ""),
    ] {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    sign::sign(dir.path(), &report, &key(1), Some("Jane Doe")).unwrap();
    (dir, report)
}

fn check(dir: &Path, report: &Report, named: &[PublicKey]) -> (Signature, Findings) {
    let mut findings = Findings::default();
    let files = files::list(dir).unwrap();
    let nothing = |_: &str| false;
    let signature = sign::check(dir, &files, Some(report), named, &nothing, &mut findings).unwrap();
    (signature, findings)
}

/// Whether the directory is exactly what was signed.
fn holds(dir: &Path, report: &Report) -> bool {
    let (signature, findings) = check(dir, report, &[key(1).public()]);
    let good = matches!(signature, Signature::Good(_));
    assert!(
        good || !findings.broken.is_empty() || matches!(signature, Signature::None),
        "a signature that shows nothing has a reason"
    );
    good && findings == Findings::default()
}

fn told(findings: &Findings) -> Vec<String> {
    let line = |finding: &sign::Finding| format!("{}: {}", finding.kind.as_str(), finding.what);
    findings.broken.iter().map(line).collect()
}

#[test]
fn the_statement_says_what_was_run_and_how_it_went() {
    let files = Digests::from([("report.json".into(), "ab".repeat(32))]);
    let signer = Signer {
        name: Some("Jane Doe".into()),
        public_key: key(1).public().to_pem(),
    };
    let time = "2026-11-26T12:00:00.000000Z".to_owned();
    let statement = Statement::new(&mixed(), &files, signer, time);
    let envelope = Envelope::seal(PAYLOAD_TYPE, &statement.to_bytes(), &key(1));
    insta::assert_snapshot!(serde_json::to_string_pretty(&statement).unwrap());
    // Ed25519 signs the same bytes always in the same way.
    insta::assert_json_snapshot!(envelope.signatures);
}

#[test]
fn only_a_conformant_run_has_passed() {
    let result = |run: &Run| {
        let signer = Signer {
            name: None,
            public_key: String::new(),
        };
        let statement = Statement::new(&run.report(), &Digests::new(), signer, String::new());
        statement.predicate.result.to_string()
    };
    let of = |verdicts: &[Verdict]| {
        let mut run = Run::new(verdicts.len() as u32);
        run.case("reach[ipv4]", &["SVC-1"], verdicts);
        run
    };
    use Verdict::{Fail, Infra, Pass, Skip};
    assert_eq!(result(&of(&[Pass, Pass])), "PASSED");
    for not in [
        &[Pass, Fail][..],
        &[Fail],
        &[Infra],
        &[Skip],
        &[Pass, Infra],
    ] {
        assert_eq!(result(&of(not)), "FAILED", "{not:?}");
    }
    let mut tolerated = of(&[Pass, Fail]);
    tolerated.start.options.flake_budget = 1;
    assert_eq!(result(&tolerated), "WARNED");
    let mut killed = of(&[Pass]);
    killed.end = None;
    assert_eq!(result(&killed), "FAILED");
    let mut shard = of(&[Pass]);
    shard.start.options.shard = Some("1/1".parse().unwrap());
    assert_eq!(result(&shard), "FAILED");
}

#[test]
fn whoever_signed_is_told() {
    let (dir, report) = signed();
    assert!(holds(dir.path(), &report));
    for (named, keys) in [
        (true, vec![key(2).public(), key(1).public()]),
        (false, vec![]),
    ] {
        let (signature, findings) = check(dir.path(), &report, &keys);
        assert_eq!(findings, Findings::default());
        let Signature::Good(signed) = signature else {
            panic!("{signature:?}");
        };
        assert_eq!(signed.keys, [key(1).public().id()]);
        assert_eq!(signed.named, named);
        assert_eq!(signed.statement.subject.len(), 6);
        let details = signed.statement.predicate.service_proxy_conformance;
        assert_eq!(details.signer.name.as_deref(), Some("Jane Doe"));
        assert_eq!(details.suite, report.suite);
    }
    let (signature, findings) = check(dir.path(), &report, &[key(2).public()]);
    assert!(matches!(signature, Signature::Broken));
    assert!(findings.has(Kind::Key), "{findings:?}");
    std::fs::remove_file(dir.path().join(FILE_NAME)).unwrap();
    let (signature, findings) = check(dir.path(), &report, &[key(1).public()]);
    assert!(matches!(signature, Signature::None) && findings == Findings::default());
}

#[test]
fn a_signed_directory_is_not_signed_again_and_nothing_but_files_is_signed() {
    let (dir, report) = signed();
    let error = sign::sign(dir.path(), &report, &key(2), None).unwrap_err();
    assert!(matches!(error, SignError::Signed { .. }) && error.is_usage());
    assert!(holds(dir.path(), &report), "the first signature is kept");
    std::fs::remove_file(dir.path().join(FILE_NAME)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("cases/link")).unwrap();
    let error = sign::sign(dir.path(), &report, &key(2), None).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("\"cases/link\", which is a symbolic link"),
        "{error}"
    );
    assert!(!dir.path().join(FILE_NAME).exists());
}

#[test]
fn what_was_changed_is_told_by_name() {
    let (dir, report) = signed();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("report.md"), "# b\n").unwrap();
    std::fs::write(at("cases/b-fail[ipv4]/2"), "more").unwrap();
    std::fs::remove_file(at("events.jsonl")).unwrap();
    std::fs::remove_file(at("cases/b-fail[ipv4]/1/matrix.txt")).unwrap();
    std::os::unix::fs::symlink("empty.txt", at("cases/b-fail[ipv4]/1/matrix.txt")).unwrap();
    // Empty directories and what is no result do not count.
    std::fs::create_dir(at("nothing")).unwrap();
    std::fs::write(at("run.lock"), "1").unwrap();
    let (signature, findings) = check(dir.path(), &report, &[]);
    assert!(matches!(signature, Signature::Good(_)));
    let told: BTreeSet<String> = told(&findings).into_iter().collect();
    assert_eq!(
        told,
        BTreeSet::from(
            [
                "changed: cases/b-fail[ipv4]/1/matrix.txt: it is a symbolic link now",
                "changed: report.md",
                "missing: events.jsonl",
                "added: cases/b-fail[ipv4]/2",
            ]
            .map(str::to_owned)
        )
    );
}

/// Every bit of every byte in turn, each eighth of them per byte: a file, or the signature itself.
#[test]
fn no_byte_can_be_changed() {
    let (dir, report) = signed();
    let mut names: Vec<String> = files::list(dir.path()).unwrap().into_keys().collect();
    names.push(FILE_NAME.into());
    let mut bytes = 0;
    for name in names {
        let path = dir.path().join(&name);
        let kept = std::fs::read(&path).unwrap();
        bytes += kept.len();
        for at in 0..kept.len() {
            let mut changed = kept.clone();
            changed[at] ^= 1 << (at % 8);
            std::fs::write(&path, &changed).unwrap();
            assert!(
                !holds(dir.path(), &report),
                "{name}: byte {at} was changed unseen"
            );
        }
        std::fs::write(&path, kept).unwrap();
        assert!(holds(dir.path(), &report), "{name} was put back");
    }
    assert!(bytes > 1000, "there was something to change: {bytes} bytes");
}

/// What the statement says has to be what the report says, or somebody signed another one.
#[test]
fn a_statement_about_another_report_is_none_about_this_one() {
    let (dir, report) = signed();
    type Change = fn(&mut Report);
    let changes: [(&str, Change); 5] = [
        ("/serviceProxyConformance/suite/version", |r| {
            r.suite.version = "9".into()
        }),
        ("/serviceProxyConformance/suite/catalogueDigest", |r| {
            r.suite.catalogue_digest = "sha256:0".into();
        }),
        ("/serviceProxyConformance/candidate/name", |r| {
            r.candidate.name = "other".into()
        }),
        ("/passedTests/0", |r| {
            r.cases.retain(|case| case.verdict.as_str() != "pass");
        }),
        ("/serviceProxyConformance/problems/0", |r| {
            r.problems.push("killed".into())
        }),
    ];
    for (place, change) in changes {
        let mut other = report.clone();
        change(&mut other);
        let (signature, findings) = check(dir.path(), &other, &[]);
        assert!(matches!(signature, Signature::Good(_)));
        let told = told(&findings).join("\n");
        assert!(
            told.starts_with("statement: ") && told.contains(place),
            "{place}: {told}"
        );
    }
}

/// Somebody with a key of their own changes a statement and signs it again, or only some of it.
#[test]
fn a_forged_envelope_is_none() {
    let (dir, report) = signed();
    let path = dir.path().join(FILE_NAME);
    let text = std::fs::read(&path).unwrap();
    let (envelope, body) = Envelope::open(&text).unwrap();
    let mine = key(3);
    let forged = |envelope: &Envelope| {
        std::fs::write(&path, envelope.render()).unwrap();
        let named = check(dir.path(), &report, &[key(1).public()]);
        assert!(matches!(named.0, Signature::Broken), "{envelope:?}");
        let (signature, findings) = check(dir.path(), &report, &[]);
        (
            matches!(signature, Signature::Good(_)),
            told(&findings).join("\n"),
        )
    };
    // The same statement under another key: it names the first signer's key.
    let resealed = Envelope::seal(PAYLOAD_TYPE, &body, &mine);
    let (good, why) = forged(&resealed);
    assert!(
        !good && why.contains("not the key in the statement"),
        "{why}"
    );
    // The first signer's id over another's signature.
    let mut renamed = resealed.clone();
    renamed.signatures[0].keyid = key(1).public().id();
    let (good, why) = forged(&renamed);
    assert!(!good && why.starts_with("signature: "), "{why}");
    // A second signature that nobody can check.
    let mut more = envelope.clone();
    more.signatures.extend(resealed.signatures);
    assert!(!forged(&more).0);
    // No signature, and a payload of another type.
    let mut nobody = envelope.clone();
    nobody.signatures.clear();
    let (good, why) = forged(&nobody);
    assert!(!good && why.contains("nobody signed it"), "{why}");
    assert!(!forged(&Envelope::seal("application/json", &body, &mine)).0);
    // A statement of another's own about the same files holds, and only a key that was named tells it from the first.
    let mut statement: Statement = serde_json::from_slice(&body).unwrap();
    let details = &mut statement.predicate.service_proxy_conformance;
    details.signer.public_key = mine.public().to_pem();
    let (good, why) = forged(&Envelope::seal(PAYLOAD_TYPE, &statement.to_bytes(), &mine));
    assert!(good && why.is_empty(), "{why}");
    // A statement that names a file outside: it is not there, and never opened.
    statement.subject[0].name = "../../../../etc/passwd".into();
    let (_, why) = forged(&Envelope::seal(PAYLOAD_TYPE, &statement.to_bytes(), &mine));
    assert!(why.contains("missing: ../../../../etc/passwd"), "{why}");
    // One that names a file twice.
    statement.subject[0] = statement.subject[1].clone();
    let (_, why) = forged(&Envelope::seal(PAYLOAD_TYPE, &statement.to_bytes(), &mine));
    assert!(why.contains("named twice"), "{why}");
}

#[test]
fn hostile_names_are_signed_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let report = hostile().report();
    std::fs::write(dir.path().join("<b>\n\u{1b}[31m"), "x").unwrap();
    sign::sign(dir.path(), &report, &key(1), Some(fixture::HOSTILE)).unwrap();
    assert!(holds(dir.path(), &report));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever lies there in place of the signature: no panic, and never a good one.
    #[test]
    fn nothing_else_is_a_signature(
        at in any::<prop::sample::Index>(),
        length in 0_usize..40,
        with in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let (dir, report) = signed();
        let path = dir.path().join(FILE_NAME);
        let kept = std::fs::read(&path).unwrap();
        let start = at.index(kept.len());
        let end = (start + length).min(kept.len());
        let mut changed = kept.clone();
        changed.splice(start..end, with);
        std::fs::write(&path, &changed).unwrap();
        prop_assert_eq!(holds(dir.path(), &report), changed == kept);
        std::fs::write(&path, &changed[..start]).unwrap();
        prop_assert!(!holds(dir.path(), &report));
    }
}
