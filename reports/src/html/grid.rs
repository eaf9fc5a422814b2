//! The expected and the actual matrix, side by side: a row per source, a column per frontend.

use std::net::SocketAddr;

use super::text::Text;
use crate::evidence::{Matrix, MatrixRow};
use crate::text::shortened;

/// Sources that are shown.
const MAX_ROWS: usize = 16;

/// Frontends that are shown.
const MAX_COLUMNS: usize = 8;

/// Two matrices with the same rows and columns.
pub(super) struct Grid {
    pub columns: Vec<Text>,
    pub rows: Vec<Row>,
    /// Cells of the file that are not shown, and how many of them are wrong.
    pub hidden: usize,
    pub hidden_wrong: usize,
    pub wrong: usize,
    pub of: usize,
}

/// What one source sees.
pub(super) struct Row {
    pub from: Text,
    /// A cell per column; nothing where the source does not look.
    pub cells: Vec<Option<GridCell>>,
}

/// One source and one frontend.
pub(super) struct GridCell {
    pub right: bool,
    pub expected: Text,
    pub actual: Text,
    pub expected_whole: Text,
    pub actual_whole: Text,
}

impl Grid {
    /// Sources and frontends with something wrong come first where there is no room for all.
    pub fn of(matrix: &Matrix) -> Self {
        let sources = chosen(matrix, |row| &row.from, MAX_ROWS);
        let frontends = chosen(matrix, |row| &row.to, MAX_COLUMNS);
        let mut shown = 0;
        let mut shown_wrong = 0;
        let rows: Vec<Row> = sources
            .iter()
            .map(|from| {
                let cells = frontends.iter().map(|to| {
                    let mut of_cell = matrix.rows.iter();
                    let row = of_cell.find(|row| row.from == **from && row.to == **to)?;
                    shown += 1;
                    shown_wrong += usize::from(!row.right);
                    Some(cell(row))
                });
                Row {
                    from: Text::short(from, 80),
                    cells: cells.collect(),
                }
            })
            .collect();
        let wrong = matrix.rows.iter().filter(|row| !row.right).count();
        Self {
            columns: frontends.iter().map(|to| Text::short(to, 120)).collect(),
            rows,
            hidden: matrix.rows.len().saturating_sub(shown),
            hidden_wrong: wrong.saturating_sub(shown_wrong),
            wrong,
            of: matrix.rows.len(),
        }
    }
}

fn cell(row: &MatrixRow) -> GridCell {
    GridCell {
        right: row.right,
        expected: Text::new(&shortened(&without_addresses(&row.expected), 90)),
        actual: Text::new(&shortened(&brief(&row.actual), 60)),
        expected_whole: Text::short(&row.expected, 300),
        actual_whole: Text::short(&row.actual, 300),
    }
}

/// The sources or frontends that are shown, in the order of the file.
fn chosen(matrix: &Matrix, name: impl Fn(&MatrixRow) -> &String, most: usize) -> Vec<&String> {
    let mut all: Vec<(&String, bool)> = Vec::new();
    for row in &matrix.rows {
        // The borrow of the closure's result is that of the row.
        let name = name(row);
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, wrong)) => *wrong |= !row.right,
            None => all.push((name, !row.right)),
        }
    }
    let mut room = most.saturating_sub(all.iter().filter(|(_, wrong)| *wrong).count());
    let mut keep = |wrong: bool| {
        wrong || {
            let fits = room > 0;
            room -= usize::from(fits);
            fits
        }
    };
    let kept = all.into_iter().filter(|(_, wrong)| keep(*wrong));
    kept.take(most).map(|(name, _)| name).collect()
}

/// `answered by web 10.244.1.11:8080 (itself), client address kept` is `web (itself), client address kept`.
fn without_addresses(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in text.replace("answered by ", "").split_whitespace() {
        let bare = word.trim_end_matches([',', ';']);
        if bare.parse::<SocketAddr>().is_err() {
            words.push(word.to_owned());
        } else if let Some(last) = words.last_mut() {
            // The comma stays with the name.
            last.push_str(&word[bare.len()..]);
        }
    }
    words.join(" ")
}

/// `4 x unreachable: Network is unreachable (os error 101), ICMP 1/0` is `4 × unreachable`.
fn brief(text: &str) -> String {
    let parts = text.split(", ").filter_map(|part| {
        let (count, what) = part.split_once(" x ")?;
        count.parse::<u32>().ok()?;
        let what = what.trim_start_matches("answered by ");
        let what = what.split(": ").next().unwrap_or(what);
        Some(format!("{count} × {what}"))
    });
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() {
        return text.to_owned();
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: &[(&str, &str, bool)]) -> Matrix {
        let row = |(from, to, right): &(&str, &str, bool)| MatrixRow {
            right: *right,
            from: (*from).into(),
            to: (*to).into(),
            expected: "answered by web 10.244.1.11:8080 (itself), client address kept".into(),
            actual: "3 x answered by web, 1 x unreachable: no route, ICMP 1/0".into(),
        };
        Matrix {
            rows: rows.iter().map(row).collect(),
        }
    }

    #[test]
    fn cells_are_found_again() {
        let grid = Grid::of(&matrix(&[
            ("pod a", "web 1", true),
            ("pod a", "web 2", false),
            ("node1", "web 2", true),
        ]));
        assert_eq!(
            (grid.rows.len(), grid.columns.len(), grid.hidden),
            (2, 2, 0)
        );
        assert_eq!((grid.wrong, grid.of), (1, 3));
        assert!(grid.rows[1].cells[0].is_none());
        let cell = grid.rows[0].cells[1].as_ref().unwrap();
        assert!(!cell.right);
        assert_eq!(
            cell.expected.to_string(),
            "web (itself), client address kept"
        );
        assert_eq!(cell.actual.to_string(), "3 × web, 1 × unreachable");
    }

    #[test]
    fn what_is_wrong_is_shown_first() {
        let names: Vec<String> = (0..40).map(|n| format!("pod {n}")).collect();
        let rows: Vec<(&str, &str, bool)> = names
            .iter()
            .enumerate()
            .map(|(n, name)| (name.as_str(), "web", n != 39))
            .collect();
        let grid = Grid::of(&matrix(&rows));
        assert_eq!(grid.rows.len(), MAX_ROWS);
        assert_eq!(grid.rows.last().unwrap().from.to_string(), "pod 39");
        assert_eq!((grid.hidden, grid.hidden_wrong), (40 - MAX_ROWS, 0));
    }
}
