//! `harness site` over runs that were made by hand: what the pages say, that every link leads somewhere, what is left out and why.
//!
//! After an intended change: `INSTA_UPDATE=always cargo test -p reports --test site`, then read the difference.

mod fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fixture::browser::{browser, look_at};
use fixture::kept::{keep, keep_log};
use fixture::markup::{tags, words};
use fixture::{HOSTILE, Run, hostile, skip};
use reports::event::{FinishReason, RequirementInfo, SkipKind, Verdict};
use reports::history::History;
use reports::shard::Shard;
use reports::sign::key::PrivateKey;
use reports::site::{self, Options, SiteError, Skipped, Written};

use Verdict::{Fail, Pass};

/// A run of a candidate.
fn of(candidate: &str, version: &str, id: &str, runs: u32) -> Run {
    let mut run = Run::new(runs);
    run.start.run_id = id.into();
    run.start.candidate.name = candidate.into();
    run.start.candidate.version = Some(version.into());
    run.start.candidate.digest = Some(format!("sha256:{candidate}{version}"));
    run
}

/// A run in which everything that can be run passes.
fn passing(id: &str, version: &str) -> Run {
    let mut run = of("steady-proxy", version, id, 20);
    run.start.options.profile = "extended".into();
    run.start.requirements.push(RequirementInfo {
        level: "extended".into(),
        ..fixture::requirement(
            "AFF-1",
            "affinity",
            "A proxy SHOULD keep a client on its endpoint.",
        )
    });
    run.case("reach[ipv4]", &["SVC-1"], &[Pass; 20]);
    run.case("reach[ipv6]", &["SVC-1", "SVC-2"], &[Pass; 20]);
    run.case("node-port[ipv4]", &["NP-1"], &[Pass; 20]);
    run.case("sticky[ipv4]", &["AFF-1"], &[Pass; 20]);
    run.start.cases[3].level = "extended".into();
    run.plan("sctp[ipv4]", &["SVC-2"]).skip = Some(skip(SkipKind::KernelMissing));
    run.characteristic(
        "reach[ipv4]",
        "empty",
        "refuses",
        "What a Service without endpoints does.",
    );
    run
}

fn failing() -> Run {
    let mut run = of("broken-proxy", "0.1", "broken-1", 3);
    run.case("reach[ipv4]", &["SVC-1"], &[Fail; 3]);
    run.case("reach[ipv6]", &["SVC-1", "SVC-2"], &[Pass; 3]);
    run.case("node-port[ipv4]", &["NP-1"], &[Fail; 3]);
    run.last_failure().requirements = vec!["NP-1".into()];
    run.characteristic(
        "reach[ipv6]",
        "empty",
        "drops",
        "What a Service without endpoints does.",
    );
    run
}

fn flaky(id: &str, failures: usize) -> Run {
    let mut run = of("nervous-proxy", "2.0", id, 20);
    let verdicts: Vec<Verdict> = (0..20)
        .map(|n| if n < failures { Fail } else { Pass })
        .collect();
    run.case("reach[ipv4]", &["SVC-1"], &verdicts);
    run.case("reach[ipv6]", &["SVC-1", "SVC-2"], &[Pass; 20]);
    run.case("node-port[ipv4]", &["NP-1"], &[Pass; 20]);
    run
}

/// A passing, a failing and a flaky candidate, with some history.
fn several(root: &Path) -> PathBuf {
    let runs = root.join("runs");
    keep(&runs.join("steady-1"), 1, &passing("steady-1", "1.0"));
    keep(&runs.join("steady-2"), 9, &passing("steady-2", "1.1"));
    keep(&runs.join("broken"), 8, &failing());
    for (day, failures) in [(2, 0), (3, 1), (4, 2), (5, 0), (6, 4)] {
        let id = format!("nervous-{day}");
        keep(&runs.join(&id), day, &flaky(&id, failures));
    }
    runs
}

fn options() -> Options<'static> {
    Options {
        title: "Proxies".into(),
        ..Options::default()
    }
}

