//! `harness site`: the command. What the pages hold is tested where they are made (`reports/tests/site.rs`).

use std::fs;

use crate::{
    prepared::Prepared,
    support::{directory, run},
};

#[test]
fn a_site_is_written_over_result_directories() {
    let directory = directory();
    let root = directory.path();
    for n in 1..=2_u32 {
        let mut prepared = Prepared::new(&format!("run-{n}"), 4, None);
        if n == 2 {
            prepared.fails = vec![("two[ipv4]", 3)];
            prepared.start.candidate.name = "other-proxy".into();
        }
        prepared.write(&root.join(format!("runs/{n}")));
    }
    let mut killed = Prepared::new("run-3", 4, None);
    killed.killed_after = Some(2);
    killed.start.candidate.version = Some("1.1".into());
    killed.write(&root.join("runs/3"));
    fs::create_dir(root.join("runs/empty")).unwrap();
    let site = |args: &[&str]| run(root, &[&["site"], args].concat());
    let made = site(&["runs", "--out", "site", "--title", "Our proxies"])
        .exits(0)
        .says("skipped runs/empty: no report is there or within two levels below\n");
    assert_eq!(
        made.stdout,
        "3 runs of 2 candidates, 14 files: site/index.html\n"
    );
    let index = fs::read_to_string(root.join("site/index.html")).unwrap();
    assert!(index.contains("<h1>Our proxies</h1>"), "{index}");
    assert!(index.contains("the run was killed"), "{index}");
    // Again, with one run less.
    site(&["runs/1", "runs/9", "--out", "site"])
        .exits(2)
        .says("runs/9: it cannot be read");
    site(&["runs/1", "--out", "site"]).exits(0);
    assert!(!root.join("site/runs/run-2").exists());

    site(&["runs/empty", "--out", "none"])
        .exits(5)
        .says("error: there is no report, so no site was written\n");
    assert!(!root.join("none").exists());
    site(&["runs", "--out", "runs"])
        .exits(2)
        .says("runs: it is neither empty nor an earlier site");
    fs::write(root.join("runs/2/events.jsonl"), "{}\n").unwrap();
    site(&["runs", "--out", "site"])
        .exits(2)
        .says("error: runs/2: ");
    site(&["runs/1", "--history", "none.sqlite"])
        .exits(2)
        .says("there is no history");
    site(&[]).exits(2).says("<DIR>");
}
