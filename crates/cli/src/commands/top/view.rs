//! How the board looks, in any terminal of 80 columns and without colour: the selected row is in reverse video.

use std::collections::HashSet;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row as Line80, Table, TableState};

use super::board::{Board, Row, Seen};
use crate::commands::watched::{self, Flow};
use crate::output::description;
use crate::output::printable;
use crate::output::units;

const HEADERS: [&str; 9] = ["PIPE", "MSG/S", "BYTES/S", "FILL", "HIGH", "P99", "WAITS", "EVENTS", "RATE"];

/// Columns of each but the first, which takes what is left.
const WIDTHS: [u16; 8] = [6, 7, 4, 4, 7, 16, 9, 8];

/// The column that needs more than 80 columns.
const LATENCY: usize = 5;

/// From so many columns on it is there.
const WIDE: u16 = 88;

/// The columns that are figures.
const FIGURES: std::ops::Range<usize> = 1..6;

/// The board as rows of text, with headers.
pub fn table(board: &Board) -> Vec<Vec<String>> {
    let header = HEADERS[..8].iter().map(|&name| name.to_owned()).collect();
    [header].into_iter().chain(board.rows().iter().map(cells)).collect()
}

/// The cells of a row, without its sparkline.
fn cells(row: &Row<'_>) -> Vec<String> {
    let name = row.name.clone();
    let Seen { latest, way, flow } = match &row.seen {
        Ok(seen) => seen,
        Err(error) => {
            let unknown = || "-".to_owned();
            let unknowns = [unknown(), unknown(), unknown(), unknown(), unknown()];
            return [name].into_iter().chain(unknowns).chain([error_in_words(error)]).collect();
        }
    };
    let fill = |used| units::show_fill(used, latest.capacity);
    vec![
        name,
        units::show_rate(flow.sent_per_second),
        units::show_count(flow.bytes_per_second),
        fill(way.used),
        fill(flow.highest),
        watched::p99(flow),
        watched::who_waits(flow, way),
        watched::events(flow),
    ]
}

fn error_in_words(error: &shmpipe::SetupError) -> String {
    match error {
        shmpipe::SetupError::NotFound { .. } => "not there".to_owned(),
        shmpipe::SetupError::PermissionDenied { .. } => "not permitted".to_owned(),
        _ => "unreadable".to_owned(),
    }
}

/// The latest rates as bars, the newest at the right.
fn sparkline(flow: &Flow, width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let rates: Vec<f64> =
        flow.history.iter().copied().skip(flow.history.len().saturating_sub(width)).collect();
    let most = rates.iter().copied().fold(0.0, f64::max);
    let bar = |rate: f64| match rate {
        0.0 => ' ',
        rate => BARS[((rate / most * 8.0).ceil() as usize).clamp(1, 8) - 1],
    };
    format!("{:>width$}", rates.into_iter().map(bar).collect::<String>())
}

/// Draws all of it.
pub fn draw(frame: &mut Frame<'_>, board: &Board) {
    let parts = Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]);
    let [top, middle, bottom] = parts.areas(frame.area());
    let rows = board.rows();
    frame.render_widget(Paragraph::new(title(board, &rows)), top);
    let selected = board.selected(&rows);
    match rows.get(selected) {
        Some(row) if board.full => draw_full(frame, middle, board, row),
        _ => draw_table(frame, middle, &rows, selected),
    }
    frame.render_widget(Paragraph::new(keys(board)), bottom);
}

