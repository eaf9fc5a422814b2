//! `matrix.txt`: what every source sees at every frontend after the failure, beside what it has to see.
//!
//! The file is a Markdown table whose columns have a fixed width. Bars also occur inside of cells (`web-1 | web-2`), so the line below the
//! heading says where columns end, and a line that has no bars there is no row.

/// The table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matrix {
    /// Its rows.
    pub rows: Vec<MatrixRow>,
}

/// One source and one frontend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixRow {
    /// Whether what was seen is what had to be seen.
    pub right: bool,
    /// Who connected.
    pub from: String,
    /// To what.
    pub to: String,
    /// What had to be seen.
    pub expected: String,
    /// What was seen.
    pub actual: String,
}

/// Rows that are read of one file.
const MAX_ROWS: usize = 2_000;

impl Matrix {
    /// Reads the table; `None` where there is none.
    pub fn parse(text: &str) -> Option<Self> {
        let ruler = text
            .lines()
            .find(|line| line.starts_with("|--") && line.bytes().all(|b| b == b'|' || b == b'-'))?;
        let bars: Vec<usize> = ruler
            .bytes()
            .enumerate()
            .filter_map(|(at, byte)| (byte == b'|').then_some(at))
            .collect();
        if bars.len() != 6 {
            return None;
        }
        let rows = text
            .lines()
            .skip_while(|line| *line != ruler)
            .skip(1)
            .take_while(|line| line.starts_with('|'))
            .take(MAX_ROWS)
            .map(|line| row(line, &bars))
            .collect::<Option<Vec<_>>>()?;
        (!rows.is_empty()).then_some(Self { rows })
    }

    pub(super) fn bytes(&self) -> usize {
        let of_row = |row: &MatrixRow| {
            row.from.len() + row.to.len() + row.expected.len() + row.actual.len() + 64
        };
        self.rows.iter().map(of_row).sum()
    }
}

/// The cells of a line; `None` if bars are not where columns end.
fn row(line: &str, bars: &[usize]) -> Option<MatrixRow> {
    // Columns are counted in characters, which are mostly bytes.
    let at: Vec<usize> = if line.is_ascii() {
        bars.to_vec()
    } else {
        let starts: Vec<usize> = line.char_indices().map(|(at, _)| at).collect();
        bars.iter()
            .map(|bar| starts.get(*bar).copied())
            .collect::<Option<_>>()?
    };
    if !at.iter().all(|at| line.as_bytes().get(*at) == Some(&b'|')) {
        return None;
    }
    let cell = |n: usize| line[at[n] + 1..at[n + 1]].trim().to_owned();
    Some(MatrixRow {
        right: cell(0).is_empty(),
        from: cell(1),
        to: cell(2),
        expected: cell(3),
        actual: cell(4),
    })
}

/// The reasons that the file gives for what it expects of a cell.
pub fn why(text: &str, cell: &str) -> Vec<String> {
    text.lines()
        .skip_while(|line| line.strip_suffix(':') != Some(cell))
        .skip(1)
        .take_while(|line| line.starts_with("    "))
        .take(20)
        .map(|line| line.trim().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
The whole matrix.

|   | from       | to                 | expected                     | actual              |
|---|------------|--------------------|------------------------------|---------------------|
|   | pod client | web 10.0.0.1:80/TCP| answered by a 1 | b 2        | 4 x answered by a   |
| X | node1      | web 10.0.0.1:80/TCP| refused                      | 4 x timed out       |

Why:

node1 -> web 10.0.0.1:80/TCP:
    EP-2: nobody is ready
    TP-1: not here
pod client -> web 10.0.0.1:80/TCP:
    EP-1: usable
";

    #[test]
    fn bars_inside_of_cells_are_text() {
        let matrix = Matrix::parse(TEXT).unwrap();
        assert_eq!(matrix.rows.len(), 2);
        assert_eq!(matrix.rows[0].expected, "answered by a 1 | b 2");
        assert!(matrix.rows[0].right);
        assert!(!matrix.rows[1].right);
        assert_eq!(matrix.rows[1].actual, "4 x timed out");
    }

    #[test]
    fn reasons_are_those_of_the_cell() {
        let reasons = why(TEXT, "node1 -> web 10.0.0.1:80/TCP");
        assert_eq!(reasons, ["EP-2: nobody is ready", "TP-1: not here"]);
        assert!(why(TEXT, "node2 -> web").is_empty());
    }

    #[test]
    fn other_texts_are_no_matrix() {
        assert_eq!(Matrix::parse("no matrix: Stop\n"), None);
        assert_eq!(
            Matrix::parse(TEXT.split("| X").next().unwrap())
                .unwrap()
                .rows
                .len(),
            1
        );
        // A row whose bars are elsewhere, and a table with another number of columns.
        assert_eq!(
            Matrix::parse(&TEXT.replace("| X | node1", "| X | node1 |")),
            None
        );
        assert_eq!(Matrix::parse("|---|---|\n| a | b |\n"), None);
        // Columns are characters.
        let wide = TEXT.replace("4 x timed out  ", "4 x timed oüt  ");
        assert_eq!(
            Matrix::parse(&wide).unwrap().rows[1].actual,
            "4 x timed oüt"
        );
    }
}