fn make(
    inputs: &[PathBuf],
    out: &Path,
    options: &Options,
) -> Result<(Written, Vec<Skipped>), SiteError> {
    let found = site::find(inputs)?;
    let written = site::write(&found.places, options, out)?;
    let skipped = [found.skipped, written.skipped.clone()].concat();
    Ok((written, skipped))
}

/// Every file of a directory.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let listed = reports::sign::files::list(dir).unwrap();
    let read = |name: String| (name.clone(), std::fs::read(dir.join(name)).unwrap());
    listed.into_keys().map(read).collect()
}

fn text(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).unwrap()
}

/// The page without its style and script, with a tag per line.
fn markup(page: &str) -> String {
    let from = page.find("<style>").unwrap();
    let to = page.find("</style>").unwrap();
    let page = format!("{}{}", &page[..from], &page[to + 8..]);
    let page = match page.find("<script>") {
        Some(from) => page[..from].to_owned(),
        None => page,
    };
    let from = page.find("<meta http-equiv").unwrap();
    let to = from + page[from..].find('>').unwrap();
    format!("{}{}", &page[..from], &page[to + 1..]).replace("><", ">\n<")
}

#[test]
fn golden_pages() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("site");
    let (written, skipped) = make(&[several(root.path())], &out, &options()).unwrap();
    assert_eq!(
        (written.runs, written.candidates, written.columns),
        (8, 3, 4)
    );
    assert_eq!(skipped, []);
    for page in [
        "index.html",
        "compare.html",
        "candidates/steady-proxy.html",
        "candidates/nervous-proxy.html",
    ] {
        let name = page.rsplit('/').next().unwrap();
        insta::assert_snapshot!(name, markup(&text(&out, page)));
    }
    insta::assert_snapshot!("site.json", text(&out, "site.json"));
}

#[test]
fn the_matrix_says_what_the_reports_say() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("site");
    make(&[several(root.path())], &out, &options()).unwrap();
    let index = words(&text(&out, "index.html"));
    // The newest run comes first.
    let heads = [
        "steady-proxy 1.1",
        "broken-proxy 0.1",
        "nervous-proxy 2.0",
        "steady-proxy 1.0",
    ];
    let places: Vec<usize> = heads.iter().map(|head| index.find(head).unwrap()).collect();
    assert!(places.is_sorted(), "{index}");
    for part in [
        "8 runs of 3 candidates; the newest is of 2026-11-09.",
        "core conformant: 3 of 4 cases pass, 1 skipped",
        "extended conformant: 1 of 1 cases pass; supported: affinity",
        "core not reached: 1 of 3 cases pass",
        // steady 1.1, broken, nervous, steady 1.0.
        "SVC-1 core A proxy MUST deliver to a ready endpoint. ✓ pass ✕ fail 1 pass, 2 fail ≈ flaky 1 pass, 1 flaky ✓ pass",
        "NP-1 core A proxy MUST serve NodePorts on every node. ✓ pass ✕ fail ✓ pass ✓ pass",
        "AFF-1 extended A proxy SHOULD keep a client on its endpoint. ✓ pass no such rule no such rule ✓ pass",
        "SVC-2 core A proxy MUST refuse without endpoints. ✓ pass 1 pass, 1 skip ✓ pass",
    ] {
        assert!(index.contains(part), "{part:?} is not in {index}");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("site");
    let runs = several(root.path());
    keep(&runs.join("odd"), 10, &{
        let mut run = of("Odd / proxy?", "é+1 %", "odd run/#1", 1);
        run.start.requirements[0].id = "SVC 1 & more".into();
        run.case("reach[ipv4]", &["SVC 1 & more"], &[Fail]);
        run
    });
    make(&[runs], &out, &options()).unwrap();
    let all = files(&out);
    let mut links = 0;
    for (name, bytes) in &all {
        if !name.ends_with(".html") || name.starts_with("runs/") {
            continue;
        }
        let page = String::from_utf8(bytes.clone()).unwrap();
        let ids: BTreeSet<String> = attributes(&page, "id").into_iter().collect();
        for link in attributes(&page, "href") {
            let (path, fragment) = link.split_once('#').unwrap_or((&link, ""));
            if path.is_empty() {
                assert!(ids.contains(fragment), "{name}: nothing is at #{fragment}");
                continue;
            }
            let path = match path.strip_prefix("../") {
                Some(rest) => rest.to_owned(),
                None => Path::new(name)
                    .parent()
                    .unwrap()
                    .join(path)
                    .display()
                    .to_string(),
            };
            let target = all
                .get(&path)
                .unwrap_or_else(|| panic!("{name} leads to {path}"));
            if let Some(id) = fragment.strip_prefix("requirement=") {
                let target = String::from_utf8(target.clone()).unwrap();
                let id = decoded(id);
                assert!(
                    attributes(&target, "data-requirement").contains(&id),
                    "{name}: {path} has no requirement {id}"
                );
            }
            links += 1;
        }
    }
    assert!(links > 40, "{links} links");
}

