//! Aligned columns of text.

use std::io::{self, Write};

use crate::telemetry::log::escape;

/// A cell that is wider pushes the rest of its own line, not the column of all others.
const WIDEST: usize = 44;

/// Rows of as many cells as the first has, which is the heading.
pub struct Table {
    rows: Vec<Vec<String>>,
    indent: &'static str,
}

impl Table {
    /// With this heading; each line begins with `indent`.
    pub fn new<const N: usize>(indent: &'static str, heading: [&str; N]) -> Self {
        Self { rows: vec![heading.map(str::to_owned).into()], indent }
    }

    /// Control characters are written as escapes: a key or a value must not move the cursor.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into_iter().map(|cell| escape(&cell).into_owned()).collect());
    }

    /// Writes all of it.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        self.lines().iter().try_for_each(|line| writeln!(out, "{line}"))
    }

    /// The heading and each row.
    pub fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let widths = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            widths.filter(|width| *width <= WIDEST).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths);
            let cells: Vec<String> = cells.map(|(cell, width)| format!("{cell:<0$}", *width)).collect();
            format!("{}{}", self.indent, cells.join("  ").trim_end())
        };
        self.rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_one_wide_cell_spoils_one_line() {
        let mut table = Table::new("  ", ["A", "BB", "C"]);
        table.row(["äöü".into(), String::new(), "x\u{1b}".into()]);
        table.row(["y".repeat(50), "1".into(), "z".into()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        let wide = "y".repeat(50);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!("  A    BB  C\n  äöü      x\\u{{1b}}\n  {wide}  1   z\n")
        );
    }
}
