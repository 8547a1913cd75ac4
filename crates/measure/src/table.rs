//! Figures in columns.

use std::fmt;

use crate::statistics::Spread;

/// Rows of text in columns. Numbers are right-aligned, words left-aligned.
pub(crate) struct Table {
    /// The number of columns of each group. A bar separates groups.
    groups: Vec<(String, usize)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new() -> Table {
        Table { groups: Vec::new(), rows: Vec::new() }
    }

    /// Titles of groups of columns.
    pub(crate) fn groups(&mut self, groups: &[(String, usize)]) {
        self.groups = groups.to_vec();
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    fn width(&self, column: usize) -> usize {
        self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    }

    /// Whether the column contains a word below its head.
    fn has_words(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().skip(1).filter_map(|row| row.get(column));
        cells.any(|cell| cell.starts_with(char::is_alphabetic))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = vec![String::new(); self.rows.len() + 1];
        let mut column = 0;
        for (g, (title, columns)) in self.groups.iter().enumerate() {
            let widths: Vec<usize> = (column..column + columns).map(|column| self.width(column)).collect();
            let whole = widths.iter().sum::<usize>() + widths.len().saturating_sub(1);
            let bar = if g == 0 { "" } else { " | " };
            lines[0] += &format!("{bar}{title:^whole$}");
            for (line, row) in lines[1..].iter_mut().zip(&self.rows) {
                let cells = widths.iter().enumerate().map(|(i, width)| {
                    let cell = row.get(column + i).map_or("", String::as_str);
                    if self.has_words(column + i) {
                        format!("{cell:<width$}")
                    } else {
                        format!("{cell:>width$}")
                    }
                });
                *line += bar;
                *line += &cells.collect::<Vec<_>>().join(" ");
            }
            column += columns;
        }
        let lines = lines.iter().map(|line| line.trim_end()).filter(|line| !line.is_empty());
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}

/// A figure with three significant digits.
pub(crate) fn figure(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value < 10.0 => format!("{value:.2}"),
        Some(value) if value < 1000.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    }
}

/// A ratio to two places.
pub(crate) fn ratio(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.2}"))
}

/// The quartiles.
pub(crate) fn range(spread: Option<Spread>) -> String {
    let quartile = |value| if value < 10.0 { figure(Some(value)) } else { format!("{value:.0}") };
    spread.map_or("-".to_owned(), |Spread { lower, upper, .. }| {
        format!("{}..{}", quartile(lower), quartile(upper))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_groups_separated() {
        let mut table = Table::new();
        table.groups(&[(String::new(), 2), ("near".to_owned(), 1)]);
        table.row(vec!["bytes".into(), "transport".into(), "ns".into()]);
        table.row(vec!["8".into(), "classic".into(), "88.1".into()]);
        table.row(vec!["65536".into(), "pipe".into(), "21000".into()]);
        let text = table.to_string();
        assert_eq!(text.lines().map(|line| line.find('|')).collect::<Vec<_>>(), [Some(16); 4]);
        assert_eq!(text.lines().last(), Some("65536 pipe      | 21000"));
    }

    #[test]
    fn figures_have_three_significant_digits() {
        assert_eq!(figure(None), "-");
        assert_eq!(figure(Some(2.345)), "2.35");
        assert_eq!(figure(Some(88.12)), "88.1");
        assert_eq!(figure(Some(21034.4)), "21034");
    }
}
