//! The closing line of a task: how many tests passed and failed, as nextest's JUnit file has it.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;
use quick_junit::Report;

/// Counts of a finished test run.
#[derive(Debug, PartialEq, Eq)]
pub struct Tests {
    passed: usize,
    failed: usize,
}

impl fmt::Display for Tests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// The counts in a JUnit file; `None` when there is no file, as when no test was reached.
///
/// # Errors
/// When the file cannot be read or is no JUnit document.
pub fn read(path: &Path) -> anyhow::Result<Option<Tests>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {path:?}")),
    };
    let report = Report::deserialize_from_str(&text).with_context(|| format!("read {path:?}"))?;
    let failed = report.failures + report.errors;
    Ok(Some(Tests {
        passed: report.tests.saturating_sub(failed + report.skipped),
        failed,
    }))
}

/// Removes the counts of an earlier run.
///
/// # Errors
/// When the file is there and cannot be removed.
pub fn forget(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {path:?}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

    use super::*;

    #[test]
    fn failures_and_errors_are_failed_and_skipped_is_neither() {
        let mut suite = TestSuite::new("s");
        for status in [
            TestCaseStatus::success(),
            TestCaseStatus::success(),
            TestCaseStatus::non_success(NonSuccessKind::Failure),
            TestCaseStatus::non_success(NonSuccessKind::Error),
            TestCaseStatus::skipped(),
        ] {
            suite.add_test_case(TestCase::new("t", status));
        }
        let mut report = Report::new("r");
        report.add_test_suite(suite);
        let name = format!("xtask-summary-{}.xml", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, report.to_string().unwrap()).unwrap();
        let tests = read(&path).unwrap().unwrap();
        assert_eq!(tests.to_string(), "2 passed, 2 failed");
        forget(&path).unwrap();
        forget(&path).unwrap();
        assert_eq!(read(&path).unwrap(), None);
    }
}
