//! Tables as text and Markdown.

use std::fmt::Write as _;

use super::table::{Standing, Table};

impl Table {
    /// For a terminal: totals, then a line per row.
    pub fn text(&self) -> String {
        let mut text = format!("{}: {} {}\n", self.name, self.rows.len(), self.of);
        for (standing, (count, groups)) in self.totals() {
            let groups: Vec<String> = groups
                .iter()
                .map(|(group, count)| format!("{group} {count}"))
                .collect();
            let _ = writeln!(
                text,
                "  {:<16} {count:>4}{}{}",
                standing.as_str(),
                if groups.is_empty() { "" } else { "  " },
                groups.join(", ")
            );
        }
        text.push('\n');
        let width = self
            .rows
            .iter()
            .map(|row| row.id.chars().count())
            .max()
            .unwrap_or(0)
            .min(12);
        for row in &self.rows {
            let mut what = match &row.group {
                Some(group) if row.standing == Standing::OutOfScope => group.clone(),
                Some(group) if self.name == "requirements" => {
                    format!("{} ({group})", row.standing.as_str())
                }
                _ => row.standing.as_str().to_owned(),
            };
            if !row.scenarios.is_empty() {
                let _ = write!(what, ": {}", row.scenarios.join(", "));
            }
            let subject = match row.text.is_empty() {
                true => row.id.clone(),
                false => format!(
                    "{:<width$} {}",
                    row.id,
                    reports::text::shortened(&row.text, 110)
                ),
            };
            let _ = writeln!(text, "{subject}\n    {what}");
            if let Some(note) = &row.note {
                let _ = writeln!(text, "    {note}");
            }
        }
        text
    }

    /// For a document or a pull request.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "## {}{}\n\n{} {}.\n\n| | |\n|---|--:|\n",
            self.name[..1].to_uppercase(),
            &self.name[1..],
            self.rows.len(),
            self.of
        );
        for (standing, (count, groups)) in self.totals() {
            let groups: Vec<String> = groups
                .iter()
                .map(|(group, count)| format!("{group} {count}"))
                .collect();
            let groups = match groups.is_empty() {
                true => String::new(),
                false => format!(" ({})", groups.join(", ")),
            };
            let _ = writeln!(text, "| {}{groups} | {count} |", standing.as_str());
        }
        text.push_str("\n| What | Where it stands | Scenarios |\n|---|---|---|\n");
        for row in &self.rows {
            let mut subject = cell(&row.id);
            if !row.text.is_empty() {
                let _ = write!(subject, ": {}", cell(&row.text));
            }
            let mut standing = match &row.group {
                Some(group) => format!("{}, {group}", row.standing.as_str()),
                None => row.standing.as_str().to_owned(),
            };
            if let Some(note) = &row.note {
                let _ = write!(standing, ": {}", cell(note));
            }
            let _ = writeln!(
                text,
                "| {subject} | {standing} | {} |",
                row.scenarios.join(", ")
            );
        }
        if !self.gaps.is_empty() {
            text.push_str("\nGaps:\n\n");
            for gap in &self.gaps {
                let _ = writeln!(text, "- {}", escaped(&gap.to_string()));
            }
        }
        text.push('\n');
        text
    }
}

/// As the content of a table cell.
fn cell(text: &str) -> String {
    escaped(text).replace('|', "\\|")
}

/// Text that Markdown takes for nothing else.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '<' | '*' | '_' | '[' | ']' | '`' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::Row;

    #[test]
    fn tables_have_totals_and_rows() {
        let table = Table {
            name: "bugs",
            of: "real bugs".into(),
            rows: vec![
                Row {
                    id: "bug:A1".into(),
                    text: "a | b".into(),
                    group: None,
                    standing: Standing::Covered,
                    scenarios: vec!["one".into(), "two".into()],
                    note: None,
                },
                Row {
                    id: "bug:A2".into(),
                    text: "c".into(),
                    group: None,
                    standing: Standing::Open,
                    scenarios: vec![],
                    note: Some("not *yet*".into()),
                },
            ],
            gaps: vec![],
        };
        insta::assert_snapshot!(table.text(), @r"
        bugs: 2 real bugs
          covered             1
          open                1

        bug:A1 a | b
            covered: one, two
        bug:A2 c
            open
            not *yet*
        ");
        insta::assert_snapshot!(table.markdown(), @r"
        ## Bugs

        2 real bugs.

        | | |
        |---|--:|
        | covered | 1 |
        | open | 1 |

        | What | Where it stands | Scenarios |
        |---|---|---|
        | bug:A1: a \| b | covered | one, two |
        | bug:A2: c | open: not \*yet\* |  |
        ");
    }
}
