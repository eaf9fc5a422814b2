//! The cases that have to pass: files such as `ci/required/reference.yaml`.
//!
//! ```yaml
//! cases:
//!   - clusterip-basic[ipv4,TCP]
//! ```
//!
//! `harness gate --promote` appends to them and changes nothing that is there, so comments stay where they are.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::Failed;
use crate::scenario::{Problem, load};

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    cases: Vec<Spanned<String>>,
}

/// The ids of all files.
pub(super) fn read(files: &[PathBuf]) -> Result<BTreeSet<String>, Failed> {
    let mut all = BTreeSet::new();
    for file in files {
        all.extend(of_text(file, &text(file)?)?);
    }
    Ok(all)
}

/// Appends the cases that the file has not, and returns them. A file that is not there yet is made.
pub(super) fn add(file: &Path, cases: BTreeSet<String>) -> Result<BTreeSet<String>, Failed> {
    let (mut text, known) = if file.exists() {
        let text = text(file)?;
        let known = of_text(file, &text)?;
        (text, known)
    } else {
        (String::new(), BTreeSet::new())
    };
    let new: BTreeSet<String> = cases.difference(&known).cloned().collect();
    if new.is_empty() {
        return Ok(new);
    }
    if known.is_empty() {
        // Whatever an empty list looks like, it cannot be appended to; comments can be kept.
        let comments = text
            .lines()
            .filter(|line| line.trim_start().starts_with('#'));
        text = comments.map(|line| format!("{line}\n")).collect();
        text.push_str("cases:\n");
    } else if !text.ends_with('\n') {
        text.push('\n');
    }
    for case in &new {
        let _ = writeln!(text, "  - {}", scalar(case));
    }
    // What cannot be read again is not written: the file may be in a form that lines cannot be added to.
    let reread = of_text(file, &text)?;
    if !new.is_subset(&reread) {
        return Err(Failed::usage(format!(
            "{}: cases can only be added to a list with one case per line",
            file.display()
        )));
    }
    reports::replace(file, text.as_bytes()).map_err(|error| {
        Failed::infra(format!("{}: cannot be written: {error}", file.display()))
    })?;
    Ok(new)
}

fn text(file: &Path) -> Result<String, Failed> {
    load::read_text(file)
        .map_err(|error| Failed::usage(format!("{}: cannot be read: {error}", file.display())))
}

/// The ids in a text.
pub(super) fn of_text(file: &Path, text: &str) -> Result<BTreeSet<String>, Problem> {
    let name: Arc<str> = file.display().to_string().into();
    let written: Written = load::parse(&name, text)?;
    let mut ids = BTreeSet::new();
    for case in written.cases {
        if !ids.insert(case.value.clone()) {
            return Err(Problem {
                file: name,
                line: case.referenced.line(),
                message: format!("the case '{}' is there twice", case.value),
            });
        }
    }
    Ok(ids)
}

/// An id as YAML: ids need no quotes, whatever else somebody calls a case does.
fn scalar(id: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.[],".contains(c);
    if id.starts_with(|c: char| c.is_ascii_lowercase()) && id.chars().all(plain) {
        id.to_owned()
    } else {
        format!("'{}'", id.replace('\'', "''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn cases_are_added_once_and_comments_stay() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("required.yaml");
        let new = add(&file, set(&["b[ipv4,TCP]", "a", "it's: odd"])).unwrap();
        assert_eq!(new.len(), 3);
        let first = std::fs::read_to_string(&file).unwrap();
        assert_eq!(first, "cases:\n  - a\n  - b[ipv4,TCP]\n  - 'it''s: odd'\n");
        std::fs::write(&file, format!("# Why.\n{first}  # A remark.\n")).unwrap();
        assert_eq!(add(&file, set(&["a", "c"])).unwrap(), set(&["c"]));
        assert_eq!(add(&file, set(&["a", "c"])).unwrap(), set(&[]));
        let second = std::fs::read_to_string(&file).unwrap();
        assert_eq!(second, format!("# Why.\n{first}  # A remark.\n  - c\n"));
        let all = read(&[file]).unwrap();
        assert_eq!(all, set(&["a", "b[ipv4,TCP]", "c", "it's: odd"]));
    }

    #[test]
    fn an_empty_list_is_begun_and_a_list_in_one_line_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("required.yaml");
        std::fs::write(&file, "# Why.\ncases: []\n").unwrap();
        add(&file, set(&["a"])).unwrap();
        let begun = std::fs::read_to_string(&file).unwrap();
        assert_eq!(begun, "# Why.\ncases:\n  - a\n");
        std::fs::write(&file, "cases: [a, b]\n").unwrap();
        assert!(add(&file, set(&["c"])).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "cases: [a, b]\n");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, part) in [
            (
                "cases:\n  - a\n  - b\n  - a\n",
                "f.yaml:4: the case 'a' is there twice",
            ),
            ("cases: [a]\nlevel: core\n", "f.yaml:2: "),
            ("- a\n", "f.yaml:1: "),
        ] {
            let problem = of_text(Path::new("f.yaml"), text).unwrap_err().to_string();
            assert!(problem.contains(part), "{problem}");
        }
    }
}