fn attributes(page: &str, wanted: &str) -> Vec<String> {
    let plain = |value: &str| {
        let text = value
            .replace("&#38;", "&")
            .replace("&#34;", "\"")
            .replace("&#39;", "'");
        text.replace("&#60;", "<")
            .replace("&#62;", ">")
            .replace("&amp;", "&")
    };
    let attributes = tags(page)
        .into_iter()
        .flat_map(|(_, attributes)| attributes);
    let found = attributes.filter(|(name, _)| name == wanted);
    found.map(|(_, value)| plain(&value)).collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let hex = [rest.next().unwrap(), rest.next().unwrap()];
            let hex = String::from_utf8(hex.to_vec()).unwrap();
            bytes.push(u8::from_str_radix(&hex, 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_same_runs_make_the_same_bytes() {
    let root = tempfile::tempdir().unwrap();
    let runs = several(root.path());
    let (a, b) = (root.path().join("a"), root.path().join("b"));
    make(std::slice::from_ref(&runs), &a, &options()).unwrap();
    let dirs = std::fs::read_dir(&runs)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut dirs: Vec<PathBuf> = dirs.collect();
    dirs.sort();
    dirs.reverse();
    // Named one by one, in another order, one of them twice and one by its report.
    dirs.push(dirs[0].clone());
    dirs[2].push("report.json");
    make(&dirs, &b, &options()).unwrap();
    assert!(files(&a) == files(&b));
    // And again in the place of the first.
    make(&[runs], &a, &options()).unwrap();
    assert!(files(&a) == files(&b));
}

#[test]
fn reports_are_those_of_the_runs() {
    let root = tempfile::tempdir().unwrap();
    let runs = several(root.path());
    let out = root.path().join("site");
    make(std::slice::from_ref(&runs), &out, &options()).unwrap();
    for name in ["report.html", "report.json", "badge.svg"] {
        let theirs = std::fs::read(runs.join("broken").join(name)).unwrap();
        let ours = std::fs::read(out.join("runs/broken-1").join(name)).unwrap();
        assert!(theirs == ours, "{name}");
    }
    // What somebody put beside the log is not published.
    let evil = "<script>alert(1)</script>";
    for name in ["report.html", "badge.svg"] {
        std::fs::write(runs.join("broken").join(name), evil).unwrap();
    }
    make(&[runs], &out, &options()).unwrap();
    for (name, bytes) in files(&out) {
        assert!(!String::from_utf8(bytes).unwrap().contains(evil), "{name}");
    }
}

#[test]
fn an_earlier_site_is_replaced_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let runs = several(root.path());
    let out = root.path().join("site");
    make(std::slice::from_ref(&runs), &out, &options()).unwrap();
    assert!(out.join("candidates/nervous-proxy.html").exists());
    make(&[runs.join("broken")], &out, &options()).unwrap();
    let left: Vec<String> = files(&out).into_keys().collect();
    assert_eq!(
        left,
        [
            "candidates/broken-proxy.html",
            "compare.html",
            "index.html",
            "runs/broken-1/badge.svg",
            "runs/broken-1/report.html",
            "runs/broken-1/report.json",
            "site.json"
        ]
    );
    assert!(words(&text(&out, "compare.html")).contains("nothing to compare it with"));
    let error = make(std::slice::from_ref(&runs), &runs, &options()).unwrap_err();
    assert!(
        matches!(error, SiteError::Taken { .. }) && error.is_usage(),
        "{error}"
    );
}

#[test]
fn a_broken_report_is_an_error_and_nothing_is_written() {
    let root = tempfile::tempdir().unwrap();
    let runs = several(root.path());
    let out = root.path().join("site");
    let log = runs.join("broken/events.jsonl");
    let whole = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, whole.replacen("attemptFinished", "attemptFished", 1)).unwrap();
    let error = make(std::slice::from_ref(&runs), &out, &options()).unwrap_err();
    assert!(error.is_usage());
    assert!(error.to_string().contains("runs/broken: "), "{error}");
    assert!(!out.exists());
    std::fs::remove_file(&log).unwrap();
    std::fs::write(runs.join("broken/report.json"), "{}").unwrap();
    let error = make(std::slice::from_ref(&runs), &out, &options()).unwrap_err();
    assert!(
        error.to_string().contains("broken/report.json: "),
        "{error}"
    );
    let error = make(&[root.path().join("gone")], &out, &options()).unwrap_err();
    assert!(
        error.is_usage() && error.to_string().contains("gone: it cannot be read"),
        "{error}"
    );
    assert!(!out.exists());
}

#[test]
fn what_is_no_run_is_told() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("all/site");
    let all = root.path().join("all");
    keep(&all.join("nights/one"), 1, &passing("steady-1", "1.0"));
    // Three levels down.
    keep(&all.join("nights/old/deep"), 2, &passing("steady-2", "1.0"));
    keep(
        &all.join("nights/old/deep/deeper"),
        3,
        &passing("steady-3", "1.0"),
    );
    std::fs::create_dir_all(all.join("empty/more")).unwrap();
    std::fs::create_dir_all(all.join(".git/objects")).unwrap();
    make(&[all.join("nights/one")], &out, &options()).unwrap();
    let (written, skipped) = make(std::slice::from_ref(&all), &out, &options()).unwrap();
    assert_eq!(written.runs, 1);
    let told: Vec<String> = skipped
        .iter()
        .map(|skipped| {
            format!(
                "{}: {}",
                skipped.path.strip_prefix(&all).unwrap().display(),
                skipped.why
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "empty: no report is there or within two levels below",
            "nights/old: no report is there or within two levels below",
            "site: it is a site"
        ]
    );
    let (written, skipped) =
        make(&[all.join("empty")], &root.path().join("none"), &options()).unwrap();
    assert_eq!((written.runs, written.files, skipped.len()), (0, 0, 1));
    assert!(!root.path().join("none").exists());
}

#[test]
fn no_run_is_there_twice() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let mut run = passing("steady-1", "1.0");
    let whole = keep(&at("whole"), 1, &run);
    let copy = keep(&at("copy"), 1, &run);
    run.end = None;
    run.body.truncate(50);
    let killed = keep(&at("killed"), 1, &run);
    for order in [
        [killed.clone(), whole.clone(), copy.clone()],
        [copy.clone(), killed.clone(), whole.clone()],
    ] {
        let out = at("site");
        let (written, skipped) = make(&order, &out, &options()).unwrap();
        assert_eq!((written.runs, skipped.len()), (1, 2));
        assert!(
            skipped
                .iter()
                .all(|s| s.why.starts_with("all of it is in ")),
            "{skipped:?}"
        );
        assert!(skipped.iter().any(|s| s.path == killed), "{skipped:?}");
        assert!(!words(&text(&out, "index.html")).contains("Partial"));
    }
}

