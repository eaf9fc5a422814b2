//! Valid inputs with a few changes: readers accept them or say what is wrong, in bounded time and memory.
//!
//! `HARNESS_FUZZ_CASES=20000 cargo nextest run -p fuzz-entries` tries more of them.

mod support;

use proptest::prelude::*;
use serde_json::Value;
use support::change::{self, Change};
use support::{config, limit, seeds};

type Reader = fn(&[u8]) -> Result<(), fuzz_entries::Refused>;

/// Changes of the values in a log, and then of its bytes.
fn changed_log(seed: &str, values: &[Change], bytes: &[Change]) -> Vec<u8> {
    let lines = seed.lines().map(serde_json::from_str::<Value>);
    let mut lines: Vec<Value> = lines.map(|line| line.expect("a valid log")).collect();
    values
        .iter()
        .for_each(|change| change::values(&mut lines, *change));
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let mut text = text.into_bytes();
    bytes
        .iter()
        .for_each(|change| change::bytes(&mut text, *change));
    text
}

/// Changes of the values in a document, which JSON can write as well: it is YAML too.
fn changed_document(seed: &str, values: &[Change]) -> Vec<u8> {
    let document: Value = serde_saphyr::from_str(seed).expect("a valid document");
    let mut documents = vec![document];
    values
        .iter()
        .for_each(|change| change::values(&mut documents, *change));
    let texts = documents.iter().map(|document| format!("{document:#}\n"));
    texts.collect::<Vec<_>>().join("---\n").into_bytes()
}

fn changed_bytes(seed: &str, bytes: &[Change]) -> Vec<u8> {
    let mut text = seed.as_bytes().to_vec();
    bytes
        .iter()
        .for_each(|change| change::bytes(&mut text, *change));
    text
}

/// Runs a reader and lets whoever reads the failure see the input.
fn read(reader: Reader, input: &[u8]) {
    let _ = limit::within(input, reader);
}

fn one_of(seeds: Vec<(&'static str, String)>) -> impl Strategy<Value = String> {
    let texts: Vec<String> = seeds.into_iter().map(|(_, text)| text).collect();
    prop::sample::select(texts).no_shrink()
}

/// The changes matter and not the document, so that is what a failure shows.
fn no_changes() -> impl Strategy<Value = Vec<Change>> {
    prop_oneof![3 => Just(Vec::new()), 1 => change::changes()]
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn logs(seed in one_of(seeds::logs()), values in change::changes(), bytes in no_changes()) {
        read(fuzz_entries::log, &changed_log(&seed, &values, &bytes));
    }

    #[test]
    fn reports(seed in one_of(seeds::reports()), values in change::changes()) {
        let mut report = vec![serde_json::from_str(&seed).expect("a valid report")];
        values.iter().for_each(|change| change::values(&mut report, *change));
        let text = report.first().map(Value::to_string).unwrap_or_default();
        read(fuzz_entries::report, text.as_bytes());
    }

    #[test]
    fn scenarios_by_value(seed in one_of(seeds::scenarios()), values in change::changes()) {
        read(fuzz_entries::scenario, &changed_document(&seed, &values));
    }

    #[test]
    fn scenarios_by_byte(seed in one_of(seeds::scenarios()), bytes in change::changes()) {
        read(fuzz_entries::scenario, &changed_bytes(&seed, &bytes));
    }

    #[test]
    fn manifests(seed in one_of(seeds::manifests()), values in change::changes(), bytes in change::changes()) {
        read(fuzz_entries::manifest, &changed_document(&seed, &values));
        read(fuzz_entries::manifest, &changed_bytes(&seed, &bytes));
    }

    #[test]
    fn requirements(seed in one_of(seeds::requirements()), values in change::changes(), bytes in change::changes()) {
        read(fuzz_entries::requirements, &changed_document(&seed, &values));
        read(fuzz_entries::requirements, &changed_bytes(&seed, &bytes));
    }

    #[test]
    fn gate(seed in one_of(seeds::gate()), values in change::changes(), bytes in change::changes()) {
        read(fuzz_entries::gate, &changed_document(&seed, &values));
        read(fuzz_entries::gate, &changed_bytes(&seed, &bytes));
    }

    #[test]
    fn filters(seed in one_of(seeds::filters()), bytes in change::changes()) {
        read(fuzz_entries::filter, &changed_bytes(&seed, &bytes));
    }
}

/// Were the seeds refused, nothing behind the first check would be tried.
#[test]
fn the_inputs_before_the_changes_are_accepted() {
    for (seeds, reader) in [
        (seeds::logs(), fuzz_entries::log as Reader),
        (seeds::reports(), fuzz_entries::report),
        (seeds::scenarios(), fuzz_entries::scenario),
        (seeds::requirements(), fuzz_entries::requirements),
        (seeds::gate(), fuzz_entries::gate),
        (seeds::filters(), fuzz_entries::filter),
    ] {
        for (name, seed) in seeds {
            let refused = limit::within(seed.as_bytes(), reader);
            assert_eq!(refused, Ok(()), "{name}");
        }
    }
    for (name, manifest) in seeds::manifests() {
        // kube-proxy is not on every machine.
        if name != "nftables" {
            let refused = limit::within(manifest.as_bytes(), fuzz_entries::manifest);
            assert_eq!(refused, Ok(()), "{name}");
        }
    }
}
