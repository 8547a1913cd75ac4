//! Text in columns.

use super::printable;

/// Rows as lines, each column as wide as its widest cell, without trailing blanks.
pub fn align(rows: &[Vec<String>]) -> String {
    align_figures(rows, usize::MAX)
}

/// [`align`], with the cells of columns from `figures` on aligned right.
pub fn align_figures(rows: &[Vec<String>], figures: usize) -> String {
    let mut widths = Vec::new();
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    for row in &rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column < figures { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up_by_characters() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let text = super::align(&[row(["NAME", "N", "X"]), row(["größe", "12", ""]), row(["a", "3", "y"])]);
        assert_eq!(text, "NAME   N   X\ngröße  12\na      3   y\n");
    }

    #[test]
    fn control_characters_are_escaped() {
        let row = ["a\u{1b}[2J\n", "ü\u{9b}"].map(str::to_owned).to_vec();
        assert_eq!(super::align(&[row]), "a\\u{1b}[2J\\n  ü\\u{9b}\n");
    }

    #[test]
    fn figures_are_aligned_right() {
        let rows = [["a", "n", "1"], ["b", "nn", "100"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(super::align_figures(&rows, 2), "a  n     1\nb  nn  100\n");
    }
}