#[test]
fn parts_of_a_run_are_marked_and_do_not_hide_whole_ones() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let out = at("site");
    let mut part = of("steady-proxy", "1.0", "part", 1);
    part.case("reach[ipv4]", &["SVC-1"], &[Pass]);
    part.start.options.filter = Some("reach*".into());
    let part = keep(&at("part"), 5, &part);
    make(std::slice::from_ref(&part), &out, &options()).unwrap();
    let index = words(&text(&out, "index.html"));
    assert!(
        index.contains("A part of it passes , profile core"),
        "{index}"
    );
    assert!(index.contains("Partial only cases that match \"reach*\" were to be run."));
    assert!(index.contains("core not shown by this run: 1 of 1 cases pass"));
    assert!(!index.contains("Conformant"), "{index}");

    let mut shard = of("steady-proxy", "1.0", "shard", 2);
    shard.case("reach[ipv4]", &["SVC-1"], &[]);
    shard.start.options.shard = Some(Shard { index: 1, of: 2 });
    let holds = |n: &u32| Shard { index: 1, of: 2 }.holds("reach[ipv4]", *n);
    for attempt in (1..=2).filter(holds) {
        shard.attempt("reach[ipv4]", attempt, Pass);
    }
    let shard = keep(&at("shard"), 6, &shard);
    let mut stopped = of("steady-proxy", "1.0", "stopped", 1);
    stopped.case("reach[ipv4]", &["SVC-1"], &[Fail]);
    stopped.end = Some(FinishReason::Interrupted);
    let stopped = keep(&at("stopped"), 7, &stopped);
    let whole = keep(&at("whole"), 1, &passing("whole", "1.0"));
    make(&[part, shard, stopped, whole], &out, &options()).unwrap();
    let index = words(&text(&out, "index.html"));
    // The whole run has the column, and what came after it is told, the newest first.
    assert!(
        index.contains("✓ steady-proxy 1.0 Conformant , profile core and extended"),
        "{index}"
    );
    let newer = "Newer, and no whole run Not conformant , 2026-11-07 00:00";
    let at = index.find(newer).unwrap();
    assert!(
        index[at..].contains("Newer, and no whole run Shard passed , 2026-11-06"),
        "{index}"
    );
    assert_eq!(
        text(&out, "index.html")
            .matches("<th scope=\"col\"")
            .count(),
        2
    );
}

