//! The embedded catalogue as a whole: every document can be read and rehearsed, and its case ids are what others may rely on.

use std::collections::BTreeSet;

use harness::{
    candidate::Candidate,
    plan::{self, Catalogue, Filter, Missing, Profile, Requirements},
    scenario::read_documents,
};

#[test]
fn every_case_can_be_read_and_rehearsed() {
    let requirements = Requirements::embedded().expect("the requirements can be read");
    let catalogue = Catalogue::embedded(&requirements).expect("the catalogue can be read");
    let candidate = Candidate::load("null").expect("built in");
    let planned = plan::select(
        &catalogue,
        &requirements,
        &candidate,
        &Missing::default(),
        Profile::All,
        &Filter::All,
    );
    let jobs = plan::jobs(&planned, 1, 1).unwrap_or_else(|problems| {
        panic!(
            "{}",
            problems
                .iter()
                .map(|problem| format!("{problem}\n"))
                .collect::<String>()
        )
    });
    assert_eq!(jobs.len(), planned.len());
    assert!(
        catalogue.documents.len() >= 40,
        "{} documents",
        catalogue.documents.len()
    );
    assert!(planned.len() >= 150, "{} cases", planned.len());
    let ids: BTreeSet<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
    assert_eq!(ids.len(), jobs.len(), "a case id is there twice");
    let seeds: BTreeSet<u64> = jobs.iter().map(|job| job.seed).collect();
    assert!(
        seeds.len() > jobs.len() / 2,
        "seeds must differ between cases"
    );
}

#[test]
fn a_case_as_it_was_run_is_a_document_of_that_case_alone() {
    let requirements = Requirements::embedded().expect("the requirements can be read");
    let catalogue = Catalogue::embedded(&requirements).expect("the catalogue can be read");
    for document in &catalogue.documents {
        // The first and the last case of each document differ in every axis that has more than one value.
        for key in [document.cases.first(), document.cases.last()]
            .into_iter()
            .flatten()
        {
            let case = document
                .resolve(key)
                .unwrap_or_else(|problem| panic!("{problem}"));
            let again = read_documents("again.yaml", &case.text)
                .unwrap_or_else(|problem| panic!("{problem}"));
            let keys: Vec<_> = again.iter().flat_map(|document| &document.cases).collect();
            assert_eq!(keys, [key], "{}", document.file);
            let same = again[0]
                .resolve(key)
                .unwrap_or_else(|problem| panic!("{problem}"));
            assert_eq!(same.text.trim(), case.text.trim(), "{}", document.file);
        }
    }
}

#[test]
fn documents_are_in_the_directory_of_their_area() {
    let requirements = Requirements::embedded().expect("the requirements can be read");
    let catalogue = Catalogue::embedded(&requirements).expect("the catalogue can be read");
    for document in &catalogue.documents {
        let id = &document.header.id;
        assert!(
            document.file.ends_with(&format!("/{id}.yaml")),
            "{} holds '{id}'",
            document.file
        );
        assert_ne!(
            requirements.area(&document.header.requirement),
            "unknown",
            "{}",
            document.file
        );
    }
}