fn title(board: &Board, rows: &[Row<'_>]) -> Line<'static> {
    // A duplex pipe has two rows.
    let shown: HashSet<_> = rows.iter().map(|row| std::ptr::from_ref(row.pipe)).collect();
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let order = if board.reversed { " reversed" } else { "" };
    let mut text = format!(
        "  {} of {} pipes, by {}{order}, every {}",
        shown.len(),
        board.pipes().len(),
        board.sort.name(),
        humantime::format_duration(board.interval)
    );
    if !board.filter.is_empty() && !board.edits_filter {
        text += &format!(", with \"{}\"", printable(&board.filter));
    }
    if let Some(note) = board.note() {
        text += &format!("; {}", printable(&note));
    }
    Line::from(vec![Span::styled("shmpipe top", bold), Span::raw(text)])
}

fn keys(board: &Board) -> String {
    match (board.edits_filter, board.full) {
        (true, _) => format!("/{}_   Enter: keep   Esc: clear", printable(&board.filter)),
        (_, true) => "up/down: scroll   Enter, Esc: back   q: quit".to_owned(),
        _ => "up/down: select   Enter: in full   s: sort   r: reverse   /: filter   q: quit".to_owned(),
    }
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, rows: &[Row<'_>], selected: usize) {
    let is_shown = |column: usize| column != LATENCY || area.width >= WIDE;
    let others = (1..HEADERS.len()).filter(|&column| is_shown(column)).map(|column| WIDTHS[column - 1]);
    let first = area.width.saturating_sub(others.map(|width| width + 1).sum());
    let widths: Vec<u16> = [first].into_iter().chain(WIDTHS).collect();
    let aligned = |cells: Vec<String>| {
        let cells = cells.into_iter().zip(&widths).enumerate().filter(|(column, _)| is_shown(*column));
        let cells = cells.map(|(column, (text, &width))| {
            let width = usize::from(width);
            let text = shorten(&printable(&text), width);
            Cell::from(if FIGURES.contains(&column) { format!("{text:>width$}") } else { text })
        });
        Line80::new(cells.collect::<Vec<_>>())
    };
    let header =
        aligned(HEADERS.map(str::to_owned).to_vec()).style(Style::new().add_modifier(Modifier::BOLD));
    let lines = rows.iter().map(|row| {
        let mut cells = cells(row);
        cells.resize(HEADERS.len() - 1, String::new());
        cells.push(
            row.seen.as_ref().map_or_else(|_| String::new(), |seen| sparkline(seen.flow, WIDTHS[7].into())),
        );
        aligned(cells)
    });
    let shown = widths.iter().enumerate().filter(|(column, _)| is_shown(*column));
    let table = Table::new(lines.collect::<Vec<_>>(), shown.map(|(_, &width)| Constraint::Length(width)))
        .header(header)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected((!rows.is_empty()).then_some(selected));
    frame.render_stateful_widget(table, area, &mut state);
}

/// The end of a text tells more than its middle: of a path the file, of a pipe its direction.
fn shorten(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let end: String = text.chars().skip(length - width.saturating_sub(1)).collect();
    if width == 0 { String::new() } else { format!("…{end}") }
}

/// One pipe in full: its rates, then what `stat` shows.
fn draw_full(frame: &mut Frame<'_>, area: Rect, board: &Board, row: &Row<'_>) {
    let bold = |text: String| Line::styled(text, Style::new().add_modifier(Modifier::BOLD));
    let mut lines = vec![bold(printable(&row.name))];
    match &row.seen {
        Ok(Seen { latest, way, flow }) => {
            let width = usize::from(area.width).saturating_sub(1);
            lines.push(Line::raw(sparkline(flow, width)));
            lines.push(Line::raw(format!(
                "{} messages and {} bytes sent, {} released, per second; fill {}, highest {}",
                units::show_rate(flow.sent_per_second),
                units::show_count(flow.bytes_per_second),
                units::show_rate(flow.released_per_second),
                units::show_fill(way.used, latest.capacity),
                units::show_fill(flow.highest, latest.capacity)
            )));
            lines.push(Line::raw(format!(
                "producer {}, consumer {}",
                flow.doing[0].name(),
                flow.doing[1].name()
            )));
            lines.push(Line::raw(format!(
                "since top started {} deaths, {} takeovers, {} messages dropped",
                flow.deaths, flow.takeovers, flow.dropped
            )));
            lines.push(Line::raw(""));
            let details = description::details(&row.pipe.location, latest);
            let width = details.iter().map(|line| line[0].chars().count()).max().unwrap_or(0);
            lines.extend(
                details.iter().map(|line| Line::raw(format!("{:<width$}  {}", line[0], printable(&line[1])))),
            );
        }
        Err(error) => lines.push(Line::raw(printable(&error.to_string()))),
    }
    let most = (lines.len() as u16).saturating_sub(area.height);
    frame.render_widget(Paragraph::new(lines).scroll((board.scroll.min(most), 0)), area);
}

#[cfg(test)]
mod tests;