#[test]
fn a_run_that_is_being_written_is_skipped() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("running");
    let writing = reports::directory::Writing::create(&dir).unwrap();
    let found = site::find(&[dir]).unwrap();
    assert_eq!(found.places, []);
    assert_eq!(found.skipped[0].why, "it is being written just now");
    drop(writing);
}

#[test]
fn who_signed_is_shown() {
    let root = tempfile::tempdir().unwrap();
    let runs = several(root.path());
    let key = PrivateKey::generate().unwrap();
    let sign = |name: &str, key: &PrivateKey| {
        let dir = runs.join(name);
        let report = reports::read(&dir).unwrap();
        reports::sign::sign(&dir, &report, key, Some("Jane <Doe>")).unwrap();
    };
    sign("steady-2", &key);
    sign("broken", &PrivateKey::generate().unwrap());
    sign("nervous-6", &key);
    std::fs::write(runs.join("nervous-6/report.md"), "all is well").unwrap();
    let out = root.path().join("site");
    let keys = [key.public()];
    let options = Options {
        keys: &keys,
        ..options()
    };
    make(std::slice::from_ref(&runs), &out, &options).unwrap();
    let page = |name: &str| words(&text(&out, &format!("candidates/{name}.html")));
    let steady = page("steady-proxy");
    assert!(steady.contains("signed signed by sha256:"), "{steady}");
    assert!(
        steady
            .contains(", who goes by \"Jane &#60;Doe>\", a key that this site was told to trust."),
        "{steady}"
    );
    assert!(page("broken-proxy").contains("signed, key unknown signed by sha256:"));
    let nervous = page("nervous-proxy");
    assert!(
        nervous.contains("signature broken its signature does not hold: changed: report.md."),
        "{nervous}"
    );
    let index = words(&text(&out, "index.html"));
    for part in [
        ", signed no",
        "2026-11-09, signed",
        "2026-11-08, signed, key unknown",
        "2026-11-06, signature broken",
        "2026-11-01, unsigned",
    ] {
        if part != ", signed no" {
            assert!(index.contains(part), "{part:?} is not in {index}");
        }
    }
    // Without a key, nobody is known.
    make(&[runs], &out, &self::options()).unwrap();
    assert!(page("steady-proxy").contains("signed, key unknown"));
}

