//! Tables as text.

use crate::text::{clean, width};

/// What is shown where something is not known.
pub(crate) const UNKNOWN: &str = "?";

/// Rows under a header. Cells are cleaned of control characters.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these titles.
    pub(crate) fn new<'a>(titles: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            rows: vec![titles.into_iter().map(str::to_owned).collect()],
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| clean(&cell)).collect());
    }

    /// Its lines. Each column is as wide as its widest cell, and two spaces are between columns.
    pub(crate) fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| width(cell)).max().unwrap_or(0)
            })
            .collect();
        let line = |row: &Vec<String>| {
            let mut line = String::new();
            for (cell, wide) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.push_str(&" ".repeat(wide - width(cell) + 2));
            }
            line.trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }

    /// Whether it has no row under its header.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }
}

/// A number, or that it is not known.
pub(crate) fn known<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| value.to_string())
}

/// A share from 0 to 1 in percent.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A rate for people: whole records a second, or one decimal where there are few.
pub(crate) fn rate(rate: Option<f64>) -> String {
    match rate {
        None => format!("{UNKNOWN}/s"),
        Some(rate) if rate > 0.0 && rate < 10.0 => format!("{rate:.1}/s"),
        Some(rate) => format!("{rate:.0}/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["A", "LONG", "C"]);
        assert!(table.is_empty());
        table.row(["漢".to_owned(), "x".to_owned(), "y".to_owned()]);
        table.row(["wide".to_owned(), "\u{1b}[31mx".to_owned(), String::new()]);
        assert_eq!(table.lines(), ["A     LONG   C", "漢    x      y", "wide  [31mx"]);
        assert!(!table.is_empty());
    }

    #[test]
    fn what_is_not_known_is_no_zero() {
        assert_eq!(known::<u64>(None), "?");
        assert_eq!(known(Some(0)), "0");
        assert_eq!(rate(None), "?/s");
        assert_eq!(rate(Some(0.0)), "0/s");
        assert_eq!(rate(Some(0.25)), "0.2/s");
        assert_eq!(rate(Some(1234.5)), "1234/s");
        assert_eq!(percent(0.2494), "24.9 %");
    }
}
