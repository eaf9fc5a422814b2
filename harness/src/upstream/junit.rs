//! What `e2e.test` wrote: the specs of a JUnit file and how each ended.
//!
//! Ginkgo writes nodes that are no specs too (`[BeforeSuite]`, `[ReportAfterSuite]`), and specs that it only filtered out. A spec is a
//! test case whose name begins with `[It]`, and it ran if its status is `passed` or not one of `skipped` and `pending`. The `timestamp` of
//! ginkgo's suites has no zone, which quick-junit refuses: the few fields that count are read with quick-xml, which that crate is made of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::pulling;

/// How a spec ended. The worst comes last: of several tries that one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// It looked at the cluster and did not apply.
    Skipped,
    /// It passed.
    Passed,
    /// It says nothing about the proxy: an image that it needs could not be had.
    Infra,
    /// It failed, panicked, timed out or was interrupted.
    Failed,
}

/// A spec that was tried.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Its full name.
    pub name: String,
    /// How it ended; of several tries the worst.
    pub ended: Ended,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What it says about a failure, or why it skipped itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The image that could not be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// A file that is no JUnit.
#[derive(Debug, thiserror::Error)]
pub enum JunitError {
    /// No XML, or another document.
    #[error("no JUnit document: {0}")]
    Xml(#[from] quick_xml::DeError),
    /// A document without test suites.
    #[error("no JUnit document: there is no test suite in it")]
    NoSuite,
}

#[derive(Deserialize)]
struct Suites {
    #[serde(default)]
    testsuite: Vec<Suite>,
}

#[derive(Deserialize)]
struct Suite {
    #[serde(default)]
    testcase: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    #[serde(rename = "@name")]
    name: String,
    #[serde(rename = "@status", default)]
    status: String,
    #[serde(rename = "@time", default)]
    time: f64,
    failure: Option<Told>,
    error: Option<Told>,
    skipped: Option<Told>,
    #[serde(rename = "system-err")]
    log: Option<Told>,
}

#[derive(Deserialize)]
struct Told {
    #[serde(rename = "@message", default)]
    message: String,
    #[serde(rename = "$text", default)]
    text: String,
}

impl Told {
    fn words(self) -> Option<String> {
        [self.message, self.text]
            .into_iter()
            .find(|text| !text.trim().is_empty())
    }
}

/// The specs of some files, by name. A spec that several processes tried is told once, by its worst end.
///
/// # Errors
/// [`JunitError`] for the first file that is no JUnit.
pub fn read<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<Spec>, JunitError> {
    let mut found: BTreeMap<String, Spec> = BTreeMap::new();
    for text in texts {
        let suites: Suites = quick_xml::de::from_str(text)?;
        if suites.testsuite.is_empty() {
            return Err(JunitError::NoSuite);
        }
        for case in suites
            .testsuite
            .into_iter()
            .flat_map(|suite| suite.testcase)
        {
            let Some(spec) = spec(case) else { continue };
            match found.get_mut(&spec.name) {
                None => {
                    found.insert(spec.name.clone(), spec);
                }
                // Whoever skipped it only left it to another process.
                Some(known) if spec.ended > known.ended => *known = spec,
                Some(_) => {}
            }
        }
    }
    Ok(found.into_values().collect())
}

/// The spec of a test case; none if it is no spec, or was filtered out.
fn spec(case: Case) -> Option<Spec> {
    let name = case.name.strip_prefix("[It] ")?.trim().to_owned();
    let log = case.log.map(|log| log.text).unwrap_or_default();
    let mut image = None;
    let (told, ended) = match (case.failure, case.error, case.skipped) {
        (Some(failure), _, _) | (None, Some(failure), _) => {
            let words = failure.words();
            match pulling::lack(words.as_deref().unwrap_or_default(), &log) {
                None => (words, Ended::Failed),
                Some(lack) => {
                    let reason = lack.reason();
                    image = Some(lack.image);
                    (Some(reason), Ended::Infra)
                }
            }
        }
        (None, None, Some(skipped)) => {
            // `skipped` alone is a spec that was not chosen; with a reason it looked and found that it does not apply.
            let words = skipped.words().unwrap_or_default();
            let reason = words.strip_prefix("skipped - ")?;
            (Some(reason.to_owned()), Ended::Skipped)
        }
        (None, None, None) if matches!(case.status.as_str(), "" | "passed") => {
            (None, Ended::Passed)
        }
        (None, None, None) if matches!(case.status.as_str(), "skipped" | "pending") => return None,
        (None, None, None) => (Some(case.status), Ended::Failed),
    };
    Some(Spec {
        name,
        ended,
        seconds: case.time,
        message: told,
        image,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `e2e.test` of Kubernetes 1.36 writes it, shortened.
    const FILE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
  <testsuites tests="7" disabled="3" errors="0" failures="1" time="61.5">
      <testsuite name="Kubernetes e2e suite" package="/work" tests="7" disabled="0" skipped="3" errors="0" failures="1" time="61.5" timestamp="2026-11-26T10:00:00">
          <properties><property name="SuiteSucceeded" value="false"></property></properties>
          <testcase name="[SynchronizedBeforeSuite]" classname="Kubernetes e2e suite" status="passed" time="0.5"></testcase>
          <testcase name="[It] [sig-network] Services should serve a basic endpoint from pods [Conformance]" classname="Kubernetes e2e suite" status="passed" time="9.25"></testcase>
          <testcase name="[It] [sig-network] Services should be rejected for evicted pods (no endpoints exist)" classname="Kubernetes e2e suite" status="failed" time="51">
              <failure message="expected &lt;refused&gt;" type="failed">[FAILED] expected
at service.go:1</failure>
              <system-err>noise</system-err>
          </testcase>
          <testcase name="[It] [sig-network] Services should work on windows" classname="Kubernetes e2e suite" status="skipped" time="0"><skipped message="skipped"></skipped></testcase>
          <testcase name="[It] [sig-network] Services should need two families" classname="Kubernetes e2e suite" status="skipped" time="1"><skipped message="skipped - the cluster has one"></skipped></testcase>
          <testcase name="[It] [sig-network] Services should be pending" classname="Kubernetes e2e suite" status="pending" time="0"><skipped message="pending"></skipped></testcase>
          <testcase name="[It] [sig-network] Services should end" classname="Kubernetes e2e suite" status="interrupted" time="2"></testcase>
          <testcase name="[ReportAfterSuite] Kubernetes e2e suite report" classname="Kubernetes e2e suite" status="passed" time="0.01"></testcase>
      </testsuite>
  </testsuites>"#;

    #[test]
    fn specs_are_told_from_what_only_looks_like_one() {
        let specs = read([FILE]).unwrap();
        let said: Vec<(&str, Ended, Option<&str>)> = specs
            .iter()
            .map(|spec| (spec.name.as_str(), spec.ended, spec.message.as_deref()))
            .collect();
        assert_eq!(
            said,
            [
                (
                    "[sig-network] Services should be rejected for evicted pods (no endpoints exist)",
                    Ended::Failed,
                    Some("expected <refused>")
                ),
                (
                    "[sig-network] Services should end",
                    Ended::Failed,
                    Some("interrupted")
                ),
                (
                    "[sig-network] Services should need two families",
                    Ended::Skipped,
                    Some("the cluster has one")
                ),
                (
                    "[sig-network] Services should serve a basic endpoint from pods [Conformance]",
                    Ended::Passed,
                    None
                ),
            ]
        );
        assert_eq!(specs[3].seconds, 9.25);
    }

    #[test]
    fn a_spec_that_never_had_its_image_did_not_fail() {
        let event = |what: &str| {
            format!("event for server: {{kubelet node2}} {what} image &quot;r.example/x:1&quot;")
        };
        let file = |log: &str| {
            format!(
                r#"<testsuites><testsuite name="s"><testcase name="[It] a" status="failed" time="300"><failure message="" type="failed">[FAILED] no answer</failure><system-err>&gt; Enter [It]
  At 16:05 - {log}
</system-err></testcase></testsuite></testsuites>"#
            )
        };
        let missing = file(&event("Failed: Failed to pull"));
        let there = file(&event("Pulled: Successfully pulled"));
        let specs = read([missing.as_str()]).unwrap();
        assert_eq!(
            (specs[0].ended, specs[0].image.as_deref()),
            (Ended::Infra, Some("r.example/x:1"))
        );
        let message = specs[0].message.as_deref().unwrap();
        assert!(
            message.starts_with("the image r.example/x:1 could not be had"),
            "{message}"
        );
        let specs = read([there.as_str()]).unwrap();
        assert_eq!(
            (
                specs[0].ended,
                specs[0].message.as_deref(),
                specs[0].image.as_deref()
            ),
            (Ended::Failed, Some("[FAILED] no answer"), None)
        );
        // A try that failed in earnest is not excused by another one.
        let both = read([missing.as_str(), there.as_str()]).unwrap();
        assert_eq!(both[0].ended, Ended::Failed);
    }

    #[test]
    fn of_several_tries_the_worst_counts() {
        let file = |status: &str, inner: &str| {
            format!(
                r#"<testsuites><testsuite name="s"><testcase name="[It] a" status="{status}" time="1">{inner}</testcase></testsuite></testsuites>"#
            )
        };
        let passed = file("passed", "");
        let failed = file(
            "failed",
            r#"<failure message="no" type="failed"></failure>"#,
        );
        let skipped = file(
            "skipped",
            r#"<skipped message="skipped - not here"></skipped>"#,
        );
        for (files, ended) in [
            ([&passed, &failed], Ended::Failed),
            ([&failed, &passed], Ended::Failed),
            ([&skipped, &passed], Ended::Passed),
            ([&passed, &skipped], Ended::Passed),
            ([&skipped, &skipped], Ended::Skipped),
        ] {
            let specs = read(files.map(String::as_str)).unwrap();
            assert_eq!((specs.len(), specs[0].ended), (1, ended));
        }
    }

    #[test]
    fn what_is_no_junit_is_refused() {
        for text in [
            "",
            "hello",
            "<html><body/></html>",
            "<testsuites></testsuites>",
            "<testsuites><testsuite>",
        ] {
            assert!(read([text]).is_err(), "{text}");
        }
    }
}