#[test]
fn trends_are_over_all_runs_and_those_of_a_history() {
    let root = tempfile::tempdir().unwrap();
    let runs = several(root.path());
    let out = root.path().join("site");
    let file = root.path().join("history.sqlite");
    let mut history = History::create_or_open(&file).unwrap();
    for (day, failures) in [(20, 20), (21, 20)] {
        history
            .import(&flaky(&format!("old-{day}"), failures).report())
            .unwrap();
    }
    history
        .import(&reports::read(&runs.join("nervous-6")).unwrap())
        .unwrap();
    history
        .import(&of("forgotten-proxy", "1", "forgotten", 1).report())
        .unwrap();
    drop(history);
    let before = std::fs::read(&file).unwrap();
    make(std::slice::from_ref(&runs), &out, &options()).unwrap();
    let page = words(&text(&out, "candidates/nervous-proxy.html"));
    assert!(
        page.contains("flaky now 7 of 100 failed, 7.0 % [2.9 %, 14 %]"),
        "{page}"
    );
    let options = Options {
        history: Some(&file),
        ..options()
    };
    make(&[runs], &out, &options).unwrap();
    let page = words(&text(&out, "candidates/nervous-proxy.html"));
    assert_eq!(page.matches("only in the history").count(), 2);
    assert!(
        page.contains("40 of 40 failed") || page.contains("changed from"),
        "{page}"
    );
    assert!(
        words(&text(&out, "index.html")).contains("Only the history has runs of forgotten-proxy .")
    );
    assert!(out.join("candidates/forgotten-proxy.html").exists());
    assert!(
        before == std::fs::read(&file).unwrap(),
        "the history is only read"
    );
}

#[test]
fn hostile_runs_stay_text() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let tame = at("tame");
    make(&[several(root.path())], &tame, &options()).unwrap();
    let mut known: BTreeSet<(String, String)> = BTreeSet::new();
    for (name, bytes) in files(&tame) {
        if name.ends_with(".html") {
            for (tag, attributes) in tags(&String::from_utf8(bytes).unwrap()) {
                known.insert((tag.clone(), String::new()));
                known.extend(attributes.into_iter().map(|(name, _)| (tag.clone(), name)));
            }
        }
    }
    let mut other = hostile();
    other.start.run_id = format!("{HOSTILE}2");
    other.start.candidate.name = format!("{HOSTILE}2");
    other.start.options.filter = Some(HOSTILE.into());
    let dirs = [
        keep_log(&at("a"), 1, &hostile()),
        keep_log(&at("b"), 2, &other),
    ];
    let out = at("site");
    let title = Options {
        title: HOSTILE.into(),
        ..options()
    };
    make(&dirs, &out, &title).unwrap();
    for (name, bytes) in files(&out) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        assert!(name.chars().all(plain) && !name.contains(".."), "{name}");
        if !name.ends_with(".html") || name.starts_with("runs/") {
            continue;
        }
        let page = String::from_utf8(bytes).unwrap();
        assert!(page.contains("evil.example"), "{name} shows the texts");
        for c in page.chars() {
            assert!(c == '\n' || c == '\t' || !c.is_control(), "{name}: {c:?}");
            assert!(
                !('\u{202a}'..='\u{202e}').contains(&c),
                "{name}: {c:?} turns the text around"
            );
        }
        for (tag, attributes) in tags(&page) {
            // Parts that only runs with limits have.
            assert!(
                known.contains(&(tag.clone(), String::new())),
                "{name}: foreign tag <{tag}>"
            );
            for (attribute, value) in attributes {
                let key = (tag.clone(), attribute.clone());
                assert!(
                    known.contains(&key),
                    "{name}: foreign attribute {attribute} of <{tag}>"
                );
                assert!(
                    !attribute.starts_with("on") && attribute != "style",
                    "{name}: {attribute}"
                );
                if attribute == "href" {
                    let ours = [
                        "#",
                        "index.html",
                        "compare.html",
                        "candidates/",
                        "runs/",
                        "../",
                    ];
                    assert!(
                        ours.iter().any(|start| value.starts_with(start)),
                        "{name}: {value}"
                    );
                }
            }
        }
        let scripts = page.matches("<script").count();
        assert!(scripts <= 2, "{name} has {scripts} scripts");
    }
}

#[test]
fn pages_work_in_a_browser() {
    let Some(browser) = browser() else { return };
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("site");
    make(&[several(root.path())], &out, &options()).unwrap();
    let rows = |document: &str| {
        let rows = document.split("<tr class=\"rule\"").skip(1);
        rows.filter(|row| !row[..row.find('>').unwrap()].contains("hidden"))
            .count()
    };
    let seen = look_at(&browser, &out.join("index.html"), "");
    assert_eq!(seen.console, Vec::<String>::new());
    assert!(
        seen.document.contains("data-ready=\"yes\""),
        "the script did not end"
    );
    assert!(seen.document.contains("4 requirements</p>"));
    assert_eq!(rows(&seen.document), 4);
    let seen = look_at(&browser, &out.join("index.html"), "#differ");
    assert_eq!((seen.console.len(), rows(&seen.document)), (0, 2));
    assert!(seen.document.contains("2 of 4 requirements</p>"));
    let seen = look_at(&browser, &out.join("index.html"), "#text=nodeports");
    assert_eq!((seen.console.len(), rows(&seen.document)), (0, 1));
    let seen = look_at(&browser, &out.join("candidates/nervous-proxy.html"), "");
    assert_eq!(seen.console, Vec::<String>::new());
}

#[test]
fn any_two_are_compared_in_a_browser() {
    let Some(browser) = browser() else { return };
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("site");
    make(&[several(root.path())], &out, &options()).unwrap();
    let page = out.join("compare.html");
    let result = |fragment: &str| {
        let seen = look_at(&browser, &page, fragment);
        assert_eq!(seen.console, Vec::<String>::new(), "{fragment}");
        assert!(
            seen.document.contains("data-ready=\"yes\""),
            "the script did not end"
        );
        let from = seen.document.find("<div id=\"result\">").unwrap();
        let to = from + seen.document[from..].find("</section>").unwrap();
        let open = seen.document.split("data-pair=\"").skip(1);
        let open = open.filter(|rest| rest[..rest.find('>').unwrap()].contains("open"));
        let open: Vec<String> = open
            .map(|rest| rest[..rest.find('"').unwrap()].to_owned())
            .collect();
        let count = &seen.document[seen.document.find("id=\"count\"").unwrap()..];
        let count = &count[count.find('>').unwrap() + 1..count.find("</p>").unwrap()];
        (seen.document[from..to].to_owned(), open, count.to_owned())
    };
    let (text, open, count) = result("");
    assert_eq!(count, "3 rules, 4 cases and 1 open choices differ");
    assert_eq!(open, ["steady-2..broken-1"]);
    assert!(text.contains("Report of broken-proxy 0.1"));
    let (text, open, count) = result("#a=broken-1&b=nervous-6");
    assert_eq!(count, "2 rules, 2 cases and 1 open choices differ");
    assert_eq!(open, ["broken-1..nervous-6"]);
    assert!(
        text.contains("<span class=\"more\">4 of 20 failed, 20 % [5.7 %, 44 %]</span>"),
        "{text}"
    );
    let (_, _, count) = result("#a=steady-2&b=steady-1");
    assert_eq!(count, "0 rules, 0 cases and 0 open choices differ");
    // The other way round it is the same pair.
    let (_, open, _) = result("#a=nervous-6&b=broken-1");
    assert_eq!(open, ["broken-1..nervous-6"]);
}

#[test]
fn hostile_data_does_nothing_in_a_browser() {
    let Some(browser) = browser() else { return };
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let mut other = hostile();
    other.start.run_id = "2".into();
    other.start.candidate.name = format!("{HOSTILE}2");
    let dirs = [
        keep_log(&at("a"), 1, &hostile()),
        keep_log(&at("b"), 2, &other),
        several(root.path()),
    ];
    let out = at("site");
    make(&dirs, &out, &options()).unwrap();
    let seen = look_at(&browser, &out.join("compare.html"), "");
    assert_eq!(seen.console, Vec::<String>::new());
    assert_eq!(seen.document.matches("<script").count(), 2);
    assert!(!seen.document.contains("<img"), "a picture would be loaded");
    assert!(seen.document.contains("data-ready=\"yes\""));
}
